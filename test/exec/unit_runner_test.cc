#include "exec/unit_runner.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "exec/graph.h"
#include "exec/loaded.h"
#include "support/recording_scorer.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

constexpr int64_t kSeq = 6;

// One unit of a model, its weights as they are.
struct UnitCase {
  UnitCase(const MetaSkeleton& skeleton, int sublayers, int unit)
      : scorer(NeedsOf(skeleton, {})),
        tables(PositionTables(skeleton.spec(), kSeq)),
        units(MakeUnits(skeleton, sublayers)),
        loaded(skeleton, units[unit].tensors),
        runner(skeleton, units[unit], loaded.views, run, tables) {
    linears = UnitLinears::Create(run, plan, units[unit], scorers, 0).value();
    linears->Bind([this](absl::string_view name) { return runner.Find(name); }, rows);
  }
  at::Tensor Run(const at::Tensor& x) { return runner.Run(x, *linears, true); }
  at::Tensor Gradient(const at::Tensor& x, const at::Tensor& grad, bool values) {
    return Graph(x, [&](const at::Tensor& in) { return runner.Run(in, *linears, values); }).Pullback(grad);
  }

  Context context;
  RunResources run{context};
  ExecutionPlan plan;
  RecordingScorer scorer;
  const Scorers scorers{{&scorer}};
  const std::vector<at::Tensor> tables;
  const std::vector<Unit> units;
  const Loaded loaded;
  UnitRunner runner;
  ResidentRows rows{run, [this](absl::string_view name) { return runner.Find(name); }};
  std::unique_ptr<UnitLinears> linears;
};

TEST_CASE("sublayers whose last product is zero hand on what they took") {
  TinyModel model;
  std::vector<RawTensor> tensors = MakeTinyTensors(model);
  for (RawTensor& tensor : tensors) {
    if (absl::StrContains(tensor.name, "o_proj") || absl::StrContains(tensor.name, "down_proj")) {
      tensor.bytes.assign(tensor.bytes.size(), '\0');
    }
  }
  const TinySkeleton tiny(model, tensors);
  at::manual_seed(1);
  const at::Tensor x = at::randn({2, kSeq, 32}), grad = at::randn({2, kSeq, 32});
  UnitCase block(*tiny, 0, 1);
  CHECK(at::equal(block.Run(x), x));
  CHECK(at::equal(block.Gradient(x, grad, true), grad));
}

TEST_CASE("a block is its two sublayers one after the other") {
  const TinySkeleton tiny;
  at::manual_seed(2);
  const at::Tensor x = at::randn({2, kSeq, 32}), grad = at::randn({2, kSeq, 32});
  UnitCase block(*tiny, 0, 1), attention(*tiny, 1, 2), mlp(*tiny, 1, 3);
  const at::Tensor middle = attention.Run(x), y = block.Run(x);
  CHECK(at::equal(mlp.Run(middle), y));
  CHECK_FALSE(at::equal(middle, x));
  CHECK_FALSE(at::equal(middle, y));
  const at::Tensor below = attention.Gradient(x, mlp.Gradient(middle, grad, true), true);
  CHECK(at::equal(below, block.Gradient(x, grad, true)));
  // The values of the last product are in no gradient.
  CHECK(at::equal(below, block.Gradient(x, grad, false)));
}

TEST_CASE("where norms follow the last products, their values are computed for a gradient that needs them") {
  at::manual_seed(3);
  const at::Tensor x = at::randn({2, kSeq, 32}), grad = at::randn({2, kSeq, 32});
  // Norms of what the branches give, and of the sum of that and the residual.
  for (const char* name : {"gemma2", "opt_350m"}) {
    const std::string folder = std::string(AUTOSCHEME_GOLDEN_DIR "/families/") + name + "/model";
    const auto skeleton = MetaSkeleton::Open({}, folder).value();
    for (const int sublayers : {0, 1}) {
      const int units = sublayers == 0 ? 2 : 4;
      for (int unit = 0; unit < units; ++unit) {
        INFO(name << ", unit " << unit << ", sublayers in each: " << sublayers);
        UnitCase one(*skeleton, sublayers, unit);
        REQUIRE(static_cast<int>(one.units.size()) == units);
        const at::Tensor whole = one.Gradient(x, grad, true);
        CHECK_FALSE(at::allclose(whole, grad));
        CHECK(at::equal(one.Gradient(x, grad, false), whole));
      }
    }
  }
}

TEST_CASE("a unit finds its own tensors and no others") {
  const TinySkeleton tiny;
  const UnitCase attention(*tiny, 1, 2);
  const TensorView own = attention.runner.Find("model.layers.1.self_attn.q_proj.weight");
  REQUIRE(own.data != nullptr);
  CHECK(own.info->shape == std::vector<int64_t>{32, 32});
  CHECK(attention.runner.Find("model.layers.1.mlp.up_proj.weight").data == nullptr);
  CHECK(attention.runner.Find("model.layers.0.self_attn.q_proj.weight").data == nullptr);
}

}  // namespace
}  // namespace autoscheme
