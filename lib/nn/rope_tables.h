// The cos and sin by which attention rotates queries and keys.
#ifndef AUTOSCHEME_NN_ROPE_TABLES_H_
#define AUTOSCHEME_NN_ROPE_TABLES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/rope.h"

namespace autoscheme {

// [2, seqlen, head_dim / 2]: cos and sin of position x frequency, float32.
at::Tensor RopeTables(const RopeConfig& rope, int64_t head_dim, int64_t seqlen);

}  // namespace autoscheme

#endif  // AUTOSCHEME_NN_ROPE_TABLES_H_
