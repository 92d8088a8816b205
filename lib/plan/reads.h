// Bytes that a run reads of the checkpoint, known before it starts.
#pragma once

#include <cstdint>

#include "autoscheme/calibration.h"
#include "autoscheme/meta_skeleton.h"
#include "plan/execution_plan.h"
#include "plan/scorer_needs.h"

namespace autoscheme {

// Times that the head is read: never where nothing is differentiated and no logits are compared, else once, once more
// to form the gradient of its weight, and once before where a quantizer must see all of the weight first.
int HeadPasses(const MetaSkeleton& skeleton, const ExecutionPlan& plan, const ScorerNeeds& needs);

// Every unit twice (once where nothing is differentiated or its weights are cached, once more for each time that it is
// recomputed), the head HeadPasses times, the rows of the embedding that occur, and the tensors outside the blocks.
// Tiled weights count once for every use. A run reports what it has read beside this number, and tests hold them equal.
uint64_t PlannedReadBytes(const MetaSkeleton& skeleton, const Calibration& calibration, const ExecutionPlan& plan,
                          const ScorerNeeds& needs);

}  // namespace autoscheme
