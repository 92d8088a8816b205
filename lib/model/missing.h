// Why tensors are missing, told by the tensors that are there instead.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/decoder_spec.h"

namespace autoscheme {

struct Diagnosis {
  absl::StatusCode code = absl::StatusCode::kNotFound;  // kUnimplemented: the checkpoint is of a kind not read here
  std::string text;                                     // empty: nothing is known
};

// `missing`: the names of tensors that the model needs and the checkpoint lacks. `unused`: those of tensors that it has
// and nothing needs, sorted. Where `missing` is empty, tensors have wrong shapes or types, and only quantization
// explains that.
Diagnosis DiagnoseMissing(absl::Span<const std::string> missing, absl::Span<const std::string> unused,
                          const ModelSpec& spec);

}  // namespace autoscheme
