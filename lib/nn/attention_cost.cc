#include "nn/attention_cost.h"

#include <algorithm>

namespace autoscheme {
namespace {

// Scores of one chunk of queries, of all heads that share a key head: in a second-level cache with what stands beside
// them. Causality leaves out more the shorter a chunk is, products are quicker the longer it is.
constexpr int64_t kScoreElements = 1 << 17, kMostQueries = 64, kLeastQueries = 16;

}  // namespace

AttentionShape ShapeOf(const Attention& a) {
  return {a.heads, a.kv_heads, a.head_dim, a.window, a.scale, a.softcap, a.rotary.interleaved, a.rotary.wide};
}

AttentionShape Seen(AttentionShape shape, int64_t seqlen) {
  if (shape.window >= seqlen) shape.window = 0;
  return shape;
}

int64_t QueriesAtOnce(const AttentionShape& shape, int64_t seqlen) {
  const int64_t seen = std::max<int64_t>(shape.window > 0 ? std::min(seqlen, shape.window + kMostQueries) : seqlen, 1);
  return std::min(seqlen, std::clamp(kScoreElements / (shape.group() * seen), kLeastQueries, kMostQueries));
}

int64_t AttentionMaskBytes(const AttentionShape& shape, int64_t seqlen) {
  return Seen(shape, seqlen).window > 0 && shape.softcap == 0 ? seqlen * seqlen * static_cast<int64_t>(sizeof(float))
                                                              : 0;
}

int64_t AttentionForwardBytes(const AttentionShape& shape, int64_t seqlen) {
  if (shape.softcap > 0) return AttentionBackwardBytes(shape, seqlen);
  // Queries rotated; keys, which are at most half as many where they are copied for every head, and these; values
  // likewise; and what the kernel has.
  return 4 * seqlen * shape.heads * shape.head_dim * static_cast<int64_t>(sizeof(float)) +
         AttentionKernelBytes(shape, seqlen);
}

int64_t AttentionKernelBytes(const AttentionShape& shape, int64_t seqlen) {
  if (shape.softcap > 0) return 0;
  // The result; values as it wants them, and its buffers, half as much each.
  return 2 * seqlen * shape.heads * shape.head_dim * static_cast<int64_t>(sizeof(float));
}

int64_t AttentionBackwardBytes(const AttentionShape& given, int64_t seqlen) {
  const AttentionShape shape = Seen(given, seqlen);
  const int64_t step = QueriesAtOnce(shape, seqlen), rows = shape.group() * step;
  const int64_t keys = shape.window > 0 ? std::min(seqlen, shape.window + step) : seqlen;
  const int64_t numbers =
      4 * seqlen * shape.head_dim + rows * ((shape.softcap > 0 ? 3 : 2) * keys + 4 * shape.head_dim) + step * step;
  return numbers * static_cast<int64_t>(sizeof(float));
}

}  // namespace autoscheme
