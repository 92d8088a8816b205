#include "scorers/run_scorers.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "formats/scorer_names.h"
#include "support/scored_run.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

std::vector<std::string> VariantsOf(const RunScorers& scorers) {
  std::vector<std::string> names;
  for (const VariantNeeds& variant : scorers.all().needs().variants) names.push_back(variant.name);
  return names;
}

TEST_CASE("an unknown scorer is refused with the names that there are") {
  CHECK(ScorerNamed("deltaloss", false).value() == "deltaloss");
  CHECK(ScorerNamed("auto", false).value() == "fisher");
  CHECK(ScorerNamed("auto", true).value() == "deltaloss");
  const absl::Status status = ScorerNamed("hessian", false).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(std::string(status.message()) ==
        "option scorer is \"hessian\"; there is: auto, deltaloss, fisher, fisher-labels");
  const TinySkeleton tiny;
  CHECK(RunScorers::Create("hessian", {tiny.skeleton.get(), {}, {}}).status() == status);
}

TEST_CASE("every name of a scorer makes one") {
  for (const absl::string_view name : kScorerNames) CHECK(ScorerNamed(std::string(name), false).value() == name);
}

TEST_CASE("the importance matrix is collected first where a scheme reads it and no file gives it") {
  TinyModel model;
  model.hidden = 256, model.intermediate = 256, model.blocks = 1;
  const TinySkeleton tiny(model);
  const std::vector<LayerInfo> layers = LayersOf(*tiny, /*with_head=*/false);
  const Imatrix given;
  const auto made = [&](const std::string& menu, const Imatrix* imatrix) {
    return RunScorers::Create("deltaloss", {tiny.skeleton.get(), ParseSchemeList(menu).value(), layers, imatrix})
        .value();
  };
  const RunScorers collects = made("W4A16,GGUF:Q4_K_S", nullptr);
  CHECK(VariantsOf(collects) == std::vector<std::string>{"the importance matrix", "W4A16", "GGUF:Q4_K_S"});
  CHECK(collects.all().needs().forward_only() == 1);
  CHECK(collects.terms().schemes == std::vector<int>{0, 1});
  CHECK(VariantsOf(made("W4A16,GGUF:Q4_K_S", &given)) == std::vector<std::string>{"W4A16", "GGUF:Q4_K_S"});
  CHECK(VariantsOf(made("W4A16,MXFP4", nullptr)) == std::vector<std::string>{"W4A16", "MXFP4"});
}

TEST_CASE("what is collected in a run weighs the k-quants of the same run") {
  TinyModel model;
  model.hidden = 256, model.intermediate = 256, model.blocks = 1;
  const TinySkeleton tiny(model);
  const std::vector<LayerInfo> layers = LayersOf(*tiny, false);
  const Calibration calibration = RowsOf(1, 8, {1, 2, 3, 4, 5, 6, 7, 8});
  ScoredRun collected(*tiny, "GGUF:Q4_K_S", layers);
  REQUIRE(collected.Sweep(calibration, {}).ok());
  // With a matrix that has no row of the model's layers nothing is weighed.
  const Imatrix empty;
  Context context;
  RunResources run(context);
  const RunScorers plain =
      RunScorers::Create("deltaloss", {tiny.skeleton.get(), ParseSchemeList("GGUF:Q4_K_S").value(), layers, &empty})
          .value();
  REQUIRE(RunSweeps(run, *tiny, calibration, {}, plain.all()).ok());
  for (size_t l = 0; l < layers.size(); ++l) {
    INFO(layers[l].name);
    CHECK(plain.terms().terms[0][0][l] > 0);
    CHECK(collected.weight(0, l) != plain.terms().terms[0][0][l]);
  }
}

}  // namespace
}  // namespace autoscheme
