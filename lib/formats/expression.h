// Regular expressions that match in bounded time, whoever wrote them.
#pragma once

#include <bitset>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autoscheme {

// A regular expression in the syntax of ECMAScript without back-references: . [] | () (?:) (?=) (?!) * + ? {n,m} ^ $ \b
// \d \w \s. Of bytes; . is any but a line's end. It can only say whether it matches, which makes greedy and lazy the
// same.
//
// A backtracking matcher can take time that doubles with each character. This one comes to no place of the expression
// twice at the same place of the text, so it takes at most their product, and for a lookahead that once more for each
// place of the text.
//
// Immutable; any thread.
class Expression {
 public:
  // INVALID_ARGUMENT for text that is none (says why), or that unfolds to more than kMostSteps steps.
  static absl::StatusOr<Expression> Parse(absl::string_view text);

  // Whether it matches a part of `text`.
  bool Matches(absl::string_view text) const;

  static constexpr int kMostSteps = 5000;

 private:
  friend class ExpressionCompiler;
  friend class ExpressionMatcher;
  using Bytes = std::bitset<256>;
  enum class Op { kByte, kSplit, kBegin, kEnd, kWordEdge, kNoWordEdge, kAhead, kNotAhead, kMatch };
  // What follows is `next`; for a split also `other`, and for a lookahead that is where it begins. For a byte `other`
  // is which set.
  struct Step {
    Op op;
    int next = -1, other = -1;
  };
  std::vector<Step> steps_;
  std::vector<Bytes> sets_;
  int start_ = 0;
};

}  // namespace autoscheme
