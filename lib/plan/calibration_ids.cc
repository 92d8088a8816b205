#include "plan/calibration_ids.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/count.h"

namespace autoscheme {

absl::Status CheckCalibration(const Calibration& c, const MetaSkeleton& skeleton) {
  if (c.nsamples < 1 || c.seqlen < 1 || static_cast<int64_t>(c.ids.size()) != c.nsamples * c.seqlen) {
    return absl::InvalidArgumentError(absl::StrCat("calibration of ", Count(c.nsamples, "row"), " of ",
                                                   Count(c.seqlen, "token"), " holds ", Count(c.ids.size(), "id"),
                                                   "; at least one row is needed"));
  }
  if (c.seqlen < 2) {
    return absl::InvalidArgumentError(
        "calibration rows of 1 token predict nothing; the loss needs at least 2 tokens per row");
  }
  if (skeleton.max_positions() > 0 && c.seqlen > skeleton.max_positions()) {
    return absl::InvalidArgumentError(
        absl::StrCat("calibration rows of ", c.seqlen, " tokens are longer than the model's ",
                     Count(skeleton.max_positions(), "position"), "; use a smaller seqlen"));
  }
  for (size_t i = 0; i < c.ids.size(); ++i) {
    if (c.ids[i] < 0 || c.ids[i] >= skeleton.vocab_size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "calibration row ", i / c.seqlen, ", column ", i % c.seqlen, ": id ", c.ids[i],
          " is outside the vocabulary of ", skeleton.vocab_size(), "; were the ids made with another tokenizer?"));
    }
  }
  return absl::OkStatus();
}

std::vector<int32_t> DistinctIds(const Calibration& calibration) {
  std::vector<int32_t> ids = calibration.ids;
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace autoscheme
