#include "scorers/fisher.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "support/scored_run.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

Calibration TokensOf(const TinySkeleton& tiny, int64_t rows, int64_t seqlen) {
  return ReadCalibration({}, tiny.dir.Write("tokens.json", TinyTokens(rows, seqlen, tiny->vocab_size()))).value();
}

TEST_CASE("one variant serves all schemes, and says what it needs of each layer") {
  const TinySkeleton tiny;
  std::vector<LayerInfo> layers = LayersOf(*tiny, /*with_head=*/true);
  layers[1].fixed = *FindScheme("W8A16");
  const auto scorer =
      Fisher::Create({tiny.skeleton.get(), ParseSchemeList("BF16,W2A16,NVFP4").value(), layers}).value();
  const ScorerNeeds& needs = scorer->needs();
  REQUIRE(needs.count() == 1);
  const VariantNeeds& variant = needs.variants[0];
  CHECK(variant.gradient == Gradient::kRandom);
  CHECK_FALSE(variant.forward_only);
  CHECK_FALSE(needs.quantizes_activations);  // those of the variant
  CHECK(needs.activations_span_batch);
  const LinearNeeds &scored = variant.linears[0], &fixed = variant.linears[1], &head = variant.linears.back();
  CHECK((scored.scored && scored.quantizes_weight && scored.whole_candidates));
  CHECK_FALSE((scored.weight_gradient || scored.whole_weight));
  CHECK((scored.candidates == 2 && scored.candidate_inputs == 1));
  CHECK((fixed.candidates == 0 && !fixed.scored && !fixed.quantizes_weight));
  CHECK((head.candidates == 2 && head.scored && !head.quantizes_weight));
  CHECK(scorer->terms().schemes == std::vector<int>{1, 2});
  CHECK(scorer->terms().variants == std::vector<int>{-1, -1});
  CHECK(scorer->Candidates(0, tiny->blocks()[0].linears[0])->size() == 2);
  CHECK(scorer->Candidates(0, tiny->blocks()[0].linears[1])->empty());
  CHECK(Fisher::Create({tiny.skeleton.get(), ParseSchemeList("BF16").value(), layers}).value()->needs().count() == 0);
}

TEST_CASE("the loss is half the mean square of a token's error, and its standard error that over rows") {
  const TinySkeleton tiny;
  const auto scorer =
      Fisher::Create({tiny.skeleton.get(), ParseSchemeList("W2A16").value(), LayersOf(*tiny, /*with_head=*/false)})
          .value();
  const LinearLayer& layer = tiny->blocks()[0].linears[0];
  // Rows of 3 positions, so of 2 predictions: sums of squares 5, 9 and 16.
  scorer->OnOutputErrors(0, layer, at::tensor({1.0F, 2.0F, 0.0F, 3.0F, 0.0F, 0.0F}).view({1, 2, 3}));
  scorer->OnOutputErrors(0, layer, at::tensor({0.0F, -4.0F, 0.0F}).view({1, 1, 3}));
  const ScoreTerms terms = scorer->terms();
  CHECK(terms.terms[0][0][0] == Approx(0.5 * 30 / 6));
  const double deviation = std::sqrt((25.0 + 1.0 + 36.0) / 2);  // the spread of 5, 9, 16 about 10
  CHECK(terms.terms[0][2][0] == Approx(0.5 / 6 * std::sqrt(3.0) * deviation));
  CHECK(terms.terms[0][0][1] == 0);
}

// Shows in one variant, W4A16, both the gradient of the weight and the errors of candidates.
class ShowsBoth : public Scorer {
 public:
  ShowsBoth(const MetaSkeleton& skeleton, const std::vector<std::string>& candidates) {
    VariantNeeds variant;
    variant.name = "W4A16";
    LinearNeeds linear;
    linear.quantizes_weight = linear.weight_gradient = linear.scored = true;
    linear.candidates = static_cast<int>(candidates.size());
    variant.linears.assign(skeleton.head().index + 1, linear);
    needs_.variants.push_back(variant);
    for (const std::string& name : candidates)
      candidates_.push_back({MakeWeightQuantizer(*FindScheme(name)).value(), nullptr});
  }
  const ScorerNeeds& needs() const override { return needs_; }
  absl::StatusOr<Treatment> Treat(int, const LinearLayer&) override {
    return Treatment{MakeWeightQuantizer(*FindScheme("W4A16")).value(), nullptr};
  }
  absl::StatusOr<std::vector<Treatment>> Candidates(int, const LinearLayer&) override { return candidates_; }
  void OnWeightGradient(int, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& w,
                        const at::Tensor&) override {
    for (size_t c = 0; c < candidates_.size(); ++c) {
      const at::Tensor rows = w.to(at::kFloat);
      by_weight[layer.name][c] +=
          (grad * (candidates_[c].weight->Forward(rows, {}) - rows)).sum(at::kDouble).item<double>();
    }
  }
  void OnOutputErrors(int, const LinearLayer& layer, const at::Tensor& errors) override {
    for (size_t c = 0; c < candidates_.size(); ++c) {
      by_output[layer.name][c] += errors[c].sum(at::kDouble).item<double>();
    }
    shape = errors.sizes().vec();
  }
  std::map<std::string, std::map<size_t, double>> by_weight, by_output;
  std::vector<int64_t> shape;

 private:
  std::vector<Treatment> candidates_;
  ScorerNeeds needs_;
};

TEST_CASE("summed over tokens, errors are the gradient of the weight times the weight's error, in every layer") {
  TinyModel model;
  model.blocks = 2;
  const TinySkeleton tiny(model);
  const Calibration calibration = TokensOf(tiny, 6, 9);
  for (const int64_t micro_batch_rows : {0, 2}) {
    ShowsBoth shown(*tiny, {"W2A16", "W8A16"});
    const Scorers scorers({&shown});
    const Context context;
    RunResources run(context);
    ExecutionPlan plan;
    plan.batch_size = 3, plan.micro_batch_rows = micro_batch_rows, plan.head_tile_rows = 24, plan.chunk_bytes = 4096;
    REQUIRE(RunSweeps(run, *tiny, calibration, plan, scorers).ok());
    CHECK(shown.by_weight.size() == 15);
    CHECK(shown.shape[0] == 2);
    CHECK(shown.shape[2] == 9);
    for (const auto& [layer, want] : shown.by_weight) {
      for (const auto& [candidate, value] : want) {
        INFO(layer << ", candidate " << candidate);
        CHECK(shown.by_output[layer][candidate] == Approx(value).epsilon(1e-4).margin(1e-7));
      }
    }
  }
}

TEST_CASE("losses do not depend on how rows are divided into batches") {
  const TinySkeleton tiny;
  const Calibration calibration = TokensOf(tiny, 5, 8);
  std::vector<std::vector<std::vector<double>>> first;
  for (const int64_t batch_size : {1, 2, 5}) {
    ScoredRun run(*tiny, "W2A16,MXFP4,MXFP8", LayersOf(*tiny, /*with_head=*/true), "fisher");
    ExecutionPlan plan;
    plan.batch_size = batch_size;
    REQUIRE(run.Sweep(calibration, plan).ok());
    const ScoreTerms terms = run.scorers.terms();
    if (first.empty()) first = terms.terms;
    for (size_t s = 0; s < 3; ++s) {
      for (size_t l = 0; l < first[s][0].size(); ++l) {
        CHECK(first[s][0][l] > 0);
        CHECK(first[s][2][l] > 0);
        CHECK(terms.terms[s][0][l] == Approx(first[s][0][l]).epsilon(1e-4));
      }
    }
  }
  // A coarser format costs more.
  double total[3] = {};
  for (size_t s = 0; s < 3; ++s) {
    for (const double loss : first[s][0]) total[s] += loss;
  }
  CHECK(total[0] > total[1]);
  CHECK(total[1] > total[2]);
}

}  // namespace
}  // namespace autoscheme
