// What attention needs to know of its shape, and the memory that it takes. No torch.
#ifndef AUTOSCHEME_NN_ATTENTION_COST_H_
#define AUTOSCHEME_NN_ATTENTION_COST_H_

#include <cstdint>

#include "model/decoder_spec.h"

namespace autoscheme {

struct AttentionShape {
  int64_t heads = 1, kv_heads = 1, head_dim = 2;
  int64_t window = 0;                               // > 0: a query sees itself and the window - 1 positions before it
  double scale = 0;                                 // of the scores; 0: 1 / sqrt(head_dim)
  double softcap = 0;                               // > 0: scores become softcap tanh(scores / softcap)
  bool interleaved = false, wide_rotation = false;  // see Rotary

  int64_t group() const { return heads / kv_heads; }  // query heads that share a key head
};

AttentionShape ShapeOf(const Attention& attention);

// The shape for rows of seqlen: a window that hides nothing is none.
AttentionShape Seen(AttentionShape shape, int64_t seqlen);

// Queries that the gradient works on together.
int64_t QueriesAtOnce(const AttentionShape& shape, int64_t seqlen);

// Bytes that CausalAttention holds beside its results: forward the mask of a window, and for one row of the batch (both
// in float32), of which LibTorch's kernel allocates a part itself; backward in one thread.
int64_t AttentionMaskBytes(const AttentionShape& shape, int64_t seqlen);
int64_t AttentionForwardBytes(const AttentionShape& shape, int64_t seqlen);
int64_t AttentionKernelBytes(const AttentionShape& shape, int64_t seqlen);
int64_t AttentionBackwardBytes(const AttentionShape& shape, int64_t seqlen);

}  // namespace autoscheme

#endif  // AUTOSCHEME_NN_ATTENTION_COST_H_
