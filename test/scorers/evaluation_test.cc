#include "scorers/evaluation.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

TinyModel Wide() {
  TinyModel model;
  model.hidden = 256, model.heads = 4, model.intermediate = 256;
  return model;
}

struct Evaluated {
  explicit Evaluated(const TinyModel& model = Wide()) : tiny(model) {}
  // All layers of the blocks alike.
  NamedRecipe Recipe(const std::string& scheme) const {
    NamedRecipe named{scheme, {}};
    for (const Block& block : tiny->blocks()) {
      for (const LinearLayer& linear : block.linears) {
        named.recipe.layers.push_back({linear.name, FindScheme(scheme).value()});
      }
    }
    return named;
  }
  absl::StatusOr<std::unique_ptr<EvaluationScorer>> Make(const std::vector<NamedRecipe>& recipes,
                                                         const Imatrix* imatrix = nullptr) const {
    return EvaluationScorer::Create({tiny.skeleton.get(), recipes, imatrix, 2, 3});
  }
  const LinearLayer& linear(int index) const { return tiny->blocks()[0].linears[index]; }
  TinySkeleton tiny;
};

TEST_CASE("full precision is variant 0, each recipe one more, all of them forward only") {
  const Evaluated evaluated;
  NamedRecipe mixed = evaluated.Recipe("W4A16");
  mixed.recipe.layers[1].scheme = *FindScheme("NVFP4");
  const auto scorer = evaluated.Make({evaluated.Recipe("W4A16"), mixed}).value();
  const ScorerNeeds& needs = scorer->needs();
  REQUIRE(needs.count() == 3);
  CHECK(needs.with_gradients() == 0);
  CHECK(needs.compares_logits);
  CHECK(needs.quantizes_activations);
  CHECK(needs.activations_span_batch);
  CHECK(needs.variants[0].name == "full precision");
  CHECK(needs.variants[1].name == "W4A16");
  REQUIRE(needs.variants[2].linears.size() == 15);
  CHECK_FALSE(needs.variants[0].linears[0].quantizes_weight);
  CHECK(needs.variants[2].linears[0].quantizes_weight);
  CHECK_FALSE(needs.variants[2].linears[0].whole_weight);
  CHECK(needs.variants[2].linears[1].whole_weight);
  CHECK_FALSE(needs.variants[2].linears[14].quantizes_weight);  // the head is not named
  CHECK(scorer->Treat(0, evaluated.linear(0))->weight == nullptr);
  const Treatment q = scorer->Treat(2, evaluated.linear(0)).value(), k = scorer->Treat(2, evaluated.linear(1)).value();
  CHECK(q.weight != nullptr);
  CHECK(q.activation == nullptr);
  CHECK(k.activation != nullptr);
  CHECK(scorer->Treat(1, evaluated.linear(0))->weight == q.weight);  // one for all that are alike
}

TEST_CASE("k-quants are weighed by the matrix for the layers that it knows") {
  const Evaluated evaluated;
  const std::vector<NamedRecipe> recipes = {evaluated.Recipe("GGUF:Q4_K_S")};
  Imatrix imatrix;
  imatrix[evaluated.linear(0).name] = at::arange(1, 257, at::kFloat);
  const auto plain = evaluated.Make(recipes).value(), weighed = evaluated.Make(recipes, &imatrix).value();
  CHECK(plain->searches_unweighed());
  CHECK_FALSE(weighed->searches_unweighed());
  CHECK(weighed->searches());
  CHECK_FALSE(evaluated.Make({evaluated.Recipe("W4A16")}).value()->searches());
  at::manual_seed(1);
  const at::Tensor w = at::randn({8, 256});
  const auto quantized = [&](EvaluationScorer& scorer, int layer) {
    return scorer.Treat(1, evaluated.linear(layer))->weight->Forward(w, {});
  };
  CHECK_FALSE(at::equal(quantized(*plain, 0), quantized(*weighed, 0)));
  CHECK(at::equal(quantized(*plain, 1), quantized(*weighed, 1)));
}

TEST_CASE("recipes that quantize the embedding alike share one form of it, whose rows do not touch") {
  const Evaluated evaluated;
  const auto with = [&](const char* scheme) {
    NamedRecipe named = evaluated.Recipe("W4A16");
    named.recipe.layers.push_back({"model.embed_tokens", FindScheme(scheme).value()});
    return named;
  };
  const auto scorer =
      evaluated.Make({with("GGUF:Q4_K_S"), with("W4A16"), with("GGUF:Q4_K_S"), with("BF16"), with("GGUF:Q2_K_S")})
          .value();
  std::vector<int> forms;
  for (const VariantNeeds& variant : scorer->needs().variants) forms.push_back(variant.embedding);
  CHECK(forms == std::vector<int>{0, 1, 2, 1, 0, 3});
  CHECK(scorer->needs().embeddings() == 4);
  at::manual_seed(1);
  const at::Tensor rows = at::randn({19, 256});
  for (const int form : {1, 2, 3}) {
    const auto quantizer = scorer->TreatEmbedding(form);
    const at::Tensor all = quantizer->Forward(rows, {});
    for (const int64_t row : {0, 7, 18}) {
      CHECK(at::equal(quantizer->Forward(rows.narrow(0, row, 1), {}), all.narrow(0, row, 1)));
    }
  }
}

TEST_CASE("figures lie by row and position, whatever the order of micro-batches") {
  const Evaluated evaluated;
  const auto scorer = evaluated.Make({evaluated.Recipe("W4A16")}).value();
  const auto show = [&](int64_t row, double value) {
    const at::Tensor kl = at::full({1, 2}, value, at::kDouble);
    kl[0][1] += 1;
    scorer->OnPredictions(1, {0, row, 1, true}, {kl, kl * 10, kl.gt(3)});
  };
  show(1, 3), show(0, 1);
  CHECK(scorer->figures(1).kl == std::vector<double>{1, 2, 3, 4});
  CHECK(scorer->figures(1).cross_entropy == std::vector<double>{10, 20, 30, 40});
  CHECK(scorer->figures(1).agrees == std::vector<uint8_t>{0, 0, 0, 1});
}

TEST_CASE("a scheme that cannot hold a layer's shape is refused by the names of recipe and layer") {
  TinyModel narrow = Wide();
  narrow.hidden = 48, narrow.heads = 3, narrow.kv_heads = 3;
  const Evaluated evaluated(narrow);
  Scheme q2 = *FindScheme("GGUF:Q2_K_S");
  NamedRecipe named = evaluated.Recipe("W4A16");
  named.recipe.layers[0].scheme = q2;
  const auto scorer = evaluated.Make({named});
  REQUIRE(scorer.ok());  // rows of 48 weights stay at 16 bits, as in files
  CHECK((*scorer)->Treat(1, evaluated.linear(0))->weight == nullptr);
}

}  // namespace
}  // namespace autoscheme
