#include "exec/scorer.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <string>

#include "support/recording_scorer.h"

namespace autoscheme {
namespace {

ScorerNeeds Variants(std::initializer_list<const char*> names, bool forward_only) {
  ScorerNeeds needs;
  for (const char* name : names) needs.variants.push_back({name, forward_only, {}});
  return needs;
}

TEST_CASE("variants of several scorers are counted through, and each scorer sees its own count") {
  RecordingScorer first(Variants({"plain"}, /*forward_only=*/true)), second(Variants({"A", "B"}, false));
  const Scorers all({&first, &second});
  REQUIRE(all.needs().count() == 3);
  CHECK(all.needs().forward_only() == 1);
  CHECK(all.needs().with_gradients() == 2);
  CHECK(all.needs().variants[2].name == "B");

  LinearLayer layer;
  layer.name = "q";
  const at::Tensor x = at::ones({1});
  all.OnForward(0, layer, x);
  REQUIRE(all.Treat(2, layer).ok());
  all.OnInputGradient(1, layer, x, 2 * x, 3 * x);
  all.OnWeightGradient(2, layer, x, 2 * x, 3 * x);
  REQUIRE(first.forward.size() == 1);
  CHECK(first.forward[0].variant == 0);
  CHECK(first.treated.empty());
  CHECK(second.forward.empty());
  REQUIRE(second.treated.size() == 1);
  CHECK(second.treated[0].variant == 1);
  REQUIRE(second.inputs.size() == 1);
  CHECK(second.inputs[0].variant == 0);
  REQUIRE(second.weights.size() == 1);
  CHECK(second.weights[0].variant == 1);
  CHECK(second.weights[0].layer == "q");
  CHECK(second.weights[0].tensors[1].item<float>() == 2);
  CHECK(second.weights[0].tensors[2].item<float>() == 3);
}

TEST_CASE("a run needs what any of its scorers needs") {
  ScorerNeeds reads = Variants({"a"}, false), quantizes = Variants({"b"}, false), spans = Variants({"c"}, false);
  reads.reads_imatrix = quantizes.quantizes_activations = spans.activations_span_batch = true;
  RecordingScorer a(reads), b(quantizes), c(spans);
  for (const Scorers& all : {Scorers({&a, &b, &c}), Scorers({&c, &a, &b}), Scorers({&b, &c, &a})}) {
    CHECK(all.needs().reads_imatrix);
    CHECK(all.needs().quantizes_activations);
    CHECK(all.needs().activations_span_batch);
  }
  CHECK_FALSE(Scorers({&b, &c}).needs().reads_imatrix);
  CHECK_FALSE(Scorers({&a, &c}).needs().quantizes_activations);
  CHECK_FALSE(Scorers({&a, &b}).needs().activations_span_batch);
}

}  // namespace
}  // namespace autoscheme
