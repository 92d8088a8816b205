// The head by tiles against a softmax cross entropy of all logits at once.
#include "exec/head.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/random_signs.h"
#include "exec/loaded.h"
#include "support/recording_scorer.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

constexpr int64_t kVocab = 64, kHidden = 32, kRows = 3, kSeq = 5;

// 3 rows of 5 tokens in batches of 2: the second batch is short.
struct HeadCase {
  // With `logits_scaling` the logits are divided by it.
  explicit HeadCase(int64_t micro_batch_rows = 0, double logits_scaling = 1)
      : shape{kRows, kSeq, 2, micro_batch_rows}, calibration(RowsOf(kRows, kSeq, {})) {
    at::manual_seed(1);
    if (logits_scaling != 1) {
      std::string config = TinyConfig({});
      config.replace(config.find("\"llama\""), 7, "\"granite\", \"logits_scaling\": " + std::to_string(logits_scaling));
      tiny.dir.Write("config.json", config);
      tiny.skeleton = MetaSkeleton::Open({}, tiny.dir.path()).value();
    }
    for (int64_t i = 0; i < kRows * kSeq; ++i) calibration.ids.push_back(static_cast<int32_t>(i * 13 % kVocab));
    x = at::randn({kRows, kSeq, kHidden});
    weight = Float(*tiny, *tiny->head().weight);
    dx = at::zeros_like(x);
    Expect();
  }

  // Losses, dL/dx and, over all batches, dL/dW.
  void Expect() {
    expected_dx = at::zeros_like(x);
    expected_dw = at::zeros_like(weight);
    for (int64_t row = 0; row < kRows; row += 2) {
      const int64_t rows = std::min<int64_t>(2, kRows - row), n = rows * (kSeq - 1);
      const at::Tensor predicting = x.narrow(0, row, rows).narrow(1, 0, kSeq - 1).reshape({n, kHidden});
      const at::Tensor logs = at::log_softmax(at::matmul(predicting, weight.t()), 1);
      at::Tensor error = logs.exp();
      double loss = 0;
      for (int64_t i = 0; i < n; ++i) {
        const int64_t label = calibration.ids[(row + i / (kSeq - 1)) * kSeq + i % (kSeq - 1) + 1];
        loss -= logs[i][label].item<double>() / static_cast<double>(n);
        error[i][label] -= 1;
      }
      error.div_(n);
      expected_losses.push_back(loss);
      expected_dx.narrow(0, row, rows)
          .narrow(1, 0, kSeq - 1)
          .copy_(at::matmul(error, weight).view({rows, kSeq - 1, kHidden}));
      expected_dw += at::matmul(error.t(), predicting);
    }
  }

  absl::StatusOr<std::vector<std::vector<double>>> Run(const Scorers& scorers, int64_t tile_rows) {
    ExecutionPlan plan;
    plan.batch_size = 2, plan.micro_batch_rows = shape.micro_batch_rows, plan.head_tile_rows = tile_rows;
    const auto store = [&] {
      return TensorStore::Create(run, HeadStoreShape(shape), kHidden, 1, 1, at::kFloat, StorePlace::kRam).value();
    };
    const std::unique_ptr<TensorStore> sums = store(), label_rows = store();
    const std::vector<MicroBatch> micro_batches = shape.micro_batches();
    HeadInput input;
    input.shape = shape, input.sums = sums.get(), input.label_rows = label_rows.get();
    input.hidden = [&](int, int m) -> absl::StatusOr<at::Tensor> {
      return x.narrow(0, micro_batches[m].first_row, micro_batches[m].rows).clone();
    };
    input.take_gradient = [&](int, int m, const at::Tensor& grad) {
      dx.narrow(0, micro_batches[m].first_row, micro_batches[m].rows).copy_(grad);
      return absl::OkStatus();
    };
    input.step = [&](int64_t done, int64_t total) { return steps = {done, total}, absl::OkStatus(); };
    return RunHead(run, *tiny, calibration, plan, scorers, input);
  }

  void CheckGradientAndLosses(const std::vector<double>& losses) const {
    REQUIRE(losses.size() == 2);
    for (const int b : {0, 1}) CHECK(losses[b] == Approx(expected_losses[b]).epsilon(1e-6));
    CHECK((dx - expected_dx).abs().max().item<double>() < 1e-6);
    CHECK(expected_dx.abs().max().item<double>() > 1e-3);
  }

  TinySkeleton tiny;
  Context context;
  RunResources run{context};
  const BatchShape shape;
  Calibration calibration;
  at::Tensor x, weight, dx, expected_dx, expected_dw;
  std::vector<double> expected_losses;
  std::pair<int64_t, int64_t> steps;
};

TEST_CASE("tiles of any height give the loss and the gradient of full logits") {
  for (const int64_t micro_batch_rows : {0, 1}) {
    for (const int64_t tile_rows : {64, 20, 1}) {
      INFO("micro-batches of " << micro_batch_rows << ", tiles of " << tile_rows);
      HeadCase head(micro_batch_rows);
      RecordingScorer scorer(NeedsOf(*head.tiny, {}));
      const auto losses = head.Run(Scorers({&scorer}), tile_rows);
      REQUIRE(losses.ok());
      REQUIRE(losses->size() == 1);
      head.CheckGradientAndLosses(losses->front());
      const int64_t tiles = (kVocab + tile_rows - 1) / tile_rows;
      CHECK(head.steps == std::pair(tiles, tiles));
      CHECK(head.run.stats.read_bytes == head.tiny->head().weight->bytes);
      CHECK(scorer.weights.empty());
    }
  }
}

TEST_CASE("a scored head shows the gradient of its weight tile by tile, summed over each batch") {
  for (const int64_t micro_batch_rows : {0, 1}) {
    HeadCase head(micro_batch_rows);
    LinearNeeds needs;
    needs.quantizes_weight = needs.weight_gradient = needs.scored = true;
    // Half of x by twice W: the logits are those of x by W, and so are losses and what goes below.
    RecordingScorer scorer(NeedsOf(*head.tiny, {}, needs), {std::make_shared<Doubling>(), std::make_shared<Halving>()});
    const auto losses = head.Run(Scorers({&scorer}), 40);
    REQUIRE(losses.ok());
    head.CheckGradientAndLosses(losses->front());
    CHECK(head.steps == std::pair<int64_t, int64_t>(4, 4));  // two tiles, twice
    CHECK(head.run.stats.read_bytes == 2 * head.tiny->head().weight->bytes);

    REQUIRE(scorer.weights.size() == 4);  // two tiles, two batches
    at::Tensor dw = at::zeros_like(head.weight);
    for (const size_t i : {0, 1, 2, 3}) {
      const int64_t first = i < 2 ? 0 : 40, rows = i < 2 ? 40 : 24;
      const std::vector<at::Tensor>& shown = scorer.weights[i].tensors;
      dw.narrow(0, first, rows).add_(shown[0]);
      CHECK(at::equal(shown[1], head.weight.narrow(0, first, rows)));
      CHECK(at::equal(shown[2], 2 * head.weight.narrow(0, first, rows)));
    }
    CHECK((2 * dw - head.expected_dw).abs().max().item<double>() < 1e-6);

    at::Tensor dxq;
    for (const RecordingScorer::Shown& shown : scorer.inputs) {
      CHECK(at::equal(shown.tensors[2], shown.tensors[1] / 2));
      dxq = dxq.defined() ? at::cat({dxq, shown.tensors[0]}) : shown.tensors[0];
    }
    CHECK((dxq - 2 * head.expected_dx).abs().max().item<double>() < 1e-6);
  }
}

TEST_CASE("a forward-only variant is shown the head's input, and has no loss") {
  HeadCase head;
  ScorerNeeds needs = NeedsOf(*head.tiny, {});
  needs.variants[0].forward_only = true;
  RecordingScorer scorer(needs);
  const auto losses = head.Run(Scorers({&scorer}), 64);
  REQUIRE(losses.ok());
  CHECK(losses->front().empty());
  REQUIRE(scorer.forward.size() == 2);
  CHECK(scorer.forward[0].layer == "lm_head");
  CHECK(at::equal(scorer.forward[0].tensors[0], head.x.narrow(0, 0, 2)));
  CHECK(at::equal(scorer.forward[1].tensors[0], head.x.narrow(0, 2, 1)));
  CHECK(head.run.stats.read_bytes == 0);
}

TEST_CASE("a loss that is not finite is named by batch and variant") {
  HeadCase head;
  head.x[2][0][0] = INFINITY;
  RecordingScorer scorer(NeedsOf(*head.tiny, {}));
  const absl::Status status = head.Run(Scorers({&scorer}), 64).status();
  CHECK(status.code() == absl::StatusCode::kDataLoss);
  CHECK_THAT(std::string(status.message()),
             Catch::StartsWith("the loss of batch 1 is ") && Catch::Contains(" under test: "));
}

TEST_CASE("random gradients are those of full logits, by signs that no choice of the plan changes") {
  for (const double scaling : {1.0, 0.5}) {
    for (const int64_t micro_batch_rows : {0, 1}) {
      for (const int64_t tile_rows : {64, 20}) {
        INFO("logits by " << scaling << ", micro-batches of " << micro_batch_rows << ", tiles of " << tile_rows);
        HeadCase head(micro_batch_rows, scaling);
        LinearNeeds linear;
        linear.weight_gradient = linear.scored = true;
        ScorerNeeds needs = NeedsOf(*head.tiny, {}, linear);
        needs.variants[0].gradient = Gradient::kRandom;
        RecordingScorer scorer(needs);
        REQUIRE(head.Run(Scorers({&scorer}), tile_rows).ok());

        const at::Tensor predicting = head.x.narrow(1, 0, kSeq - 1).reshape({-1, kHidden});
        const at::Tensor p = at::softmax(at::matmul(predicting, head.weight.t()).div(scaling).to(at::kDouble), 1);
        at::Tensor signs = at::empty({kRows * (kSeq - 1), kVocab});
        for (int64_t i = 0; i < signs.size(0); ++i) RandomSigns(i, 0, kVocab, signs.data_ptr<float>() + i * kVocab);
        const at::Tensor roots = p.sqrt() * signs;
        const at::Tensor g = (roots - p * roots.sum(1, /*keepdim=*/true)).div(scaling);
        const at::Tensor dx = at::matmul(g, head.weight.to(at::kDouble)).view({kRows, kSeq - 1, kHidden});
        CHECK((head.dx.narrow(1, 0, kSeq - 1) - dx).abs().max().item<double>() < 1e-5);
        CHECK(head.dx.select(1, kSeq - 1).abs().max().item<double>() == 0);
        CHECK(dx.abs().max().item<double>() > 0.1);

        at::Tensor dw = at::zeros({kVocab, kHidden}, at::kDouble);
        const size_t batches = 2;
        for (size_t i = 0; i < scorer.weights.size(); ++i) {
          const int64_t first = static_cast<int64_t>(i / batches) * tile_rows;
          dw.narrow(0, first, std::min(tile_rows, kVocab - first)).add_(scorer.weights[i].tensors[0]);
        }
        CHECK((dw - at::matmul(g.t(), predicting.to(at::kDouble))).abs().max().item<double>() < 1e-5);
      }
    }
  }
}

}  // namespace
}  // namespace autoscheme
