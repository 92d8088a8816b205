// Where results are written, looked at before hours of work.
#ifndef AUTOSCHEME_OUTPUT_H_
#define AUTOSCHEME_OUTPUT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "autoscheme/context.h"

namespace autoscheme {

// OK if results could be written now to all of `outputs` (WriteScores, WriteRecipes, WritePareto), no two of which are
// one file under two spellings, and none of which is one of `inputs`; an input that does not exist is no obstacle.
// A name by which a model folder (with config.json or weights) would read the result as weights or config is refused
// there.
// Writes into none of them and opens no device or pipe; a file that is made beside an output, as a trial, is gone
// afterwards. INVALID_ARGUMENT (two are one, an input would be overwritten, a name that a
// model folder reads, a folder or another thing that is no file),
// NOT_FOUND (no such folder), PERMISSION_DENIED, RESOURCE_EXHAUSTED.
absl::Status CheckOutputs(const Context& context, const std::vector<std::string>& outputs,
                          const std::vector<std::string>& inputs);

}  // namespace autoscheme

#endif  // AUTOSCHEME_OUTPUT_H_
