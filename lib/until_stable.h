// Scoring by parts of the calibration, until what is chosen no longer changes. For pipeline.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/calibration.h"
#include "autoscheme/recipe.h"
#include "autoscheme/score_table.h"

namespace autoscheme {

// Scores of rows [first, first + count) of a calibration, as one that is made of these alone.
Calibration PartOf(const Calibration& calibration, int64_t first, int64_t count);

// Adds to a table the scores that the same options gave on the rows behind its own: losses, batches, rows and the costs
// of measuring. Sums (deltaloss) are added, means over tokens (other scorers) weighed by their rows, and standard
// errors are what one run over all rows would have found. The hash of the ids is left to the caller.
void AddRows(const ScoreTable& more, ScoreTable& table);

struct UntilStable {
  std::function<absl::StatusOr<ScoreTable>(const Calibration& part)> score;
  std::function<absl::StatusOr<std::vector<Recipe>>(const ScoreTable& table)> select;
  std::function<void(const std::string& text)> say;
  int64_t batch_size = 1;
};

// What SchemeGenerator::ScoreUntilStable says.
absl::StatusOr<ScoreTable> ScoreByParts(const Calibration& calibration, const UntilStable& by);

}  // namespace autoscheme
