// Text of others on a terminal.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace cli {

// `text` on one line that moves no cursor: control characters, invalid UTF-8 and characters that reverse the writing
// direction become \xNN. For names from files and the command line; the library's own messages are so already.
std::string Printable(absl::string_view text);

}  // namespace cli
