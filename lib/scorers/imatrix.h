// Importance matrix: for every linear layer the sum of squares of each input channel (SPEC 5.3).
#ifndef AUTOSCHEME_SCORERS_IMATRIX_H_
#define AUTOSCHEME_SCORERS_IMATRIX_H_

#include <string>

#include <ATen/core/Tensor.h>

#include "absl/container/flat_hash_map.h"

namespace autoscheme {

// Layer name ("model.layers.0.mlp.up_proj") -> float32 [in_features].
using Imatrix = absl::flat_hash_map<std::string, at::Tensor>;

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCORERS_IMATRIX_H_
