// Text from files and hosts in messages for people.
#ifndef AUTOSCHEME_QUOTED_H_
#define AUTOSCHEME_QUOTED_H_

#include <string>

#include "absl/strings/string_view.h"

namespace autoscheme {

// `text` with control bytes, quotes, backslashes, invalid UTF-8 and characters that redirect a terminal escaped, cut to
// 200 bytes, in double quotes: for a name within a message.
std::string Quoted(absl::string_view text);

// `text` as one line of valid UTF-8 that a terminal shows as it is: line breaks and tabs become spaces; other control
// bytes, invalid UTF-8 and characters that redirect a terminal are escaped. For a message as a whole, where it leaves
// the library.
std::string OneLine(absl::string_view text);

}  // namespace autoscheme

#endif  // AUTOSCHEME_QUOTED_H_
