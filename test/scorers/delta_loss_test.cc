#include "scorers/delta_loss.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "support/scored_run.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

struct Scored {
  explicit Scored(const std::string& menu, const TinyModel& model = {}, bool with_head = false)
      : tiny(model), layers(LayersOf(*tiny, with_head)), schemes(ParseSchemeList(menu).value()) {}
  absl::StatusOr<std::unique_ptr<DeltaLoss>> Make(bool reference_rules = false) const {
    return DeltaLoss::Create({tiny.skeleton.get(), schemes, layers, nullptr, reference_rules});
  }
  const LinearLayer& linear(int index) const { return tiny->blocks()[0].linears[index]; }
  TinySkeleton tiny;
  std::vector<LayerInfo> layers;
  const std::vector<Scheme> schemes;
};

TEST_CASE("each scheme that quantizes is a variant, and says what it needs of each layer") {
  const Scored scored("BF16,W4A16,MXFP4");
  const auto scorer = scored.Make().value();
  const ScorerNeeds& needs = scorer->needs();
  REQUIRE(needs.count() == 2);
  CHECK(needs.variants[0].name == "W4A16");
  CHECK(needs.variants[1].name == "MXFP4");
  CHECK(scorer->terms().schemes == std::vector<int>{1, 2});
  CHECK(scorer->terms().names == std::vector<std::string>{"weight", "activation"});
  CHECK(needs.quantizes_activations);
  CHECK_FALSE(needs.activations_span_batch);
  CHECK_FALSE(needs.reads_imatrix);
  for (const VariantNeeds& variant : needs.variants) {
    REQUIRE(variant.linears.size() == 15);
    for (int i = 0; i < 14; ++i) {
      CHECK(variant.linears[i].scored);
      CHECK(variant.linears[i].quantizes_weight);
      CHECK(variant.linears[i].weight_gradient);
      CHECK_FALSE(variant.linears[i].whole_weight);
    }
    CHECK_FALSE(variant.linears[14].scored);  // the head is not listed
  }
  const Treatment w4 = scorer->Treat(0, scored.linear(0)).value(), mx = scorer->Treat(1, scored.linear(0)).value();
  CHECK(w4.weight != nullptr);
  CHECK(w4.activation == nullptr);
  CHECK(mx.weight != nullptr);
  CHECK(mx.activation != nullptr);
}

TEST_CASE("a scale of the whole tensor asks for whole weights and batches") {
  const auto scorer = Scored("NVFP4").Make().value();
  CHECK(scorer->needs().activations_span_batch);
  CHECK(scorer->needs().variants[0].linears[0].whole_weight);
}

TEST_CASE("fixed layers and those that are not listed stay as they are") {
  Scored scored("W4A16", {}, /*with_head=*/true);
  scored.layers[1].fixed = *FindScheme("W8A16");
  scored.layers.erase(scored.layers.begin() + 2);
  const auto scorer = scored.Make().value();
  for (const int stays : {1, 2}) {
    CHECK(scorer->Treat(0, scored.linear(stays))->weight == nullptr);
    CHECK_FALSE(scorer->needs().variants[0].linears[stays].scored);
  }
  CHECK(scorer->Treat(0, scored.linear(3))->weight != nullptr);
  CHECK(scorer->Treat(0, scored.tiny->head())->weight != nullptr);
  CHECK(scorer->needs().variants[0].linears[14].scored);
}

TEST_CASE("terms are sums of absolute gradients times errors, by variant and layer") {
  const Scored scored("W4A16,MXFP4");
  const auto scorer = scored.Make().value();
  const auto matrix = [](float a, float b) { return at::tensor(std::vector<float>{a, b}).view({1, 2}); };
  const at::Tensor grad = matrix(1, -2), w = matrix(1, 1), wq = matrix(0.5, 2);  // 0.5 and 2
  scorer->OnWeightGradient(0, scored.linear(2), grad, w, wq);
  scorer->OnWeightGradient(0, scored.linear(2), 2 * grad, w, wq);
  scorer->OnInputGradient(1, scored.linear(3), grad, w, wq);
  const ScoreTerms terms = scorer->terms();
  REQUIRE(terms.terms.size() == 2);
  for (const int variant : {0, 1}) {
    for (const int term : {0, 1}) {
      REQUIRE(terms.terms[variant][term].size() == 14);
      for (int l = 0; l < 14; ++l) {
        const bool weight = variant == 0 && term == 0 && l == 2, activation = variant == 1 && term == 1 && l == 3;
        CHECK(terms.terms[variant][term][l] == (weight ? 7.5 : activation ? 2.5 : 0));
      }
    }
  }
}

TEST_CASE("a layer that cannot hold a k-quant is scored with its stand-in, or refused where none may be") {
  const Scored narrow("GGUF:Q4_K_S");  // rows of 32 and 48
  const auto stand_ins = narrow.Make().value();
  CHECK_FALSE(stand_ins->needs().reads_imatrix);
  CHECK(stand_ins->Treat(0, narrow.linear(0))->weight != nullptr);
  CHECK(stand_ins->Treat(0, narrow.linear(6))->weight == nullptr);  // no multiple of 32: stays at 16 bits
  CHECK_FALSE(stand_ins->needs().variants[0].linears[6].scored);
  CHECK(narrow.Make(/*reference_rules=*/true).ok());  // super-groups of 8 groups reach over rows

  TinyModel four;
  four.kv_heads = 1, four.head_dim = 4;  // k_proj: 4 rows of one group each
  const absl::Status refused = Scored("GGUF:Q4_K_S", four).Make(/*reference_rules=*/true).status();
  CHECK(refused.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(refused.message()),
             Catch::StartsWith("layer \"model.layers.0.self_attn.k_proj\": ") &&
                 Catch::Contains("leave the layer out with ignore_layers, or the scheme off the menu"));

  TinyModel model;
  model.hidden = 256, model.intermediate = 256;
  CHECK(Scored("GGUF:Q4_K_S", model).Make().value()->needs().reads_imatrix);
}

}  // namespace
}  // namespace autoscheme
