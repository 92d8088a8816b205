// Scores by parts of the calibration are those of one run, and stop where the choice does not change.
#include "../../lib/until_stable.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "autoscheme/scheme_generator.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

struct Case {
  TinySkeleton tiny{WideTinyModel()};
  Options options;
  Calibration rows;
  std::vector<std::string> said;

  explicit Case(const std::string& scorer) {
    rows = ReadCalibration({}, tiny.dir.Write("tokens.json", TinyTokens(7, 12, tiny->vocab_size()))).value();
    options.schemes = ParseSchemeList("W2A16,W4A16,W8A16").value();
    options.scorer = scorer, options.batch_size = 2;
  }
  std::unique_ptr<SchemeGenerator> Generator() {
    Context context;
    context.log = [this](LogLevel, absl::string_view text) { said.emplace_back(text); };
    return SchemeGenerator::Create(context, *tiny, options).value();
  }
  bool Said(const std::string& words) const {
    return std::any_of(said.begin(), said.end(), [&](const auto& s) { return s.find(words) != std::string::npos; });
  }
};

TEST_CASE("scores of parts add up to those of one run over all rows") {
  const std::string scorer = GENERATE("deltaloss", "fisher", "fisher-labels");
  INFO(scorer);
  Case c(scorer);
  const auto generator = c.Generator();
  const ScoreTable whole = generator->Score(c.rows).value();
  ScoreTable parts = generator->Score(PartOf(c.rows, 0, 2)).value();
  AddRows(generator->Score(PartOf(c.rows, 2, 2)).value(), parts);
  AddRows(generator->Score(PartOf(c.rows, 4, 3)).value(), parts);
  CHECK(parts.nsamples == 7);
  CHECK(parts.ce_loss == whole.ce_loss);
  for (size_t s = 0; s < whole.scores.size(); ++s) {
    for (size_t l = 0; l < whole.layers.size(); ++l) {
      const LayerScore &one = parts.scores[s][l], &other = whole.scores[s][l];
      CHECK(one.weight == Approx(other.weight).epsilon(1e-6));
      CHECK(one.activation == Approx(other.activation).epsilon(1e-6));
      if (scorer != "deltaloss") CHECK(one.standard_error == Approx(other.standard_error).epsilon(1e-5));
    }
  }
  CHECK(parts.run->read_bytes > whole.run->read_bytes);
}

TEST_CASE("scoring stops where the choice does not change, or says that it still does") {
  Case c("fisher");
  const auto generator = c.Generator();
  // With room for 8 bits everywhere there is but one choice.
  const ScoreTable table = generator->ScoreUntilStable(c.rows, {8.1875}).value();
  CHECK(table.nsamples == 4);
  CHECK(table.calibration_sha256 == Sha256(PartOf(c.rows, 0, 4)));
  CHECK(c.Said("0.0% of the weights have another scheme than by the first 2"));
  CHECK_FALSE(c.Said("not stable"));
  CHECK(generator->stats().read_bytes == table.run->read_bytes);

  UntilStable by;
  by.batch_size = 2;
  by.score = [&](const Calibration& part) { return generator->Score(part); };
  by.say = [&](const std::string& text) { c.said.push_back(text); };
  int calls = 0;
  by.select = [&](const ScoreTable& scores) {  // never twice the same
    return generator->Select(scores, {++calls % 2 == 0 ? 8.1875 : 4.5});
  };
  CHECK(ScoreByParts(c.rows, by).value().nsamples == 7);
  CHECK(calls == 3);
  CHECK(c.Said("not stable after all 7 rows"));
  CHECK(generator->ScoreUntilStable(c.rows, {}).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(generator->ScoreUntilStable(c.rows, {1}).status().code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace autoscheme
