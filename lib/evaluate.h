// Evaluation for those who have more than a host gives: verify.cc and refine.cc.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/evaluate.h"
#include "autoscheme/scheme_generator.h"
#include "scorers/imatrix.h"

namespace autoscheme {

// What an evaluation takes over from the generator that it is made for.
struct OfGenerator {
  const Imatrix* collected = nullptr;  // weighs k-quants where Options::imatrix_file is empty; null: unweighed
  uint64_t floor_bytes = 0;            // what the process held before it scored; 0: plans go by what it holds now
};

// As Evaluate, which is this for nobody. With a floor the plan is the same before the scoring and after it.
absl::StatusOr<Evaluation> EvaluateFor(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                       const Calibration& tokens, const std::vector<NamedRecipe>& recipes,
                                       const EvaluateOptions& evaluate, const OfGenerator& of);

// What evaluating `count` recipes of the options' menu, yet to be chosen, would hold and read, by assumed rates of the
// machine. Errors: as Evaluate before its work begins.
absl::StatusOr<Plan> PlanEvaluations(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                     const Calibration& tokens, int64_t count, const OfGenerator& of);

// Several evaluations that are told of as one: which one this is, and what those before it have cost.
struct PartOfStages {
  size_t part = 0, parts = 1;
  RunStats before;
};

// The stages of an evaluation under a name of its own: "verify forward".
Context NamingStages(Context context, const std::string& name, const PartOfStages& part = {});

}  // namespace autoscheme
