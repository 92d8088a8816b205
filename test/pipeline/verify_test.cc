// Recipes measured beside uniform ones.
#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "autoscheme/evaluate.h"
#include "autoscheme/pareto.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

struct Case {
  TinySkeleton tiny{WideTinyModel()};
  Options options;
  Calibration scored, held_back;
  std::unique_ptr<SchemeGenerator> generator;

  Case() {
    scored = ReadCalibration({}, tiny.dir.Write("tokens.json", TinyTokens(8, 12, tiny->vocab_size()))).value();
    held_back = HoldBack(scored).value();
    options.schemes = ParseSchemeList("W2A16,W4A16,W8A16").value();
    options.scorer = "fisher";
    generator = SchemeGenerator::Create({}, *tiny, options).value();
  }
  double Kl(const Recipe& recipe) const {
    return Evaluate({}, *tiny, options, held_back, {{"it", recipe}}).value().recipes[0].kl;
  }
};

TEST_CASE("the last quarter of the rows is held back, or as many as are asked for") {
  Calibration all = RowsOf(5, 2, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  const Calibration one = HoldBack(all).value();
  CHECK((one.nsamples == 1 && one.seqlen == 2 && one.ids == std::vector<int32_t>{8, 9}));
  CHECK((all.nsamples == 4 && all.ids == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  const Calibration three = HoldBack(all, 3).value();
  CHECK(three.ids == std::vector<int32_t>{2, 3, 4, 5, 6, 7});
  CHECK(HoldBack(all).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(HoldBack(all, -1).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(all.nsamples == 1);
}

TEST_CASE("a choice that is better than the uniform ones stays, with the figures of all") {
  Case c;
  const ScoreTable table = c.generator->Score(c.scored).value();
  std::vector<Recipe> recipes = c.generator->Select(table, {5.5, 3}).value();
  const std::vector<Recipe> chosen = recipes;
  REQUIRE(c.generator->Verify(table, c.held_back, recipes).ok());
  REQUIRE(recipes[0].verified.has_value());
  const Verified& high = *recipes[0].verified;
  CHECK(high.kl == Approx(c.Kl(chosen[0])));
  CHECK(high.avg_bits == Approx(chosen[0].avg_bits));
  CHECK((high.nsamples == 2 && high.seqlen == 12 && high.tokens_sha256 == Sha256(c.held_back)));
  REQUIRE(high.uniforms.size() == 2);
  CHECK((high.uniforms[0].scheme == "W2A16" && high.uniforms[1].scheme == "W4A16"));
  CHECK(high.uniforms[0].kl > high.uniforms[1].kl);
  CHECK(high.uniforms[1].kl == Approx(c.Kl(UniformRecipe({}, *c.tiny, *FindScheme("W4A16"), c.options).value())));
  CHECK(high.taken.empty());
  CHECK(recipes[0].total_bits == chosen[0].total_bits);
  CHECK(recipes[1].verified->uniforms.size() == 1);
}

TEST_CASE("a uniform recipe that moves the predictions less takes the place of a bad choice") {
  Case c;
  ScoreTable table = c.generator->Score(c.scored).value();
  // Scores that are wrong: half of the layers look as if 2 bits cost nothing, the others as if they needed 8.
  for (size_t l = 0; l < table.layers.size(); ++l) {
    for (size_t s = 0; s < 3; ++s) table.scores[s][l].weight = (l % 2 == 0) == (s == 0) ? 0 : 1 - 0.1 * s;
  }
  std::vector<Recipe> recipes = c.generator->Select(table, {5.5}).value();
  const Recipe chosen = recipes[0];
  REQUIRE(c.generator->Verify(table, c.held_back, recipes).ok());
  const Recipe& recipe = recipes[0];
  CHECK(recipe.verified->taken == "W4A16");
  CHECK(recipe.verified->kl == Approx(c.Kl(chosen)));
  CHECK(c.Kl(recipe) < recipe.verified->kl);
  CHECK((recipe.target_avg_bits == 5.5 && recipe.avg_bits < 5.5));
  CHECK(recipe.loss > chosen.loss);
  CHECK(recipe.gap == Approx(recipe.loss - chosen.loss));
  for (const LayerChoice& choice : recipe.layers) CHECK((choice.fixed || choice.scheme.name == "W4A16"));
}

TEST_CASE("recipes stay as they were where they cannot be measured") {
  Case c;
  const ScoreTable table = c.generator->Score(c.scored).value();
  std::vector<Recipe> recipes = c.generator->Select(table, {5}).value();
  c.held_back.ids[3] = 1 << 20;
  CHECK(c.generator->Verify(table, c.held_back, recipes).code() == absl::StatusCode::kInvalidArgument);
  CHECK_FALSE(recipes[0].verified.has_value());
}

TEST_CASE("rows and a budget that verification would refuse are found before anything is scored") {
  Case c;
  const Plan plan = c.generator->PlanVerify(c.held_back, 2).value();
  CHECK(plan.peak_bytes > 0);
  CHECK(plan.peak_bytes > c.generator->PlanVerify(c.held_back, 0).value().peak_bytes);
  Calibration strange = c.held_back;
  strange.ids[3] = 1 << 20;
  CHECK(c.generator->PlanVerify(strange, 1).status().code() == absl::StatusCode::kInvalidArgument);
  c.options.max_ram_bytes = 1024;
  const auto small = SchemeGenerator::Create({}, *c.tiny, c.options).value();
  CHECK(small->PlanVerify(c.held_back, 1).status().code() == absl::StatusCode::kResourceExhausted);
}

TEST_CASE(
    "k-quants are verified with the importance matrix that the scoring collected, and it is said where none was") {
  TinyModel model = WideTinyModel();
  model.hidden = 256;
  TinySkeleton tiny{model};
  Calibration scored = ReadCalibration({}, tiny.dir.Write("t.json", TinyTokens(8, 12, tiny->vocab_size()))).value();
  const Calibration held_back = HoldBack(scored).value();
  Options options;
  options.schemes = ParseSchemeList("GGUF:Q2_K_S,GGUF:Q4_K_S").value();
  options.scorer = "fisher";
  std::vector<std::string> said, stages;
  Context context;
  context.log = [&](LogLevel, absl::string_view text) { said.emplace_back(text); };
  context.progress = [&](const Progress& progress) {
    stages.emplace_back(progress.stage);
    return absl::OkStatus();
  };
  const auto generator = SchemeGenerator::Create(context, *tiny, options).value();
  const ScoreTable table = generator->Score(scored).value();
  const std::vector<Recipe> chosen = generator->Select(table, {4.6}).value();
  std::vector<Recipe> weighed = chosen, unweighed = chosen;
  said.clear(), stages.clear();
  REQUIRE(generator->Verify(table, held_back, weighed).ok());
  for (const std::string& text : said) CHECK(text.find("without an importance matrix") == std::string::npos);
  CHECK(stages.front() == "verify forward");
  CHECK(stages.back() == "verify head");
  CHECK(generator->verify_stats().read_bytes > 0);
  said.clear();
  const auto other = SchemeGenerator::Create(context, *tiny, options).value();
  REQUIRE(other->Verify(table, held_back, unweighed).ok());
  CHECK(std::any_of(said.begin(), said.end(), [](const std::string& text) {
    return text.find("without an importance matrix") != std::string::npos;
  }));
  CHECK(weighed[0].verified->kl != unweighed[0].verified->kl);
  const Evaluation plain = Evaluate({}, *tiny, options, held_back, {{"it", chosen[0]}}).value();
  CHECK(unweighed[0].verified->kl == Approx(plain.recipes[0].kl));
}

}  // namespace
}  // namespace autoscheme
