#include "scorers/scheme_treatments.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "formats/stand_in.h"
#include "support/scored_run.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

TEST_CASE("layers that are fixed, and the embedding, are not scored") {
  const TinySkeleton tiny;
  std::vector<LayerInfo> layers = LayersOf(*tiny, /*with_head=*/true);
  layers[2].fixed = *FindScheme("W8A16");
  layers[3].is_embedding = true;
  const ScoredLayers scored(layers);
  const std::vector<LinearLayer>& linears = tiny->blocks()[0].linears;
  CHECK(scored.Find(linears[0]) == 0);
  CHECK(scored.Find(linears[2]) == -1);
  CHECK(scored.Find(linears[3]) == -1);
  CHECK(scored.Find(tiny->head()) == static_cast<int>(layers.size()) - 1);

  const ScorerInput input{tiny.skeleton.get(), {}, layers};
  const SchemeTreatments treatments = SchemeTreatments::Create(input, *FindScheme("W4A16")).value();
  CHECK(treatments.weight(0) != nullptr);
  CHECK(treatments.weight(2) == nullptr);
  CHECK_FALSE(treatments.quantizes(2));
}

TEST_CASE("a layer gets its scheme's quantizers, or its stand-in's") {
  TinyModel model;
  model.hidden = 64, model.intermediate = 256;
  const TinySkeleton tiny(model);
  const std::vector<LayerInfo> layers = LayersOf(*tiny, /*with_head=*/false);
  ScorerInput input{tiny.skeleton.get(), {}, layers};
  const SchemeTreatments mx = SchemeTreatments::Create(input, *FindScheme("MXFP4")).value();
  CHECK(mx.Treat(0)->activation.get() == mx.activation());
  CHECK(mx.Treat(0)->weight.get() == mx.weight(0));
  CHECK_FALSE(mx.reads_imatrix());

  // Rows of 64 hold no k-quant; down_proj's, of 256, do.
  const SchemeTreatments k = SchemeTreatments::Create(input, *FindScheme("GGUF:Q4_K_S")).value();
  CHECK(k.reads_imatrix());
  const at::Tensor w = at::randn({64, 64});
  CHECK(k.weight(0)->Forward(w, {}).equal(
      MakeWeightQuantizer(StoredScheme(*FindScheme("GGUF:Q4_K_S"), layers[0])).value()->Forward(w, {})));

  Imatrix imatrix;
  imatrix[layers[6].name] = at::rand({256}).add_(0.1);
  input.imatrix = &imatrix;
  const at::Tensor wide = at::randn({64, 256});
  const at::Tensor weighed = k.Treat(6)->weight->Forward(wide, {});
  CHECK_FALSE(weighed.equal(k.weight(6)->Forward(wide, {})));
  CHECK(k.Treat(0)->weight.get() == k.weight(0));
}

}  // namespace
}  // namespace autoscheme
