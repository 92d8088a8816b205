#include "scorers/imatrix.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <vector>

#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

at::Tensor Vector(const std::vector<float>& values) { return at::tensor(values); }

TEST_CASE("squares of each channel are summed over tokens and calls") {
  const TinySkeleton tiny;
  ImatrixScorer scorer(*tiny, /*with_head=*/false);
  const LinearLayer &q = tiny->blocks()[0].linears[0], &k = tiny->blocks()[0].linears[1];
  scorer.OnForward(0, q, Vector({1, 2, 3, -4, 0, 5}).view({1, 3, 2}));  // 1, 9, 0 and 4, 16, 25
  scorer.OnForward(0, q, Vector({2, 1}).view({1, 1, 2}).to(at::kBFloat16));
  scorer.OnForward(0, k, Vector({7, 0}));
  CHECK(scorer.imatrix().size() == 2);
  CHECK(at::equal(scorer.imatrix().at("model.layers.0.self_attn.q_proj"), Vector({14, 46})));
  CHECK(at::equal(scorer.imatrix().at("model.layers.0.self_attn.k_proj"), Vector({49, 0})));
}

TEST_CASE("more tokens than are squared at a time are all counted") {
  const TinySkeleton tiny;
  ImatrixScorer scorer(*tiny, false);
  scorer.OnForward(0, tiny->blocks()[0].linears[0], at::full({3, 100, 2}, 2.0));
  CHECK(at::equal(scorer.imatrix().begin()->second, Vector({1200, 1200})));
}

TEST_CASE("the head takes part only where it is asked for") {
  const TinySkeleton tiny;
  for (const bool with_head : {false, true}) {
    ImatrixScorer scorer(*tiny, with_head);
    scorer.OnForward(0, tiny->head(), Vector({3}));
    CHECK(scorer.imatrix().count("lm_head") == (with_head ? 1 : 0));
  }
}

TEST_CASE("it goes forward only, through a network that is left as it is") {
  const TinySkeleton tiny;
  ImatrixScorer scorer(*tiny, true);
  REQUIRE(scorer.needs().count() == 1);
  CHECK(scorer.needs().forward_only() == 1);
  CHECK(scorer.needs().variants[0].linears.size() == 15);  // two blocks of seven, and the head
  const Treatment treatment = scorer.Treat(0, tiny->head()).value();
  CHECK(treatment.weight == nullptr);
  CHECK(treatment.activation == nullptr);
}

}  // namespace
}  // namespace autoscheme
