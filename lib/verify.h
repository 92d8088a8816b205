// Verification: recipes measured beside the uniform ones that cost no more. For pipeline.cc.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "evaluate.h"

namespace autoscheme {

// What SchemeGenerator::PlanVerify says.
absl::StatusOr<Plan> PlanVerification(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                      const Calibration& held_back, int64_t recipes, const OfGenerator& of);

// What SchemeGenerator::Verify says. `select` are the options that the recipes were selected by, but for targets.
absl::Status VerifyRecipes(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                           SelectOptions select, const ScoreTable& table, const Calibration& held_back,
                           const OfGenerator& of, std::vector<Recipe>& recipes, RunStats& stats);

}  // namespace autoscheme
