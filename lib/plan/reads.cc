#include "plan/reads.h"

#include <vector>

#include "plan/calibration_ids.h"
#include "plan/micro_batches.h"
#include "plan/schedule.h"
#include "plan/units.h"

namespace autoscheme {
namespace {

// Times that the weight of one linear is read in all passes when it comes by tiles. `recomputes`: how often its unit
// runs forward again.
int64_t TiledUses(const Unit::Linear& linear, int recomputes, const BatchShape& shape, const ScorerNeeds& needs) {
  const int64_t micro_batches = static_cast<int64_t>(shape.micro_batches().size());
  int64_t uses = 0;
  for (const VariantNeeds& variant : needs.variants) {
    const LinearNeeds& asked = variant.linears[linear.layer->index];
    const int64_t pass = micro_batches + asked.whole_weight;
    uses += pass;
    if (variant.forward_only) continue;
    uses += pass * (1 + recomputes) + (linear.recomputed ? micro_batches : 0) + asked.whole_candidates;
    // A gradient that was summed over micro-batches meets the weight once more when the batch ends.
    if (asked.weight_gradient && shape.micro_batch_rows > 0) uses += shape.batches();
  }
  return uses;
}

}  // namespace

int HeadPasses(const MetaSkeleton& skeleton, const ExecutionPlan& plan, const ScorerNeeds& needs) {
  if (needs.with_gradients() == 0 && !needs.compares_logits) return 0;
  bool gradient = plan.head_shows, whole = plan.head_prepares;
  for (const VariantNeeds& variant : needs.variants) {
    const LinearNeeds& head = variant.linears[skeleton.head().index];
    gradient = gradient || head.scored;
    whole = whole || head.whole_weight || head.whole_candidates;
  }
  return 1 + gradient + whole;
}

uint64_t PlannedReadBytes(const MetaSkeleton& skeleton, const Calibration& calibration, const ExecutionPlan& plan,
                          const ScorerNeeds& needs) {
  const bool gradients = needs.with_gradients() > 0;
  const BatchShape shape{calibration.nsamples, calibration.seqlen, plan.batch_size, plan.micro_batch_rows};
  const std::vector<Unit> units = MakeUnits(skeleton, plan.sublayers_per_unit);
  const int count = static_cast<int>(units.size());
  const std::vector<int> recomputes = ScheduleOf(plan, count, gradients).Recomputes();
  uint64_t bytes = 0;
  for (int u = 0; u < count; ++u) {
    const bool cached = u + plan.cached_units >= count;
    const uint64_t passes = gradients && !cached ? 2 + recomputes[u] : 1;
    bytes += units[u].bytes * passes;
    if (!plan.tiled) continue;
    for (const Unit::Linear& linear : units[u].linears) {
      bytes += linear.layer->weight->bytes * (TiledUses(linear, recomputes[u], shape, needs) - passes);
    }
  }
  const LinearLayer& head = skeleton.head();
  bytes += head.weight->bytes * HeadPasses(skeleton, plan, needs);
  // What is small every lane reads for itself.
  uint64_t small = DistinctIds(calibration).size() * (skeleton.embedding()->bytes / skeleton.embedding()->shape[0]);
  if ((gradients || needs.compares_logits) && head.bias != nullptr) small += head.bias->bytes;
  for (const TensorInfo* info : skeleton.other_tensors()) small += info->bytes;
  return bytes + small * static_cast<uint64_t>(plan.lanes);
}

}  // namespace autoscheme
