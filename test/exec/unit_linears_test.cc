#include "exec/unit_linears.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <memory>
#include <set>
#include <string>

#include "exec/graph.h"
#include "exec/loaded.h"
#include "support/recording_scorer.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

// The linear layers of block 0, whose weights are doubled and whose inputs are halved.
struct BlockCase {
  explicit BlockCase(bool forward_only = false, int64_t micro_batch_rows = 0)
      : scorer(Needs(forward_only), {doubling, halving}) {
    plan.micro_batch_rows = micro_batch_rows;
    linears = UnitLinears::Create(run, plan, units[0], scorers, 0).value();
    linears->Bind([this](absl::string_view name) { return loaded.Find(name); }, rows);
  }
  ScorerNeeds Needs(bool forward_only) const {
    LinearNeeds scored;
    scored.quantizes_weight = scored.weight_gradient = scored.scored = !forward_only;
    ScorerNeeds needs = NeedsOf(*tiny, scored);
    needs.variants[0].forward_only = forward_only;
    return needs;
  }
  const LinearLayer& layer(int index) const { return tiny->blocks()[0].linears[index]; }
  at::Tensor weight(int index) const { return Float(*tiny, *layer(index).weight); }

  TinySkeleton tiny;
  Context context;
  RunResources run{context};
  ExecutionPlan plan;
  const std::vector<Unit> units = MakeUnits(*tiny, 0);
  const Loaded loaded{*tiny, units[0].tensors};
  ResidentRows rows{run, [this](absl::string_view name) { return loaded.Find(name); }};
  const std::shared_ptr<Doubling> doubling = std::make_shared<Doubling>();
  const std::shared_ptr<Halving> halving = std::make_shared<Halving>();
  RecordingScorer scorer;
  const Scorers scorers{{&scorer}};
  std::unique_ptr<UnitLinears> linears;
};

enum { kQ, kK, kV, kO, kGate, kUp, kDown };

TEST_CASE("layers that read one tensor have it quantized once") {
  at::manual_seed(1);
  BlockCase block;
  const at::Tensor x = at::randn({2, 3, 32}), other = at::randn({2, 3, 32});
  for (const int index : {kQ, kK, kV}) {
    const at::Tensor y = block.linears->Apply(block.layer(index), x, true);
    CHECK((y - at::matmul(x, block.weight(index).t())).abs().max().item<double>() < 1e-5);
    CHECK(block.halving->calls == 1);
  }
  block.linears->Apply(block.layer(kO), other, true);
  CHECK(block.halving->calls == 2);
  block.linears->Apply(block.layer(kGate), other, true);  // after a last product nothing is shared
  CHECK(block.halving->calls == 3);
  CHECK(block.scorer.treated.size() == 7);
  CHECK(block.scorer.forward.empty());
  block.linears->Unbind();
}

// Weights stay; q's input is halved, k's divided by four, v's and those of others stay.
struct MixedScorer : RecordingScorer {
  using RecordingScorer::RecordingScorer;
  absl::StatusOr<Treatment> Treat(int, const LinearLayer& layer) override {
    return Treatment{nullptr, layer.index == 0 ? halving : layer.index == 1 ? quartering : nullptr};
  }
  struct Quartering : Halving {
    at::Tensor Forward(const at::Tensor& x) const override { return Halving::Forward(x) / 2; }
  };
  const std::shared_ptr<Halving> halving = std::make_shared<Halving>(), quartering = std::make_shared<Quartering>();
};

TEST_CASE("layers that read one tensor may quantize it differently, or not at all") {
  at::manual_seed(1);
  BlockCase block(/*forward_only=*/true);
  MixedScorer scorer(block.Needs(true));
  const Scorers scorers({&scorer});
  const auto linears = UnitLinears::Create(block.run, block.plan, block.units[0], scorers, 0).value();
  linears->Bind([&](absl::string_view name) { return block.loaded.Find(name); }, block.rows);
  const at::Tensor x = at::randn({2, 3, 32});
  const double factors[] = {0.5, 0.25, 1};
  for (const int index : {kQ, kK, kV, kQ}) {
    const at::Tensor y = linears->Apply(block.layer(index), x, true);
    CHECK((y - at::matmul(x * factors[index], block.weight(index).t())).abs().max().item<double>() < 1e-5);
  }
  CHECK(scorer.quartering->calls == 1);
  linears->Unbind();
}

TEST_CASE("a forward-only variant shows every input, before the quantizer") {
  BlockCase block(/*forward_only=*/true);
  const at::Tensor x = at::ones({1, 2, 32});
  for (const int index : {kQ, kK}) block.linears->Apply(block.layer(index), x, true);
  block.linears->Apply(block.layer(kDown), at::ones({1, 2, 48}), true);
  REQUIRE(block.scorer.forward.size() == 3);
  CHECK(block.scorer.forward[1].layer == "model.layers.0.self_attn.k_proj");
  CHECK(at::equal(block.scorer.forward[1].tensors[0], x));
  CHECK(block.scorer.forward[2].layer == "model.layers.0.mlp.down_proj");
  block.linears->Unbind();
}

TEST_CASE("gradients of micro-batches are shown when their batch ends, those of whole batches at once") {
  at::manual_seed(2);
  const at::Tensor x = at::randn({2, 3, 32}), grad = at::randn({2, 3, 32});
  const auto differentiate = [&](BlockCase& block, int64_t row, int64_t count) {
    const Graph graph(x.narrow(0, row, count),
                      [&](const at::Tensor& in) { return block.linears->Apply(block.layer(kO), in, true); });
    return graph.Pullback(grad.narrow(0, row, count));
  };
  // dL/dWq = grad^T xq, and xq = x / 2.
  const at::Tensor expected = at::matmul(grad.view({6, 32}).t(), x.view({6, 32})) / 2;

  BlockCase whole;
  const at::Tensor dx = differentiate(whole, 0, 2);
  CHECK((dx - at::matmul(grad, whole.weight(kO))).abs().max().item<double>() < 1e-5);  // twice W, halved
  REQUIRE(whole.scorer.weights.size() == 1);
  CHECK((whole.scorer.weights[0].tensors[0] - expected).abs().max().item<double>() < 1e-5);
  whole.linears->EndBatch();
  CHECK(whole.scorer.weights.size() == 1);

  BlockCase cut(/*forward_only=*/false, /*micro_batch_rows=*/1);
  for (const int64_t row : {0, 1}) differentiate(cut, row, 1);
  CHECK(cut.scorer.weights.empty());
  CHECK(cut.scorer.inputs.size() == 2);
  cut.linears->EndBatch();
  REQUIRE(cut.scorer.weights.size() == 1);
  CHECK(cut.scorer.weights[0].layer == "model.layers.0.self_attn.o_proj");
  CHECK((cut.scorer.weights[0].tensors[0] - expected).abs().max().item<double>() < 1e-5);
  CHECK(at::equal(cut.scorer.weights[0].tensors[1].to(at::kFloat), cut.weight(kO)));
  CHECK(at::equal(cut.scorer.weights[0].tensors[2], 2 * cut.weight(kO)));
}

}  // namespace
}  // namespace autoscheme
