// The memory plan: which choices fit the budget, what they hold at the peak, and the least budget that would do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "autoscheme/calibration.h"
#include "autoscheme/meta_skeleton.h"
#include "autoscheme/scheme_generator.h"
#include "base/system_limits.h"
#include "plan/execution_plan.h"
#include "plan/machine_rates.h"
#include "plan/precision.h"
#include "plan/scorer_needs.h"
#include "planner/fitted.h"

namespace autoscheme {

// The device that a run computes on, where that is not the processor.
struct DeviceInput {
  std::string name = "cuda:0";
  uint64_t free_bytes = 0;     // beside this process's context; 0 = it is not at hand
  int64_t max_vram_bytes = 0;  // as in Options
  int lanes = 1;               // devices that compute some variants each; the figures are those of each
};

// What a run is asked to do, as far as its cost depends on it. Pointers are borrowed.
struct PlanInput {
  const MetaSkeleton* skeleton = nullptr;
  const Calibration* calibration = nullptr;
  const ScorerNeeds* needs = nullptr;      // where there are lanes: of the one that has most to do
  const ScorerNeeds* all_needs = nullptr;  // those of all lanes together; null: there is one
  int64_t batch_size = 8;
  Precision precision;
  int64_t max_ram_bytes = 0;  // as in Options
  uint64_t floor_bytes = 0;   // what the process holds before the run; 0 when the budget is the library's alone
  bool may_spill = true;      // to disk
  // What a budget that nobody has named is taken from, and a named one is compared with; nothing = unknown.
  std::optional<FreeMemory> free;
  int threads = 1;
  std::optional<DeviceInput> device;
  double quantize_s = fitted::kQuantizeSeconds;  // for one weight, by the dearest scheme
};

// What floor_bytes should be a multiple of, rounded up: two starts of one program differ by some hundred KiB, and their
// plans should not. The least budget that is named leaves room for one step more.
inline constexpr uint64_t kFloorStepBytes = uint64_t{4} << 20;

struct PlannedRun {
  Plan plan;
  ExecutionPlan choice;
  std::string warning;  // about the budget; empty for none
};

// The budget of runs whose host names none is at least this.
inline constexpr uint64_t kFrugalBytes = uint64_t{1} << 30;

// The fastest choice, by estimate, that fits. RESOURCE_EXHAUSTED, naming the smallest max_ram_bytes that
// would do, when none does. A named budget that is more than what is free is kept to, with a warning. Where nobody
// named a budget and half of what is free is too little, the least that works is taken with a warning, as long as that
// much is free.
absl::StatusOr<PlannedRun> PlanRun(const PlanInput& input, const MachineRates& rates = {});

}  // namespace autoscheme
