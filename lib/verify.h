// Verification: recipes measured beside the uniform ones that cost no more. For pipeline.cc.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "autoscheme/evaluate.h"

namespace autoscheme {

// What SchemeGenerator::Verify says. `select` are the options that the recipes were selected by, but for targets.
absl::Status VerifyRecipes(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                           SelectOptions select, const ScoreTable& table, const Calibration& held_back,
                           std::vector<Recipe>& recipes);

}  // namespace autoscheme
