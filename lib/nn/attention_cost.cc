#include "nn/attention_cost.h"

#include <algorithm>
#include <cmath>

namespace autoscheme {
namespace {

// Scores of one chunk of queries, of all heads that share a key head: in a second-level cache with what stands beside
// them. Causality leaves out more the shorter a chunk is, products are quicker the longer it is.
constexpr int64_t kScoreElements = 1 << 17, kMostQueries = 64, kLeastQueries = 16;

// Scores of one stretch of all rows and heads, 16 MiB: a launch computes for longer than it takes to launch.
constexpr int64_t kBatchedScores = 1 << 22;

}  // namespace

double AttentionShape::factor() const { return scale != 0 ? scale : 1.0 / std::sqrt(static_cast<double>(head_dim)); }

AttentionShape ShapeOf(const Attention& a) {
  const Rotary& r = a.rotary;
  return {a.heads,   a.kv_heads,    a.head_dim, a.window,       a.scale,
          a.softcap, r.interleaved, r.wide,     r.query_growth, r.growth_length};
}

AttentionShape Seen(AttentionShape shape, int64_t seqlen) {
  if (shape.window >= seqlen) shape.window = 0;
  return shape;
}

int64_t QueriesAtOnce(const AttentionShape& shape, int64_t seqlen) {
  const int64_t seen = std::max<int64_t>(shape.window > 0 ? std::min(seqlen, shape.window + kMostQueries) : seqlen, 1);
  return std::min(seqlen, std::clamp(kScoreElements / (shape.group() * seen), kLeastQueries, kMostQueries));
}

Scratch AttentionScratch(const AttentionShape& given, int64_t seqlen, const AttentionBytes& bytes) {
  const AttentionShape shape = Seen(given, seqlen);
  const int64_t q = seqlen * shape.heads * shape.head_dim, kv = seqlen * shape.kv_heads * shape.head_dim;
  const bool narrow = bytes.given < 4;
  Scratch scratch;
  // The mask of a window; the tables of positions in a narrow type.
  if (shape.window > 0) scratch.shared += seqlen * seqlen * bytes.taken;
  if (narrow) scratch.shared += seqlen * shape.head_dim * bytes.given;
  // The kernel's result; values as it wants them, and its buffers, half as much each.
  scratch.forward_outside = 2 * q * bytes.taken;
  // Queries and keys rotated; keys and values copied for every head that reads them; and what is widened before that.
  scratch.forward = scratch.forward_outside + (q + kv + (shape.group() > 1 ? 2 * q : 0)) * bytes.taken;
  if (bytes.taken > bytes.given) scratch.forward += (q + kv) * bytes.given + kv * bytes.taken;
  const int64_t step = QueriesAtOnce(shape, seqlen), rows = shape.group() * step;
  const int64_t keys = shape.window > 0 ? std::min(seqlen, shape.window + step) : seqlen;
  scratch.backward =
      4 * ((narrow ? 4 : 3) * seqlen * shape.head_dim + rows * (2 * keys + 3 * shape.head_dim) + step * step);
  if (shape.interleaved) scratch.forward_outside += 2 * q * 4;  // products that no loop of ours forms
  if (shape.softcap > 0) {
    // The slopes of the cap; forward the loops of the gradient, no mask and no kernel.
    scratch.backward += 4 * rows * keys;
    scratch.shared = scratch.forward_outside = 0;
    scratch.forward = scratch.backward;
  }
  return scratch;
}

int64_t BatchedQueries(const AttentionShape& shape, int64_t rows, int64_t seqlen) {
  const int64_t seen = std::max<int64_t>(shape.window > 0 ? std::min(seqlen, shape.window + kMostQueries) : seqlen, 1);
  const int64_t least = std::min(seqlen, kLeastQueries);
  return std::clamp(kBatchedScores / (std::max<int64_t>(rows, 1) * shape.heads * seen), least, seqlen);
}

int64_t BatchedKeys(const AttentionShape& shape, int64_t rows, int64_t seqlen) {
  return shape.window > 0 ? std::min(seqlen, shape.window + BatchedQueries(shape, rows, seqlen)) : seqlen;
}

BatchedScratch BatchedAttentionScratch(const AttentionShape& given, int64_t rows, int64_t seqlen, int64_t bytes_given) {
  const AttentionShape shape = Seen(given, seqlen);
  const int64_t step = BatchedQueries(shape, rows, seqlen), keys = BatchedKeys(shape, rows, seqlen);
  const int64_t q = 4 * rows * seqlen * shape.heads * shape.head_dim,
                kv = 4 * rows * seqlen * shape.kv_heads * shape.head_dim, scores = 4 * rows * shape.heads * step * keys;
  BatchedScratch scratch;
  // Queries, keys and values; scores, and the slopes of their cap.
  scratch.forward = q + 2 * kv + (shape.softcap > 0 ? 2 : 1) * scores;
  // The gradients of keys and values, of scores and of a stretch of the result.
  scratch.backward = scratch.forward + 2 * kv + scores + q / seqlen * step;
  // Masks, and in the gradient of the softmax its product with that.
  scratch.forward_outside = 3 * 4 * step * step;
  scratch.backward_outside = scratch.forward_outside + scores;
  if (bytes_given < 4) {
    // Rotated queries are rounded, and formed from products in the narrow type; gradients are widened before.
    scratch.forward_outside += 3 * q / 4;
    scratch.backward += q;
  }
  return scratch;
}

}  // namespace autoscheme
