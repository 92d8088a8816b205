// The two sweeps: every unit is read once forward and once backward (Schedule: once more if it is recomputed), whatever
// the number of variants and batches.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/calibration.h"
#include "autoscheme/meta_skeleton.h"
#include "exec/run_resources.h"
#include "exec/scorer.h"
#include "plan/execution_plan.h"

namespace autoscheme {

// Mean cross entropy (nats): losses[variant][batch]; nothing for forward-only variants.
using Losses = std::vector<std::vector<double>>;

// Runs the calibration through all variants of the scorers, and fills the run's statistics. Not re-entrant on one
// scorer. Errors: CANCELLED (checked per variant and micro-batch), DATA_LOSS (NaN or infinite weights or activations,
// truncated files), INVALID_ARGUMENT (ids outside the vocabulary, with row and column), RESOURCE_EXHAUSTED, and what
// the scorers return. Throws what LibTorch throws (out of memory); nothing leaks.
absl::StatusOr<Losses> RunSweeps(RunResources& run, const MetaSkeleton& skeleton, const Calibration& calibration,
                                 const ExecutionPlan& plan, const Scorers& scorers);

}  // namespace autoscheme
