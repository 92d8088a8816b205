// Why tensors are missing, told by the tensors that are there instead.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/decoder_spec.h"

namespace autoscheme {

// The message's end, with its code: UNIMPLEMENTED where the checkpoint is of a kind not read here, else NOT_FOUND, with
// no text where nothing is known. `missing`: names of tensors that the model needs and the checkpoint lacks; `unused`:
// those that nothing needs, sorted. Where none is missing, shapes or types are wrong, and only quantization explains
// that. In `spec` the head and the first block are called as `missing` would have them.
absl::Status DiagnoseMissing(absl::Span<const std::string> missing, absl::Span<const std::string> unused,
                             const ModelSpec& spec);

}  // namespace autoscheme
