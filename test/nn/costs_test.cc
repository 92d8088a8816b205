// The memory figures of the parts: an example that is worked by hand.
#include "nn/costs.h"

#include <catch2/catch.hpp>
#include <utility>

#include "nn/attention_cost.h"

namespace autoscheme {
namespace {

Sublayer Alone(std::variant<Attention, Mlp> body) {
  Norm before;
  before.kind = Norm::kRms;
  Sublayer sublayer;
  sublayer.branches = {{before, std::move(body), {}}};
  return sublayer;
}

Attention SharedKeys() {
  Attention attention;
  attention.heads = 4, attention.kv_heads = 2, attention.head_dim = 8;
  return attention;
}

TEST_CASE("costs: attention saves its input, q, k, v and its output, and the heads that are normed") {
  Attention attention = SharedKeys();
  const auto cost = [&](bool quantized) { return ActivationsOf(Alone(attention), /*hidden=*/30, quantized); };
  CHECK(cost(false).saved == 30 + 2 * 32 + 2 * 16 + 2);        // the scales of a norm
  CHECK(cost(false).graph == cost(false).saved + 30);          // the normed input
  CHECK(cost(true).graph == cost(false).saved + 2 * 30 + 32);  // also quantized, as is o_proj's input
  CHECK(cost(false).transient == 2 * 30 + 32 + 2 * 16);
  attention.q_norm.kind = attention.k_norm.kind = Norm::kRms;
  CHECK(cost(false).saved == 30 + 3 * 32 + 3 * 16 + 2 + 2 * 4 + 2 * 2);
  attention.q_norm.kind = attention.k_norm.kind = Norm::kNone, attention.inputs = Attention::kConcatenated;
  CHECK(cost(false).transient == 2 * 30 + 32 + 2 * 16);  // one gradient for q, k and v lies where they were saved
}

TEST_CASE("costs: an MLP saves its input, gate and up") {
  Mlp gated;
  gated.gate = 0, gated.width = 100;
  const Sublayer mlp = Alone(gated);
  CHECK(ActivationsOf(mlp, 30, false).saved == 30 + 200 + 2);
  CHECK(ActivationsOf(mlp, 30, false).graph == 30 + 200 + 2 + 30 + 100);
  CHECK(ActivationsOf(mlp, 30, true).graph == 30 + 200 + 2 + 2 * (30 + 100));
  CHECK(ActivationsOf(mlp, 30, false).transient == 2 * 30 + 200);
  CHECK(ScratchOf(mlp, 64, {}).forward == 0);
}

TEST_CASE("costs: an MLP without gate passes one gradient through, twice where it is quantized") {
  Mlp plain;
  plain.width = 100;
  CHECK(ActivationsOf(Alone(plain), 30, false).saved == 30 + 100 + 2);
  CHECK(ActivationsOf(Alone(plain), 30, false).graph == 30 + 100 + 2 + 30 + 100);
  CHECK(ActivationsOf(Alone(plain), 30, false).transient == 2 * 30 + 100);
  CHECK(ActivationsOf(Alone(plain), 30, true).transient == 2 * 30 + 200);
  plain.activation = Activation::kRelu;  // no fused loop computes it
  CHECK(ScratchOf(Alone(plain), 64, {}).backward == 4 * 32768 * 4);
}

TEST_CASE("costs: parallel branches share a norm, and the last is gone when the first is differentiated") {
  Mlp plain;
  plain.width = 100;
  Sublayer both = Alone(SharedKeys());
  both.branches.push_back({both.branches[0].before, plain, {}});
  CHECK(ActivationsOf(both, 30, false).saved == 30 + 2 * 32 + 2 * 16 + 2 + 100);
  CHECK(ActivationsOf(both, 30, false).graph == 30 + 2 * 32 + 2 * 16 + 2 + 100 + 30 + 100);
  CHECK(ActivationsOf(both, 30, false).transient == 2 * 30 + 100);  // the MLP's: attention's is 200 less
  both.branches[1].before.eps = 1e-5;                               // a norm of its own
  CHECK(ActivationsOf(both, 30, false).graph == 30 + 2 * 32 + 2 * 16 + 2 + 100 + 30 + 100 + 30 + 2);
  plain.width = 10;
  both.branches[1] = {both.branches[0].before, plain, {}};
  CHECK(ActivationsOf(both, 30, false).transient == 2 * 30 + 32 + 2 * 16 + 30 - 20);  // attention's
}

TEST_CASE("costs: norms behind save what they read, and a layer norm there needs scratch") {
  Mlp plain;
  plain.width = 100;
  Sublayer behind = Alone(plain);
  behind.branches[0].before = {}, behind.branches[0].after.kind = Norm::kRms;
  CHECK(ActivationsOf(behind, 30, false).saved == 30 + 100 + 30 + 2);
  CHECK(ActivationsOf(behind, 30, false).graph == 30 + 100 + 30 + 2 + 100);
  CHECK(ActivationsOf(behind, 30, true).graph == 30 + 100 + 30 + 2 + 100 + 30 + 100);
  CHECK(ScratchOf(behind, 64, {}).backward == 0);
  behind.branches[0].after = {}, behind.after_sum.kind = Norm::kLayer;
  CHECK(ActivationsOf(behind, 30, false).saved == 30 + 100 + 30 + 4);
  CHECK(ScratchOf(behind, 64, {}).backward == 4 * 32768 * 4);
}

TEST_CASE("costs: only a window that hides something needs a mask") {
  Attention attention = SharedKeys();
  const auto mask = [&](int64_t window) {
    attention.window = window;
    return ScratchOf(Alone(attention), 64, {}).shared;
  };
  CHECK(mask(0) == 0);
  CHECK(mask(64) == 0);
  CHECK(mask(63) == 64 * 64 * 4);
}

}  // namespace
}  // namespace autoscheme
