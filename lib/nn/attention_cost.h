// What attention needs to know of its shape, and the memory that it takes. No torch.
#pragma once

#include <cstdint>

#include "model/decoder_spec.h"

namespace autoscheme {

struct AttentionShape {
  int64_t heads = 1, kv_heads = 1, head_dim = 2;
  int64_t window = 0;                               // > 0: a query sees itself and the window - 1 positions before it
  double scale = 0;                                 // 0: 1 / sqrt(head_dim)
  double softcap = 0;                               // > 0: scores become softcap tanh(scores / softcap)
  bool interleaved = false, wide_rotation = false;  // see Rotary
  double query_growth = 0, growth_length = 1;       // likewise

  int64_t group() const { return heads / kv_heads; }  // query heads that share a key head
  double factor() const;                              // what scores are multiplied by
};

AttentionShape ShapeOf(const Attention& attention);

// The shape for rows of seqlen: a window that hides nothing is none.
AttentionShape Seen(AttentionShape shape, int64_t seqlen);

// Queries that the gradient works on together.
int64_t QueriesAtOnce(const AttentionShape& shape, int64_t seqlen);

// Bytes of a number: as attention is given it, and as LibTorch's kernel is, which takes float32 where the processor
// cannot multiply the others.
struct AttentionBytes {
  int64_t given = 4, taken = 4;
};

// Bytes that a part holds beside its tensors for a moment: forward for every row of the batch that a thread is at,
// backward in every thread.
struct Scratch {
  int64_t shared = 0;  // forward, once
  int64_t forward = 0;
  int64_t forward_outside = 0;  // the share of `forward` that LibTorch allocates itself, not from the run's pools
  int64_t backward = 0;
};

// What CausalAttention holds beside its results, on the processor.
Scratch AttentionScratch(const AttentionShape& given, int64_t seqlen, const AttentionBytes& bytes);

// The same on another device, where all `rows` of the batch and all heads are worked at once; and the queries that are,
// with the keys that they see at most. The share that LibTorch allocates itself is not in `forward` and `backward`.
struct BatchedScratch {
  int64_t forward = 0, forward_outside = 0;
  int64_t backward = 0, backward_outside = 0;
};
BatchedScratch BatchedAttentionScratch(const AttentionShape& given, int64_t rows, int64_t seqlen, int64_t bytes_given);
int64_t BatchedQueries(const AttentionShape& shape, int64_t rows, int64_t seqlen);
int64_t BatchedKeys(const AttentionShape& shape, int64_t rows, int64_t seqlen);

}  // namespace autoscheme
