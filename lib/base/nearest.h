// What a person may have meant by a name that is not known.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace autoscheme {

// The known names that differ from `name` in the fewest characters (added, left out or replaced; case aside), nearest
// first and quoted: "\"v_proj\", \"o_proj\"". At most `most` of them; "" if none is known.
std::string Nearest(absl::string_view name, std::vector<std::string> known, size_t most = 3);

}  // namespace autoscheme
