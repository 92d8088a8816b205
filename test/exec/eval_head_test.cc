// The head of an evaluation by tiles against log-softmaxes of all logits at once.
#include "exec/eval_head.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "exec/loaded.h"
#include "support/recording_scorer.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

constexpr int64_t kVocab = 64, kHidden = 32, kRows = 3, kSeq = 5;

// Variant 0 as it is; 1 like it; 2 with other hidden states; 3 with twice the weight and half the input; 4 with twice
// the weight.
class FiveVariants : public Scorer {
 public:
  explicit FiveVariants(const MetaSkeleton& skeleton) {
    for (int v = 0; v < 5; ++v) {
      needs_.variants.push_back(NeedsOf(skeleton, {}, {/*quantizes_weight=*/v > 2}).variants[0]);
      needs_.variants.back().name = std::string("variant ") + static_cast<char>('0' + v);
      needs_.variants.back().forward_only = true;
    }
    needs_.compares_logits = true;
  }
  const ScorerNeeds& needs() const override { return needs_; }
  absl::StatusOr<Treatment> Treat(int variant, const LinearLayer&) override {
    Treatment treatment;
    if (variant > 2) treatment.weight = doubling_;
    if (variant == 3) treatment.activation = halving_;
    return treatment;
  }
  void OnPredictions(int variant, const MicroBatch& rows, const Predictions& predictions) override {
    kl[variant].narrow(0, rows.first_row, rows.rows).copy_(predictions.kl);
    cross_entropy[variant].narrow(0, rows.first_row, rows.rows).copy_(predictions.cross_entropy);
    agrees[variant].narrow(0, rows.first_row, rows.rows).copy_(predictions.agrees);
  }

  at::Tensor kl = at::full({5, kRows, kSeq - 1}, NAN, at::kDouble), cross_entropy = kl.clone(), agrees = kl.clone();

 private:
  ScorerNeeds needs_;
  const std::shared_ptr<Doubling> doubling_ = std::make_shared<Doubling>();
  const std::shared_ptr<Halving> halving_ = std::make_shared<Halving>();
};

// 3 rows of 5 tokens in batches of 2: the second batch is short.
struct EvalCase {
  explicit EvalCase(int64_t micro_batch_rows = 0)
      : shape{kRows, kSeq, 2, micro_batch_rows}, calibration(RowsOf(kRows, kSeq, {})), scorer(*tiny) {
    at::manual_seed(1);
    for (int64_t i = 0; i < kRows * kSeq; ++i) calibration.ids.push_back(static_cast<int32_t>(i * 13 % kVocab));
    x = at::randn({kRows, kSeq, kHidden}) * 3;
    other = x + at::randn_like(x);
  }

  absl::Status Run(int64_t tile_rows) {
    ExecutionPlan plan;
    plan.batch_size = 2, plan.micro_batch_rows = shape.micro_batch_rows, plan.head_tile_rows = tile_rows;
    const std::vector<MicroBatch> micro_batches = shape.micro_batches();
    HeadInput input;
    input.shape = shape;
    input.hidden = [&](int v, int m) -> absl::StatusOr<at::Tensor> {
      return (v == 2 ? other : x).narrow(0, micro_batches[m].first_row, micro_batches[m].rows).clone();
    };
    input.step = [&](int64_t done, int64_t total) { return steps = {done, total}, absl::OkStatus(); };
    return RunEvalHead(run, *tiny, calibration, plan, Scorers({&scorer}), input);
  }

  void CheckFigures() const {
    const at::Tensor weight = Float(*tiny, *tiny->head().weight);
    const auto logs = [&](const at::Tensor& hidden, double factor) {
      return at::log_softmax((at::matmul(hidden.narrow(1, 0, kSeq - 1), weight.t()) * factor).to(at::kDouble), -1);
    };
    const at::Tensor full = logs(x, 1), of[] = {full, full, logs(other, 1), full, logs(x, 2)};
    const at::Tensor ids = at::tensor(calibration.ids, at::kInt).to(at::kLong).view({kRows, kSeq});
    for (int v = 0; v < 5; ++v) {
      INFO("variant " << v);
      const at::Tensor kl_of = (full.exp() * (full - of[v])).sum(-1);
      CHECK((scorer.kl[v] - kl_of).abs().max().item<double>() < 1e-6);
      const at::Tensor labels = ids.narrow(1, 1, kSeq - 1).unsqueeze(-1);
      CHECK((scorer.cross_entropy[v] + of[v].gather(-1, labels).squeeze(-1)).abs().max().item<double>() < 1e-6);
      CHECK(at::equal(scorer.agrees[v], full.argmax(-1).eq(of[v].argmax(-1)).to(at::kDouble)));
    }
    CHECK(scorer.kl[0].abs().max().item<double>() == 0);
    CHECK(scorer.kl[1].abs().max().item<double>() == 0);
    CHECK(scorer.kl[2].min().item<double>() > 1e-3);
    CHECK(scorer.agrees[2].min().item<double>() == 0);  // not all are alike
    CHECK(scorer.kl[4].min().item<double>() > 1e-3);
  }

  TinySkeleton tiny;
  Context context;
  RunResources run{context};
  const BatchShape shape;
  Calibration calibration;
  FiveVariants scorer;
  at::Tensor x, other;
  std::pair<int64_t, int64_t> steps;
};

TEST_CASE("tiles of any height give the figures of full logits, and each is read once") {
  for (const int64_t micro_batch_rows : {0, 1}) {
    for (const int64_t tile_rows : {64, 20, 1}) {
      INFO("micro-batches of " << micro_batch_rows << ", tiles of " << tile_rows);
      EvalCase head(micro_batch_rows);
      REQUIRE(head.Run(tile_rows).ok());
      head.CheckFigures();
      const int64_t tiles = (kVocab + tile_rows - 1) / tile_rows;
      CHECK(head.steps == std::pair(tiles, tiles));
      CHECK(head.run.stats.read_bytes == head.tiny->head().weight->bytes);
    }
  }
}

TEST_CASE("logits that are far apart are no trouble") {
  EvalCase head;
  head.x = head.x * 1000, head.other = -head.x;
  REQUIRE(head.Run(20).ok());
  CHECK(head.scorer.kl[2].min().item<double>() > 100);
  CHECK(head.scorer.kl.isfinite().all().item<bool>());
}

TEST_CASE("logits that are not finite are named by row, position and variant") {
  for (const float bad : {INFINITY, std::numeric_limits<float>::quiet_NaN()}) {
    EvalCase head;
    head.other[2][1][0] = bad;
    const absl::Status status = head.Run(20);
    CHECK(status.code() == absl::StatusCode::kDataLoss);
    CHECK_THAT(std::string(status.message()),
               Catch::StartsWith("the logits of row 2, position 1 are NaN or infinite under variant 2: "));
  }
}

}  // namespace
}  // namespace autoscheme
