// The head of an evaluation: what the logits of each variant say of each token, by one pass over vocabulary tiles.
#pragma once

#include "absl/status/status.h"
#include "autoscheme/calibration.h"
#include "autoscheme/meta_skeleton.h"
#include "exec/head.h"
#include "exec/run_resources.h"
#include "exec/scorer.h"
#include "plan/execution_plan.h"

namespace autoscheme {

// For ScorerNeeds::compares_logits: shows the scorer the predictions of all variants, variant 0 among them. Of `input`
// the shape, `hidden` and `step` are used.
//
// With a a token's logits under variant 0 and b those under another one,
//     KL = sum(softmax(a) (a - b)) - lse(a) + lse(b),   lse(x) = log(sum(exp(x))),
// so that running maxima and rescaled sums over vocabulary tiles (online softmax) give it while each tile is read once.
// Logits are those of the run's number format; all that is made of them is float64, since KL is a small difference of
// large numbers. A head whose quantizer must see all of it is read once more, beforehand. Errors: DATA_LOSS where
// logits are NaN or infinite, with row and position.
absl::Status RunEvalHead(RunResources& run, const MetaSkeleton& skeleton, const Calibration& calibration,
                         const ExecutionPlan& plan, const Scorers& scorers, const HeadInput& input);

}  // namespace autoscheme
