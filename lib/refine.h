// Refinement: recipes near a chosen one are measured, and the best of them takes its place. For pipeline.cc.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "evaluate.h"

namespace autoscheme {

// What SchemeGenerator::PlanRefine says.
absl::StatusOr<Plan> PlanRefinement(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                    const Calibration& held_back, int64_t recipes, int64_t evaluations,
                                    const OfGenerator& of);

// What SchemeGenerator::Refine says. `select` are the options that the recipes were selected by, but for targets.
absl::Status RefineRecipes(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                           const SelectOptions& select, const ScoreTable& table, const Calibration& held_back,
                           int64_t evaluations, const OfGenerator& of, std::vector<Recipe>& recipes, RunStats& stats);

}  // namespace autoscheme
