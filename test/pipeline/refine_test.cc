// Recipes that are measured near a choice.
#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "autoscheme/evaluate.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

struct Case {
  TinySkeleton tiny{WideTinyModel()};
  Options options;
  Calibration scored, held_back;
  std::vector<std::string> said;
  std::vector<Progress> steps;
  std::vector<std::string> stages;
  CancelToken cancel;
  int64_t cancel_at = -1;  // step of refinement
  std::unique_ptr<SchemeGenerator> generator;

  Case() {
    scored = ReadCalibration({}, tiny.dir.Write("tokens.json", TinyTokens(32, 12, tiny->vocab_size()))).value();
    held_back = HoldBack(scored).value();
    options.schemes = ParseSchemeList("W2A16,W4A16,W8A16").value();
    options.scorer = "fisher";
    Context context;
    context.cancel = &cancel;
    context.log = [this](LogLevel, absl::string_view text) { said.emplace_back(text); };
    context.progress = [this](const Progress& step) {
      steps.push_back(step), stages.emplace_back(step.stage);
      if (static_cast<int64_t>(steps.size()) == cancel_at) cancel.Cancel();
      return absl::OkStatus();
    };
    generator = SchemeGenerator::Create(context, *tiny, options).value();
  }
  // Scores by which 2 bits cost far too little.
  ScoreTable Misleading() {
    ScoreTable table = generator->Score(scored).value();
    for (LayerScore& score : table.scores[0]) score.weight *= 0.2;
    return table;
  }
  double Kl(const Recipe& recipe) const {
    return Evaluate({}, *tiny, options, held_back, {{"it", recipe}}).value().recipes[0].kl;
  }
};

bool SameLayers(const Recipe& a, const Recipe& b) {
  return std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(),
                    [](const LayerChoice& x, const LayerChoice& y) { return x.scheme.name == y.scheme.name; });
}

TEST_CASE("a bad choice gives way to a recipe that was measured, within the same target") {
  Case c;
  const ScoreTable table = c.Misleading();
  std::vector<Recipe> recipes = c.generator->Select(table, {5.5}).value();
  const Recipe chosen = recipes[0];
  c.said.clear(), c.steps.clear(), c.stages.clear();
  REQUIRE(c.generator->Refine(table, c.held_back, 12, recipes).ok());
  const Recipe& recipe = recipes[0];
  REQUIRE(recipe.refined.has_value());
  const Refined& refined = *recipe.refined;
  CHECK(refined.kl_before == Approx(c.Kl(chosen)));
  CHECK(refined.kl == Approx(c.Kl(recipe)));
  CHECK(refined.avg_bits_before == Approx(chosen.avg_bits));
  CHECK((refined.evaluations > 1 && refined.evaluations <= 13));
  CHECK((refined.nsamples == 8 && refined.seqlen == 12 && refined.tokens_sha256 == Sha256(c.held_back)));
  REQUIRE(refined.changed);
  CHECK(refined.kl < refined.kl_before);
  CHECK_FALSE(SameLayers(recipe, chosen));
  CHECK((recipe.avg_bits <= 5.5 && recipe.target_avg_bits == 5.5));
  // By the table the choice was the best.
  CHECK(recipe.loss >= chosen.loss);
  CHECK(recipe.gap == Approx(chosen.gap + recipe.loss - chosen.loss));
  CHECK(c.said.front().find("up to 12 evaluations for each of 1 choice, in 3 forward sweeps") != std::string::npos);
  CHECK((c.stages.front() == "refine forward" && c.stages.back() == "refine head"));
  int64_t done = 0;
  for (size_t i = 0; i < c.steps.size(); ++i) {
    if (c.stages[i] != "refine forward") continue;
    CHECK((c.steps[i].done > done && c.steps[i].done <= c.steps[i].total));
    done = c.steps[i].done;
  }
  CHECK(c.generator->refine_stats().read_bytes == c.generator->refine_stats().planned_read_bytes);

  std::vector<Recipe> again = c.generator->Select(table, {5.5}).value();
  REQUIRE(c.generator->Refine(table, c.held_back, 12, again).ok());
  CHECK(SameLayers(again[0], recipe));
  CHECK(again[0].refined->kl == recipe.refined->kl);
}

TEST_CASE("several choices are refined side by side, and one that stays is as it was") {
  Case c;
  const ScoreTable table = c.generator->Score(c.scored).value();
  // At 8.1875 bits every layer has 8 bits: there is nothing else to try.
  std::vector<Recipe> recipes = c.generator->Select(table, {4, 8.1875}).value();
  const std::vector<Recipe> chosen = recipes;
  REQUIRE(c.generator->Refine(table, c.held_back, 4, recipes).ok());
  CHECK(recipes[1].refined->evaluations == 1);
  CHECK_FALSE(recipes[1].refined->changed);
  CHECK(recipes[1].refined->kl == recipes[1].refined->kl_before);
  CHECK((SameLayers(recipes[1], chosen[1]) && recipes[1].loss == chosen[1].loss));
  CHECK(recipes[0].refined->evaluations > 1);
  CHECK(recipes[0].refined->changed != SameLayers(recipes[0], chosen[0]));
  REQUIRE(c.generator->Verify(table, c.held_back, recipes).ok());
  CHECK(recipes[0].verified->kl == Approx(recipes[0].refined->kl));
  const std::string path = c.tiny.dir / "recipe.json";
  REQUIRE(WriteRecipes({}, recipes, path).ok());
  const std::vector<Recipe> read = ReadRecipes({}, path).value();
  CHECK(RecipesToJson(read) == RecipesToJson(recipes));
}

TEST_CASE("a target in bytes stays kept") {
  Case c;
  const ScoreTable table = c.Misleading();
  const int64_t bytes = c.generator->Select(table, {5}).value()[0].model_bytes;
  std::vector<Recipe> recipes = c.generator->Select(table, {}, {bytes}).value();
  REQUIRE(c.generator->Refine(table, c.held_back, 6, recipes).ok());
  CHECK((recipes[0].target_bytes == bytes && recipes[0].model_bytes <= bytes));
  CHECK(recipes[0].refined->evaluations > 1);
}

TEST_CASE("what refinement takes is known before scoring, and what it refuses is refused then") {
  Case c;
  const Plan one = c.generator->PlanRefine(c.held_back, 1, 3).value();
  const Plan more = c.generator->PlanRefine(c.held_back, 1, 30).value();
  CHECK(one.peak_bytes < more.peak_bytes);
  CHECK(one.read_bytes == more.read_bytes);
  CHECK(one.flops < more.flops);
  CHECK(one.read_bytes == 3 * c.generator->PlanVerify(c.held_back, 1).value().read_bytes);
  for (const int64_t evaluations : {0, -1, 1001}) {
    CHECK(c.generator->PlanRefine(c.held_back, 1, evaluations).status().code() == absl::StatusCode::kInvalidArgument);
  }
  c.options.max_ram_bytes = 1024;
  const auto small = SchemeGenerator::Create({}, *c.tiny, c.options).value();
  CHECK(small->PlanRefine(c.held_back, 1, 3).status().code() == absl::StatusCode::kResourceExhausted);
}

TEST_CASE("recipes stay as they were where refinement fails or is cancelled") {
  Case c;
  const ScoreTable table = c.Misleading();
  std::vector<Recipe> recipes = c.generator->Select(table, {5.5}).value();
  const Recipe chosen = recipes[0];
  c.cancel_at = static_cast<int64_t>(c.steps.size()) + 2;
  CHECK(c.generator->Refine(table, c.held_back, 6, recipes).code() == absl::StatusCode::kCancelled);
  CHECK((!recipes[0].refined.has_value() && SameLayers(recipes[0], chosen)));
  CHECK(c.generator->Refine(table, c.held_back, 0, recipes).code() == absl::StatusCode::kInvalidArgument);
  Calibration strange = c.held_back;
  strange.ids[3] = 1 << 20;
  CHECK(c.generator->Refine(table, strange, 6, recipes).code() == absl::StatusCode::kInvalidArgument);
  CHECK(!recipes[0].refined.has_value());
}

}  // namespace
}  // namespace autoscheme
