#include "checkpoint/token_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/io.h"

namespace autoscheme {
namespace {

enum class Expected { kOne, kZero, kId, kPosition };

struct Companion {
  absl::string_view name;
  Expected expected;
  absl::string_view remedy;
};

constexpr absl::string_view kPadding =
    "padding would be scored as text; give rows without padding, all cut to one length (or several texts joined in a "
    "row)";
constexpr absl::string_view kEveryToken =
    "every token is scored, with the ids as labels (the shift by one is made here); give rows all of whose tokens "
    "count, without "
    "this";

constexpr Companion kCompanions[] = {
    {"attention_mask", Expected::kOne, kPadding},
    {"labels", Expected::kId, kEveryToken},
    {"mask", Expected::kOne, kEveryToken},
    {"loss_mask", Expected::kOne, kEveryToken},
    {"completion_mask", Expected::kOne, kEveryToken},
    {"assistant_masks", Expected::kOne, kEveryToken},
    {"position_ids", Expected::kPosition,
     "positions count from 0 in every row; give texts that were packed into one row as rows of their own"},
    {"token_type_ids", Expected::kZero,
     "the models that are scored know no token types; leave this away if it means nothing"},
};

const Companion* FindCompanion(absl::string_view name) {
  const auto* found =
      std::find_if(std::begin(kCompanions), std::end(kCompanions), [&](const Companion& c) { return c.name == name; });
  return found == std::end(kCompanions) ? nullptr : found;
}

std::string NumberText(double value) {
  return std::abs(value) < 1e15 && value == std::trunc(value) ? absl::StrCat(static_cast<int64_t>(value))
                                                              : absl::StrCat(value);
}

}  // namespace

absl::Status BadTokenId(const std::string& path, int64_t row, int64_t column, absl::string_view found) {
  return absl::InvalidArgumentError(absl::StrCat(Quoted(path), ": row ", row, ", column ", column, " is ", found,
                                                 ", not a token id from 0 to ", std::numeric_limits<int32_t>::max()));
}

absl::Status BadTokenShape(const std::string& path, const std::vector<int64_t>& shape) {
  std::vector<int64_t> longer;
  int64_t ids = 1;
  for (const int64_t size : shape) {
    if (size != 1) longer.push_back(size);
    if (size > 0 && ids > std::numeric_limits<int64_t>::max() / size) ids = 0;
    ids *= size;
  }
  std::string remedy;
  if (ids > 0 && shape.size() == 1) {
    remedy = absl::StrCat("; one row is written [[...]] (in NumPy: ids.reshape(1, ", shape[0], "))");
  } else if (ids > 0 && shape.size() > 2 && longer.size() <= 2) {
    longer.insert(longer.begin(), 2 - longer.size(), 1);
    remedy =
        absl::StrCat("; leave out the brackets of length 1 (in NumPy: ids.reshape(", absl::StrJoin(longer, ", "), "))");
  } else if (ids > 0 && shape.size() > 2) {
    remedy = absl::StrCat("; make them rows (in NumPy: ids.reshape(-1, ", shape.back(), "))");
  }
  return absl::InvalidArgumentError(absl::StrCat(Quoted(path), ": the token ids have shape [",
                                                 absl::StrJoin(shape, ", "),
                                                 "], not two dimensions with at least one id", remedy));
}

bool CompanionCheck::Knows(absl::string_view name) { return FindCompanion(name) != nullptr; }

CompanionCheck::CompanionCheck(std::string path, std::string name, const Calibration& calibration,
                               const CalibrationPart& part)
    : path_(std::move(path)),
      name_(std::move(name)),
      calibration_(calibration),
      rows_(part.nsamples > 0 ? part.nsamples : calibration.nsamples),
      columns_(part.seqlen > 0 ? std::min(part.seqlen, calibration.seqlen) : calibration.seqlen) {
  if (part.max_tokens > 0) rows_ = std::min(rows_, part.max_tokens / columns_);
}

void CompanionCheck::See(int64_t row, int64_t column, double value) {
  if (row >= rows_ || column >= columns_) return;
  double expected = 0;
  switch (FindCompanion(name_)->expected) {
    case Expected::kOne: expected = 1; break;
    case Expected::kZero: break;
    case Expected::kId: expected = calibration_.ids[row * calibration_.seqlen + column]; break;
    case Expected::kPosition: expected = static_cast<double>(column); break;
  }
  if (value == expected) return;
  if (first_row_ < 0) first_row_ = last_row_ = row, first_column_ = column, first_value_ = value;
  if (row == first_row_) ++in_first_row_;
  if (row != last_row_) last_row_ = row, ++more_rows_;
}

absl::Status CompanionCheck::Finish() const {
  if (first_row_ < 0) return absl::OkStatus();
  const Companion& companion = *FindCompanion(name_);
  std::string expected = "1", id;
  if (companion.expected == Expected::kZero) expected = "0";
  if (companion.expected == Expected::kPosition) expected = "the column";
  if (companion.expected == Expected::kId) {
    expected = "the token id";
    id = absl::StrCat(", where the id is ", calibration_.ids[first_row_ * calibration_.seqlen + first_column_]);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      Quoted(path_), ": row ", first_row_, " of ", name_, " is not ", expected, " at ", in_first_row_, " of ", columns_,
      " positions (", NumberText(first_value_), " at column ", first_column_, id, ")",
      more_rows_ > 0 ? absl::StrCat(", and so in ", more_rows_, more_rows_ == 1 ? " further row" : " further rows")
                     : "",
      ": ", companion.remedy));
}

absl::Status CompanionCheck::BadShape(absl::string_view found) const {
  return absl::InvalidArgumentError(absl::StrCat(Quoted(path_), ": ", name_, " has ", found,
                                                 ", not a number for each of the ", calibration_.nsamples, " x ",
                                                 calibration_.seqlen, " token ids"));
}

void WarnOfUnused(const Context& context, const std::string& path, const std::vector<std::string>& names) {
  constexpr size_t kMost = 5;
  if (names.empty()) return;
  const auto end = names.begin() + static_cast<int64_t>(std::min(names.size(), kMost));
  const std::string listed = absl::StrJoin(
      names.begin(), end, ", ", [](std::string* out, const std::string& name) { absl::StrAppend(out, Quoted(name)); });
  context.Warn(absl::StrCat(Quoted(path), ": only the token ids are used, not ", listed,
                            names.size() > kMost ? absl::StrCat(" and ", names.size() - kMost, " more") : ""));
}

}  // namespace autoscheme
