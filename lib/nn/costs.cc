#include "nn/costs.h"

#include <algorithm>
#include <vector>

namespace autoscheme {
namespace {

// A norm saves a float32 for each row, which is as much as two values of bfloat16, and a mean where it has one. The
// joined weight of a norm in parts is saved once for all tokens: one value for each head and token covers it from
// head_dim tokens on.
int64_t Scales(const Norm& norm, int64_t rows) {
  const int64_t joined = norm.parts > 1 ? rows : 0;
  return norm.kind == Norm::kNone ? 0 : norm.kind == Norm::kLayer ? 4 * rows + joined : 2 * rows + joined;
}

// What a body adds to the sublayer's input, which is saved once. `normed`: whether it is the first to read what a norm
// makes of that.
Activations Cost(const Attention& a, int64_t hidden, int64_t copies, bool normed) {
  const int64_t q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim;
  // Saved: q, k and v, twice if they are clamped; attention's output; what the norms of heads give; scales. In a graph
  // the normed input too. Then the sublayer's output and its gradient; those of q, k and v, and that of attention's
  // output in its place, twice where it was quantized; or those of the normed input, one of each linear that reads it,
  // in the place of what was saved for them. So lies the gradient of the linear that gives q, k and v together.
  const int64_t normed_heads = (a.q_norm.kind != Norm::kNone ? q + Scales(a.q_norm, a.heads) : 0) +
                               (a.k_norm.kind != Norm::kNone ? kv + Scales(a.k_norm, a.kv_heads) : 0);
  const int64_t saved = 2 * q + 2 * kv + normed_heads + (a.clip > 0 ? q + 2 * kv : 0);
  const int64_t apart = q + std::max(2 * kv, (copies - 1) * q);
  const int64_t of_inputs = (a.inputs == Attention::kSeparate ? 2 * hidden : q + 2 * kv) + copies * hidden;
  return {saved, saved + (copies - 1 + normed) * hidden + (copies - 1) * q,
          2 * hidden + std::max(apart, of_inputs - 2 * q - 2 * kv)};
}

Activations Cost(const Mlp& m, int64_t hidden, int64_t copies, bool normed) {
  // Saved: gate and up. In a graph the normed input and the product of gate and up too. Then the sublayer's output and
  // its gradient; and those of gate and up, where that of their product takes its place, or without a gate one, twice
  // where it is quantized. The gradient of a linear that gives both lies where they were saved.
  const int64_t saved = (m.gated() ? 2 : 1) * m.width;
  return {saved, saved + (copies - 1 + normed) * hidden + copies * m.width,
          2 * hidden + (m.gated() ? 2 : copies) * m.width};
}

Scratch ScratchOf(const Attention& a, int64_t seqlen, const AttentionBytes& bytes) {
  return AttentionScratch(ShapeOf(a), seqlen, bytes);
}

// What is not one fused loop holds temporaries of a chunk of rows (row_chunks.h): a few, whatever is computed.
constexpr int64_t kChunkBytes = 4 << 15, kTemporaries = 4;

Scratch ScratchOf(const Mlp& m, int64_t, const AttentionBytes&) {
  Scratch scratch;
  if (m.activation != Activation::kSilu) scratch.forward = scratch.backward = kTemporaries * kChunkBytes;
  return scratch;
}

}  // namespace

Activations ActivationsOf(const Sublayer& sublayer, int64_t hidden, bool quantized_inputs) {
  // The input of a norm behind a branch is saved, and so is that of one behind the sum; what flows back through either
  // lies in its place. Branches that have one norm before them share what it gives.
  const std::vector<Branch>& branches = sublayer.branches;
  const auto behind = [&](const Norm& norm) { return norm.kind == Norm::kNone ? 0 : hidden + Scales(norm, 1); };
  Activations sum{hidden + behind(sublayer.after_sum), hidden + behind(sublayer.after_sum), 0};
  // The last branch is the first to be differentiated: its gradient waits for the sum, and its graph is gone.
  int64_t waiting = 0, gone = 0;
  for (auto branch = branches.rbegin(); branch != branches.rend(); ++branch) {
    const bool shares =
        std::any_of(branch + 1, branches.rend(), [&](const Branch& other) { return other.before == branch->before; });
    const bool normed = branch->before.kind != Norm::kNone && !shares;
    const Activations cost = std::visit(
        [&](const auto& body) { return Cost(body, hidden, quantized_inputs ? 2 : 1, normed); }, branch->body);
    const int64_t more = behind(branch->after) + (normed ? Scales(branch->before, 1) : 0);
    sum.saved += cost.saved + more, sum.graph += cost.graph + more;
    sum.transient = std::max(sum.transient, cost.transient + waiting - gone);
    waiting += hidden, gone += cost.graph;
  }
  return sum;
}

Scratch ScratchOf(const Sublayer& sublayer, int64_t seqlen, const AttentionBytes& bytes) {
  // A norm behind is differentiated while the whole graph is there.
  bool behind = sublayer.after_sum.kind == Norm::kLayer;
  for (const Branch& branch : sublayer.branches) behind = behind || branch.after.kind == Norm::kLayer;
  Scratch most;
  if (behind) most.backward = kTemporaries * kChunkBytes;
  for (const Branch& branch : sublayer.branches) {
    const Scratch one = std::visit([&](const auto& body) { return ScratchOf(body, seqlen, bytes); }, branch.body);
    most.shared = std::max(most.shared, one.shared), most.forward = std::max(most.forward, one.forward);
    most.forward_outside = std::max(most.forward_outside, one.forward_outside),
    most.backward = std::max(most.backward, one.backward);
  }
  return most;
}

}  // namespace autoscheme
