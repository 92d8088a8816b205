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
  CHECK(cost(false).transient == 2 * 30 + 32 + 2 * 16 + 64);  // the gradient of what gives q, k and v together
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
