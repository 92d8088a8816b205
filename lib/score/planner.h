// The memory plan: which choices fit the budget, what they hold at the peak, and the least budget that would do.
#ifndef AUTOSCHEME_SCORE_PLANNER_H_
#define AUTOSCHEME_SCORE_PLANNER_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "autoscheme/meta_skeleton.h"
#include "autoscheme/scheme_generator.h"
#include "score/boundaries.h"

namespace autoscheme {

struct PlanInput {
  const MetaSkeleton* skeleton = nullptr;
  BatchShape shape;
  int trajectories = 1;
  int element_bytes = 4;          // of the compute dtype
  uint64_t max_ram_bytes = 0;     // 0 = no limit
  uint64_t floor_bytes = 0;       // what the process holds before the run; 0 when the budget is the library's alone
  uint64_t read_bytes = 0;
};

// The knobs that the plan sets.
struct PlanChoice {
  bool boundaries_in_ram = true;
  bool cache_weights = true;
  int block_slots = 2;
  int64_t head_tile_rows = 8192;
  uint64_t chunk_bytes = uint64_t{8} << 20;
};

struct PlannedRun {
  Plan plan;
  PlanChoice choice;
};

// Tries a fixed ladder of choices, fastest first, and takes the first that fits. RESOURCE_EXHAUSTED, naming the smallest
// max_ram_bytes that would do, when none does.
absl::StatusOr<PlannedRun> PlanRun(const PlanInput& input);

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCORE_PLANNER_H_
