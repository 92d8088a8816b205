// Text of others on a terminal.
#ifndef AUTOSCHEME_EXAMPLES_CLI_PRINTABLE_H_
#define AUTOSCHEME_EXAMPLES_CLI_PRINTABLE_H_

#include <string>

#include "absl/strings/string_view.h"

namespace cli {

// `text` on one line that moves no cursor: control characters, invalid UTF-8 and characters that reverse the writing
// direction become \xNN. For names from files and the command line; the library's own messages are so already.
std::string Printable(absl::string_view text);

}  // namespace cli

#endif  // AUTOSCHEME_EXAMPLES_CLI_PRINTABLE_H_
