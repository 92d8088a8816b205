// RunScorers: the scorers of one run, made from the name that option `scorer` gives.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "exec/scorer.h"
#include "scorers/imatrix.h"
#include "scorers/scorer_input.h"

namespace autoscheme {

// The scorer's own name: of "auto" the one that chooses best, or, by the reference's rules, the reference's.
// INVALID_ARGUMENT, with the names that there are, for a scorer that does not exist.
absl::StatusOr<std::string> ScorerNamed(const std::string& name, bool reference_rules);

// The scorer of that name, and before it the one that collects the importance matrix, where that is needed.
class RunScorers {
 public:
  static absl::StatusOr<RunScorers> Create(const std::string& name, const ScorerInput& input);
  const Scorers& all() const { return *all_; }
  // What the named scorer found, and which variant of all() is its first.
  ScoreTerms terms() const { return named_->terms(); }
  // What was collected, where that was needed; else nothing.
  const Imatrix& collected() const { return collects_->imatrix(); }
  int first_variant() const { return all_->needs().count() - named_->needs().count(); }

 private:
  std::unique_ptr<ImatrixScorer> collects_;
  std::unique_ptr<Scorer> named_;
  std::unique_ptr<Scorers> all_;
};

}  // namespace autoscheme
