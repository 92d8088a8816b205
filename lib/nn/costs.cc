#include "nn/costs.h"

#include <algorithm>

namespace autoscheme {
namespace {

// A norm saves a float32 for each row, which is as much as two values of bfloat16.
constexpr int64_t kScale = 2;

// What a branch adds to the sublayer's input, which is saved once.
Activations Cost(const Attention& a, int64_t hidden, int64_t copies) {
  const int64_t q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim;
  // Saved: q, k and v; attention's output; what the norms of heads give; scales. In a graph the normed input too. Then
  // the sublayer's output and its gradient; those of q, k and v, and that of attention's output in its place, twice
  // where it was quantized; or those of the normed input, in the place of what was saved for them.
  const int64_t normed_heads =
      (a.q_norm.weight >= 0 ? q + kScale * a.heads : 0) + (a.k_norm.weight >= 0 ? kv + kScale * a.kv_heads : 0);
  const int64_t saved = 2 * q + 2 * kv + normed_heads + kScale;
  return {saved, saved + copies * hidden + (copies - 1) * q,
          2 * hidden + std::max(q + std::max(2 * kv, (copies - 1) * q), (2 + copies) * hidden - 2 * q - 2 * kv)};
}

Activations Cost(const GatedMlp& m, int64_t hidden, int64_t copies) {
  // Saved: gate and up. In a graph the normed input and the product of gate and up too. Then the sublayer's output and
  // its gradient, and two gradients of the inner width beyond what is freed before them.
  const int64_t saved = 2 * m.width + kScale;
  return {saved, saved + copies * (hidden + m.width), 2 * hidden + 2 * m.width};
}

Scratch ScratchOf(const Attention& a, int64_t seqlen, const AttentionBytes& bytes) {
  return AttentionScratch({a.heads, a.kv_heads, a.head_dim, a.window}, seqlen, bytes);
}

Scratch ScratchOf(const GatedMlp&, int64_t, const AttentionBytes&) { return {}; }

}  // namespace

Activations ActivationsOf(const Sublayer& sublayer, int64_t hidden, bool quantized_inputs) {
  Activations sum{hidden, hidden, 0};
  for (const Branch& branch : sublayer.branches) {
    const Activations cost =
        std::visit([&](const auto& body) { return Cost(body, hidden, quantized_inputs ? 2 : 1); }, branch.body);
    sum.saved += cost.saved, sum.graph += cost.graph, sum.transient = std::max(sum.transient, cost.transient);
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
