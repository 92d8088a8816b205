// Evaluation for those who have more than a host gives: pipeline.cc and verify.cc.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/evaluate.h"
#include "autoscheme/scheme_generator.h"
#include "scorers/imatrix.h"

namespace autoscheme {

// As Evaluate, but k-quants are weighed by `collected` where Options::imatrix_file is empty. Borrowed; null: unweighed.
absl::StatusOr<Evaluation> EvaluateWeighed(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                           const Calibration& tokens, const std::vector<NamedRecipe>& recipes,
                                           const EvaluateOptions& evaluate, const Imatrix* collected);

// What evaluating these recipes would hold and read, by assumed rates of the machine. Errors: as Evaluate before its
// work begins.
absl::StatusOr<Plan> PlanEvaluation(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                    const Calibration& tokens, const std::vector<NamedRecipe>& recipes);

}  // namespace autoscheme
