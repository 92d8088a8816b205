// The cos and sin by which attention rotates queries and keys.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/rope.h"

namespace autoscheme {

// [2, seqlen, dims / 2]: cos and sin of position x frequency, float32 (docs/algorithm.md 1.4). Those of types dynamic
// and longrope depend on seqlen.
at::Tensor RopeTables(const RopeConfig& rope, int64_t dims, int64_t seqlen);

}  // namespace autoscheme
