#include "until_stable.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/count.h"
#include "base/status_macros.h"
#include "formats/scheme_json.h"
#include "formats/scorer_names.h"
#include "run_setup.h"

namespace autoscheme {
namespace {

// This share of the weights may still change its scheme.
constexpr double kStableShare = 0.01;

// The sum of squares of n values, by their mean and its standard error.
double Squares(double mean, double error, double n) { return n * (n - 1) * error * error + n * mean * mean; }

void AddMeans(const LayerScore& more, double more_rows, LayerScore& score, double rows) {
  const double all = rows + more_rows;
  const double mean = (score.weight * rows + more.weight * more_rows) / all;
  const double squares =
      Squares(score.weight, score.standard_error, rows) + Squares(more.weight, more.standard_error, more_rows);
  score.standard_error = std::sqrt(std::max(0.0, (squares - all * mean * mean) / (all * (all - 1))));
  score.weight = mean;
}

void AddSums(const LayerScore& more, LayerScore& score) {
  score.weight += more.weight, score.activation += more.activation;
  score.standard_error = std::hypot(score.standard_error, more.standard_error);
}

// The largest share of the weights, over recipes, whose scheme differs.
double ChangedShare(const ScoreTable& table, const std::vector<Recipe>& before, const std::vector<Recipe>& now) {
  double largest = 0;
  for (size_t r = 0; r < now.size(); ++r) {
    double changed = 0;
    for (size_t l = 0; l < now[r].layers.size(); ++l) {
      if (SchemeToJson(now[r].layers[l].scheme) == SchemeToJson(before[r].layers[l].scheme)) continue;
      changed += static_cast<double>(table.layers[l].out_features) * static_cast<double>(table.layers[l].in_features);
    }
    largest = std::max(largest, changed / static_cast<double>(now[r].total_params));
  }
  return largest;
}

}  // namespace

Calibration PartOf(const Calibration& calibration, int64_t first, int64_t count) {
  const auto begin = calibration.ids.begin() + first * calibration.seqlen;
  return {count, calibration.seqlen, {begin, begin + count * calibration.seqlen}, calibration.first_row + first};
}

void AddRows(const ScoreTable& more, ScoreTable& table) {
  const auto rows = static_cast<double>(table.nsamples), more_rows = static_cast<double>(more.nsamples);
  for (size_t s = 0; s < table.scores.size(); ++s) {
    for (size_t l = 0; l < table.scores[s].size(); ++l) {
      if (table.scorer == kTwoTermScorer) {
        AddSums(more.scores[s][l], table.scores[s][l]);
      } else {
        AddMeans(more.scores[s][l], more_rows, table.scores[s][l], rows);
      }
    }
    table.ce_loss[s].insert(table.ce_loss[s].end(), more.ce_loss[s].begin(), more.ce_loss[s].end());
  }
  table.nsamples += more.nsamples;
  if (table.run.has_value() && more.run.has_value()) AddCosts(*more.run, *table.run);
}

absl::StatusOr<ScoreTable> ScoreByParts(const Calibration& calibration, const UntilStable& by) {
  std::optional<ScoreTable> table;
  std::vector<Recipe> chosen;
  double changed = 1;
  while (!table.has_value() || (changed > kStableShare && table->nsamples < calibration.nsamples)) {
    const int64_t done = table.has_value() ? table->nsamples : 0;
    const int64_t next = std::min(std::max(done, by.batch_size), calibration.nsamples - done);
    AUTOSCHEME_ASSIGN_OR_RETURN(ScoreTable part, by.score(PartOf(calibration, done, next)));
    if (table.has_value()) {
      AddRows(part, *table);
    } else {
      table = std::move(part);
    }
    AUTOSCHEME_ASSIGN_OR_RETURN(std::vector<Recipe> recipes, by.select(*table));
    if (!chosen.empty()) {
      changed = ChangedShare(*table, chosen, recipes);
      by.say(absl::StrFormat("%s: %.1f%% of the weights have another scheme than by the first %d",
                             Count(table->nsamples, "row"), 100 * changed, done));
    }
    chosen = std::move(recipes);
  }
  if (changed > kStableShare) {
    by.say(absl::StrFormat("the choice is not stable after all %s of calibration: give more",
                           Count(table->nsamples, "row")));
  }
  table->calibration_sha256 = Sha256(PartOf(calibration, 0, table->nsamples));
  return *std::move(table);
}

}  // namespace autoscheme
