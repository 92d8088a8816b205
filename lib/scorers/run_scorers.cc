#include "scorers/run_scorers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "scorers/delta_loss.h"
#include "scorers/fisher.h"

namespace autoscheme {
namespace {

struct NamedScorer {
  const char* name;
  absl::StatusOr<std::unique_ptr<Scorer>> (*make)(const ScorerInput& input);
};
constexpr NamedScorer kScorers[] = {
    {"deltaloss", MakeDeltaLoss}, {"fisher", MakeFisher}, {"fisher-labels", MakeFisherOfLabels}};

const NamedScorer* FindScorer(const std::string& name) {
  const auto found =
      std::find_if(std::begin(kScorers), std::end(kScorers), [&](const NamedScorer& s) { return s.name == name; });
  return found == std::end(kScorers) ? nullptr : found;
}

bool ScoresHead(const std::vector<LayerInfo>& layers) {
  return std::any_of(layers.begin(), layers.end(),
                     [](const LayerInfo& l) { return l.is_head && !l.fixed.has_value(); });
}

}  // namespace

absl::StatusOr<std::string> ScorerNamed(const std::string& name, bool reference_rules) {
  if (name == "auto") return std::string(reference_rules ? "deltaloss" : "fisher");
  if (FindScorer(name) != nullptr) return name;
  const auto append = [](std::string* out, const NamedScorer& scorer) { out->append(scorer.name); };
  return absl::InvalidArgumentError(
      absl::StrCat("option scorer is ", Quoted(name), "; there is: auto, ", absl::StrJoin(kScorers, ", ", append)));
}

absl::StatusOr<RunScorers> RunScorers::Create(const std::string& name, const ScorerInput& input) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string own_name, ScorerNamed(name, input.reference_rules));
  RunScorers run;
  run.collects_ = std::make_unique<ImatrixScorer>(*input.skeleton, ScoresHead(input.layers));
  ScorerInput with_imatrix = input;
  if (input.imatrix == nullptr) with_imatrix.imatrix = &run.collects_->imatrix();
  AUTOSCHEME_ASSIGN_OR_RETURN(run.named_, FindScorer(own_name)->make(with_imatrix));
  std::vector<Scorer*> scorers;
  if (run.named_->needs().reads_imatrix && input.imatrix == nullptr) scorers.push_back(run.collects_.get());
  scorers.push_back(run.named_.get());
  run.all_ = std::make_unique<Scorers>(std::move(scorers));
  return run;
}

}  // namespace autoscheme
