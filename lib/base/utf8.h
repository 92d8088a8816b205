// Well-formed UTF-8 (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace autoscheme {

// Bytes of the character that `text` begins with, 1 to 4; 0 if it is empty or begins with an ill-formed sequence.
size_t Utf8CharLength(absl::string_view text);

bool IsValidUtf8(absl::string_view text);

// Bytes that are no UTF-8 (a path may hold them) become U+FFFD.
std::string ToUtf8(absl::string_view text);

}  // namespace autoscheme
