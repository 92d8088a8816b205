// The cos and sin by which attention rotates queries and keys.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/rope.h"

namespace autoscheme {

// [2, seqlen, head_dim / 2]: cos and sin of position x frequency, float32.
at::Tensor RopeTables(const RopeConfig& rope, int64_t head_dim, int64_t seqlen);

}  // namespace autoscheme
