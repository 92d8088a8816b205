// Attention for devices that have a parallelism of their own: all rows of the batch and all heads at once, a stretch of
// queries after the other.
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/attention_cost.h"

namespace autoscheme {

// As CausalAttention, by LibTorch's operators alone, which give the same in every run. Without autograd. `shape` as
// Seen gives it. Beside the result it holds what BatchedAttentionScratch says.
at::Tensor BatchedAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& tables,
                            const AttentionShape& shape);

// dq, dk and dv, of the sizes of q, k and v and contiguous, for the gradient of the result.
struct AttentionGradients {
  at::Tensor q, k, v;
};
void BatchedAttentionGradients(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& tables,
                               const AttentionShape& shape, const at::Tensor& grad, const AttentionGradients& out);

}  // namespace autoscheme
