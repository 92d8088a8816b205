// With which words weights are refused that cannot be computed with, wherever they were looked at.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "autoscheme/tensor.h"

namespace autoscheme {

// What a look through a tensor came to: OK for a `count` of 0, else DATA_LOSS naming the tensor, how many of its values
// are NaN or infinite, and the index of the first of them.
absl::Status FiniteStatus(const TensorInfo& info, int64_t count, int64_t first);

// UNIMPLEMENTED, for a tensor that is none of BF16, F16 and F32.
absl::Status NotComputable(const TensorInfo& info);

}  // namespace autoscheme
