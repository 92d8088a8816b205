// Causal attention with rotary positions, from the projections to the input of the output projection.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "nn/attention_cost.h"

namespace autoscheme {

// q [batch, seq, heads * head_dim], k and v [batch, seq, kv_heads * head_dim] -> as q. Query head h reads key head
// h / (heads / kv_heads). `tables` [2, seq, dims / 2], float32: cos and sin by which the first dims numbers of every
// head of q and k are rotated; undefined: none are. Softmax and sums in float32.
//
// Forward row by row, with the bits of LibTorch's own operators, but for capped scores, which it does not know; on
// other devices than the processor see batched_attention.h. Differentiable in q, k and v; keeps those three and nothing
// else: no rotated copies, no matrix of scores. The gradient is worked in float32 whatever the dtype, a chunk of
// queries at a time.
at::Tensor CausalAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& tables,
                           const AttentionShape& shape);

}  // namespace autoscheme
