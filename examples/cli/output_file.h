// Result files, looked at before hours of work.
#ifndef AUTOSCHEME_EXAMPLES_CLI_OUTPUT_FILE_H_
#define AUTOSCHEME_EXAMPLES_CLI_OUTPUT_FILE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace cli {

// OK if a file can be created beside `path` and `path` is none of `inputs`, nor any file in a folder among them.
absl::Status CheckOutput(const std::string& path, const std::vector<std::string>& inputs);

}  // namespace cli

#endif  // AUTOSCHEME_EXAMPLES_CLI_OUTPUT_FILE_H_
