// Recognizes what people pass for a safetensors file by accident, for a helpful message.
#ifndef AUTOSCHEME_CHECKPOINT_FILE_KIND_H_
#define AUTOSCHEME_CHECKPOINT_FILE_KIND_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/io.h"

namespace autoscheme {

// The error for a file whose first bytes are not a safetensors header: names the format it really has and the remedy.
// OK if the format is not known either.
absl::Status DescribeForeignFile(const File& file);

}  // namespace autoscheme

#endif  // AUTOSCHEME_CHECKPOINT_FILE_KIND_H_
