#include "nn/costs.h"

#include <algorithm>

namespace autoscheme {
namespace {

// A norm saves a float32 for each row, which is as much as two values of bfloat16, and a mean where it has one.
int64_t Scales(const Norm& norm, int64_t rows) {
  return norm.kind == Norm::kNone ? 0 : norm.kind == Norm::kLayer ? 4 * rows : 2 * rows;
}

// What a body adds to the sublayer's input, which is saved once.
Activations Cost(const Attention& a, int64_t hidden, int64_t copies) {
  const int64_t q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim;
  // Saved: q, k and v, twice if they are clamped; attention's output; what the norms of heads give; scales. In a graph
  // the normed input too. Then the sublayer's output and its gradient; those of q, k and v, and that of attention's
  // output in its place, twice where it was quantized; or those of the normed input, in the place of what was saved for
  // them. The linear that gives q, k and v together has a gradient of its own.
  const int64_t normed_heads = (a.q_norm.kind != Norm::kNone ? q + Scales(a.q_norm, a.heads) : 0) +
                               (a.k_norm.kind != Norm::kNone ? kv + Scales(a.k_norm, a.kv_heads) : 0);
  const int64_t saved = 2 * q + 2 * kv + normed_heads + (a.clip > 0 ? q + 2 * kv : 0);
  const int64_t apart = q + std::max(2 * kv, (copies - 1) * q), joined = q + 2 * kv;
  return {saved, saved + copies * hidden + (copies - 1) * q,
          2 * hidden + std::max(apart + (a.inputs == Attention::kSeparate ? 0 : joined),
                                (2 + copies) * hidden - 2 * q - 2 * kv)};
}

Activations Cost(const Mlp& m, int64_t hidden, int64_t copies) {
  // Saved: gate and up. In a graph the normed input and the product of gate and up too. Then the sublayer's output and
  // its gradient, and two gradients of the inner width beyond what is freed before them, twice if one linear gives
  // both.
  const int64_t saved = (m.gated() ? 2 : 1) * m.width;
  return {saved, saved + copies * (hidden + m.width), 2 * hidden + (m.fused ? 4 : 2) * m.width};
}

Scratch ScratchOf(const Attention& a, int64_t seqlen, const AttentionBytes& bytes) {
  return AttentionScratch(ShapeOf(a), seqlen, bytes);
}

Scratch ScratchOf(const Mlp&, int64_t, const AttentionBytes&) { return {}; }

}  // namespace

Activations ActivationsOf(const Sublayer& sublayer, int64_t hidden, bool quantized_inputs) {
  // The input of a norm behind a branch is saved, and so is that of one behind the sum. Branches that are through wait
  // for the sum.
  const int64_t after_sum = sublayer.after_sum.kind != Norm::kNone ? hidden : 0;
  const int64_t waiting = (static_cast<int64_t>(sublayer.branches.size()) - 1) * hidden;
  Activations sum{hidden + after_sum, hidden + after_sum, 0};
  for (const Branch& branch : sublayer.branches) {
    const Activations cost =
        std::visit([&](const auto& body) { return Cost(body, hidden, quantized_inputs ? 2 : 1); }, branch.body);
    const int64_t after = branch.after.kind != Norm::kNone ? hidden + Scales(branch.after, 1) : 0;
    const int64_t more = after + Scales(branch.before, 1);
    sum.saved += cost.saved + more, sum.graph += cost.graph + more;
    sum.transient = std::max(sum.transient, cost.transient + after + after_sum + waiting);
  }
  return sum;
}

Scratch ScratchOf(const Sublayer& sublayer, int64_t seqlen, const AttentionBytes& bytes) {
  Scratch most;
  for (const Branch& branch : sublayer.branches) {
    const Scratch one = std::visit([&](const auto& body) { return ScratchOf(body, seqlen, bytes); }, branch.body);
    most.shared = std::max(most.shared, one.shared), most.forward = std::max(most.forward, one.forward);
    most.forward_outside = std::max(most.forward_outside, one.forward_outside),
    most.backward = std::max(most.backward, one.backward);
  }
  return most;
}

}  // namespace autoscheme
