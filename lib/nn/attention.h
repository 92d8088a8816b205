// Causal attention with rotary positions, from the projections to the input of the output projection.
#ifndef AUTOSCHEME_NN_ATTENTION_H_
#define AUTOSCHEME_NN_ATTENTION_H_

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace autoscheme {

struct AttentionShape {
  int64_t heads = 1, kv_heads = 1, head_dim = 2;
  int64_t window = 0;  // > 0: a query sees itself and the window - 1 positions before it
};

// q [batch, seq, heads * head_dim], k and v [batch, seq, kv_heads * head_dim] -> as q. Query head h reads key head
// h / (heads / kv_heads). `tables` [2, seq, head_dim / 2], float32: cos and sin by which q and k are rotated, halves layout
// (a c - b s, b c + a s). Scores are divided by sqrt(head_dim). Softmax and sums in float32.
//
// Forward row by row, with the bits of LibTorch's own operators: what the reference computes. Differentiable in q, k
// and v; keeps those three and nothing else: no rotated copies, no matrix of scores. The gradient is worked in float32
// whatever the dtype, a stretch of queries at a time.
at::Tensor CausalAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& tables,
                           const AttentionShape& shape);

// Bytes that CausalAttention holds beside its results: forward the mask of a window, and for one row of the batch (both in
// float32), of which LibTorch's kernel allocates a part itself; backward in one thread.
int64_t AttentionMaskBytes(const AttentionShape& shape, int64_t seqlen);
int64_t AttentionForwardBytes(const AttentionShape& shape, int64_t seqlen);
int64_t AttentionKernelBytes(const AttentionShape& shape, int64_t seqlen);
int64_t AttentionBackwardBytes(const AttentionShape& shape, int64_t seqlen);

}  // namespace autoscheme

#endif  // AUTOSCHEME_NN_ATTENTION_H_
