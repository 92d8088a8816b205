// The memory figures of the parts: an example that is worked by hand.
#include "nn/costs.h"

#include <catch2/catch.hpp>

#include "nn/attention_cost.h"

namespace autoscheme {
namespace {

TEST_CASE("costs: attention saves its input, q, k, v and its output, and the heads that are normed") {
  Attention attention{0, 1, 2, 3, {}, {}, /*heads=*/4, /*kv_heads=*/2, /*head_dim=*/8, 0};
  const auto cost = [&](bool quantized) { return ActivationsOf({{{Norm{0}, attention}}}, /*hidden=*/30, quantized); };
  CHECK(cost(false).saved == 30 + 2 * 32 + 2 * 16 + 2);        // the scales of a norm
  CHECK(cost(false).graph == cost(false).saved + 30);          // the normed input
  CHECK(cost(true).graph == cost(false).saved + 2 * 30 + 32);  // also quantized, as is o_proj's input
  CHECK(cost(false).transient == 2 * 30 + 32 + 2 * 16);
  attention.q_norm.weight = 1, attention.k_norm.weight = 2;
  CHECK(cost(false).saved == 30 + 3 * 32 + 3 * 16 + 2 + 2 * 4 + 2 * 2);
}

TEST_CASE("costs: an MLP saves its input, gate and up") {
  const Sublayer mlp{{{Norm{0}, GatedMlp{0, 1, 2, /*width=*/100}}}};
  CHECK(ActivationsOf(mlp, 30, false).saved == 30 + 200 + 2);
  CHECK(ActivationsOf(mlp, 30, false).graph == 30 + 200 + 2 + 30 + 100);
  CHECK(ActivationsOf(mlp, 30, true).graph == 30 + 200 + 2 + 2 * (30 + 100));
  CHECK(ActivationsOf(mlp, 30, false).transient == 2 * 30 + 200);
  CHECK(ScratchOf(mlp, 64, {}).forward == 0);
}

TEST_CASE("costs: only a window that hides something needs a mask") {
  Attention attention{0, 1, 2, 3, {}, {}, 4, 2, 8, 0};
  const auto mask = [&](int64_t window) {
    attention.window = window;
    return ScratchOf({{{Norm{0}, attention}}}, 64, {}).shared;
  };
  CHECK(mask(0) == 0);
  CHECK(mask(64) == 0);
  CHECK(mask(63) == 64 * 64 * 4);
}

}  // namespace
}  // namespace autoscheme
