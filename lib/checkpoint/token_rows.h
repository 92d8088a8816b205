// What the readers of calibration files share: what may stand beside the token ids, and the words for what is wrong.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "autoscheme/calibration.h"
#include "autoscheme/context.h"

namespace autoscheme {

inline constexpr absl::string_view kAcceptedTokens =
    "token ids are read from JSON (a list of equally long lists of ids; or an object whose \"input_ids\" is one; or a "
    "list of "
    "objects with \"input_ids\"), .npy (int32 or int64, two dimensions) and .safetensors (\"input_ids\")";

// INVALID_ARGUMENT for an id that is none. `found` is the number that stands there, or what else.
absl::Status BadTokenId(const std::string& path, int64_t row, int64_t column, absl::string_view found);
// INVALID_ARGUMENT for ids that are no two dimensions with at least one id: says how to bring them there.
absl::Status BadTokenShape(const std::string& path, const std::vector<int64_t>& shape);

// What may stand beside the ids: attention_mask, labels, position_ids and their like. Scoring computes without any of
// them, so each must say what is done anyway: nothing is padding, each label is its id, positions count from 0.
//
// One thread. `calibration` is borrowed.
class CompanionCheck {
 public:
  static bool Knows(absl::string_view name);

  // `calibration` is the whole of the file; only what lies in the part is looked at.
  CompanionCheck(std::string path, std::string name, const Calibration& calibration, const CalibrationPart& part);
  // The number at a row and column of the ids; rows come in order.
  void See(int64_t row, int64_t column, double value);
  // INVALID_ARGUMENT with the first row that says otherwise, at how many of its positions, and what to do.
  absl::Status Finish() const;
  // INVALID_ARGUMENT when there is not one number for each id. `found`: what is there.
  absl::Status BadShape(absl::string_view found) const;

 private:
  const std::string path_, name_;
  const Calibration& calibration_;
  int64_t rows_, columns_;  // those that the part has
  int64_t first_row_ = -1, first_column_ = 0, in_first_row_ = 0, last_row_ = -1, more_rows_ = 0;
  double first_value_ = 0;
};

// Warns of what the file holds beside the ids and nobody looks at. Nothing if `names` is empty.
void WarnOfUnused(const Context& context, const std::string& path, const std::vector<std::string>& names);

}  // namespace autoscheme
