#include "planner/planner.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "planner/cost_model.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kNoLimit = ~uint64_t{0};

std::string MiBText(uint64_t bytes) { return absl::StrFormat("%d bytes (%d MiB)", bytes, (bytes + kMiB - 1) / kMiB); }

// What grows and shrinks together with the room that there is.
struct Sizes {
  uint64_t chunk_bytes;
  int64_t head_tile_rows;
};

// On a device: weights always come by whole units, what passes stays there, and inputs go where there is room.
std::vector<ExecutionPlan> DeviceChoices(const PlanInput& in) {
  std::vector<ExecutionPlan> choices;
  ExecutionPlan common;
  common.batch_size = in.batch_size;
  common.lanes = in.device->lanes;
  if (common.lanes > 1) {
    for (const VariantNeeds& variant : in.all_needs->variants) {
      const LinearNeeds& head = variant.linears[in.skeleton->head().index];
      common.head_shows = common.head_shows || head.scored;
      common.head_prepares = common.head_prepares || head.whole_weight || head.whole_candidates;
    }
  }
  const auto add_stores = [&](ExecutionPlan choice) {
    choice.inputs_on_device = true;
    choices.push_back(choice);
    choice.inputs_on_device = false;
    choices.push_back(choice);
    choice.spilled = Spilled::kInputs;
    if (in.may_spill) choices.push_back(choice);
  };
  for (const auto& [sublayers, cache] : {std::pair(0, true), {0, false}, {1, true}, {1, false}}) {
    for (const int slots : {2, 1}) {
      for (const Sizes& sizes : {Sizes{128 * kMiB, 8192}, {64 * kMiB, 8192}, {32 * kMiB, 4096}, {8 * kMiB, 1024}}) {
        for (int64_t rows = in.batch_size; rows >= 1; rows = rows == 1 ? 0 : (rows + 1) / 2) {
          if (rows != in.batch_size && in.needs->activations_span_batch) continue;
          ExecutionPlan choice = common;
          choice.sublayers_per_unit = sublayers;
          choice.unit_slots = slots;
          choice.head_tile_rows = sizes.head_tile_rows;
          choice.micro_batch_rows = rows == in.batch_size ? 0 : rows;
          choice.cache_weights = cache;
          choice.chunk_bytes = sizes.chunk_bytes;
          add_stores(choice);
        }
      }
    }
  }
  return choices;
}

// All that the plan may choose, except what is saved for speed, which fills the room that is left.
std::vector<ExecutionPlan> Choices(const PlanInput& in, const CostModel& costs) {
  std::vector<ExecutionPlan> choices;
  const auto for_each_store = [&](ExecutionPlan choice, int units) {
    for (const Spilled spilled : {Spilled::kNothing, Spilled::kInputs, Spilled::kEverything}) {
      if (spilled != Spilled::kNothing && !in.may_spill) continue;
      choice.spilled = spilled;
      // The disk has room for all inputs: computing some of them again would only be slower.
      const int longest = choice.inputs_in_ram() ? std::max(units / 2, 1) : 1;
      for (int interval = 1; interval <= longest; interval += std::max(interval / 2, 1)) {
        choice.input_interval = interval;
        choices.push_back(choice);
      }
    }
  };
  using Mode = std::tuple<bool, int, bool>;
  for (const auto& [tiled, sublayers, cache] : {Mode{false, 0, true}, Mode{false, 0, false}, Mode{false, 1, true},
                                                Mode{false, 1, false}, Mode{true, 1, false}}) {
    for (const int slots : {2, 1}) {
      for (const Sizes& sizes : {Sizes{8 * kMiB, 8192}, {8 * kMiB, 4096}, {4 * kMiB, 2048}, {kMiB, 512}}) {
        for (int64_t rows = in.batch_size; rows >= 1; rows = rows == 1 ? 0 : (rows + 1) / 2) {
          if (rows != in.batch_size && in.needs->activations_span_batch) continue;
          ExecutionPlan choice;
          choice.batch_size = in.batch_size;
          choice.tiled = tiled;
          choice.sublayers_per_unit = sublayers;
          choice.unit_slots = slots;
          choice.head_tile_rows = sizes.head_tile_rows;
          choice.micro_batch_rows = rows == in.batch_size ? 0 : rows;
          choice.cache_weights = cache;
          choice.chunk_bytes = sizes.chunk_bytes;
          for_each_store(choice, costs.units(sublayers));
        }
      }
    }
  }
  return choices;
}

// Spends what `limit` leaves on activations that need not be recomputed, then on weights that need not be read again.
// (Where nobody named a budget the page cache keeps those.)
void SaveForSpeed(const PlanInput& in, const CostModel& costs, uint64_t limit, ExecutionPlan& choice) {
  if (in.device.has_value() || choice.tiled || costs.PeakBytes(choice) > limit) return;
  const int units = costs.units(choice.sublayers_per_unit);
  const auto most = [&](int& knob) {
    int fits = 0, above = units + 1;  // PeakBytes grows with the knob
    while (above - fits > 1) {
      knob = (fits + above) / 2;
      (costs.PeakBytes(choice) <= limit ? fits : above) = knob;
    }
    knob = fits;
  };
  if (in.needs->with_gradients() > 0) {
    most(choice.saved_units);
    if (in.max_ram_bytes > 0) most(choice.cached_units);
  }
}

Plan Describe(const CostModel& costs, const ExecutionPlan& choice, const MachineRates& rates) {
  Plan plan;
  plan.resident = costs.Footprint(choice);
  plan.peak_bytes = costs.PeakBytes(choice);
  plan.inputs_in_ram = choice.inputs_in_ram();
  plan.input_interval = choice.input_interval;
  plan.spill_bytes = costs.SpillBytes(choice);
  plan.read_bytes = costs.ReadBytes(choice);
  plan.flops = costs.Flops(choice);
  plan.estimated_s = costs.Seconds(choice, rates);
  plan.slots = choice.unit_slots;
  plan.micro_batch_rows = costs.shape(choice).most_rows();
  plan.saved_units = choice.saved_units;
  plan.cached_units = choice.cached_units;
  plan.units = costs.units(choice.sublayers_per_unit);
  plan.tile_bytes = choice.tiled ? choice.chunk_bytes : 0;
  return plan;
}

struct DeviceBudget {
  uint64_t limit = 0;
  std::string reason;
  uint64_t least = kNoLimit;  // the smallest that would do
};

absl::StatusOr<DeviceBudget> TakeDeviceBudget(const DeviceInput& device) {
  if (device.max_vram_bytes > 0)
    return DeviceBudget{static_cast<uint64_t>(device.max_vram_bytes), "as given", kNoLimit};
  if (device.free_bytes == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("device ", device.name, " is not here to say what memory it has: give max_vram_bytes"));
  }
  return DeviceBudget{static_cast<uint64_t>(fitted::kDeviceShare * static_cast<double>(device.free_bytes)),
                      "nine tenths of what the device has free", kNoLimit};
}

// Those of a device's choices that keep to its budget, whose least is found. RESOURCE_EXHAUSTED, naming that, if none
// does.
absl::StatusOr<std::vector<ExecutionPlan>> DeviceChoicesWithin(const PlanInput& in, const CostModel& costs,
                                                               DeviceBudget& budget) {
  std::vector<ExecutionPlan> within;
  for (const ExecutionPlan& choice : DeviceChoices(in)) {
    const uint64_t peak = costs.DeviceFootprint(choice).peak;
    budget.least = std::min(budget.least, peak);
    if (peak <= budget.limit) within.push_back(choice);
  }
  if (!within.empty()) return within;
  return absl::ResourceExhaustedError(
      absl::StrCat("a budget of ", MiBText(budget.limit), " of the memory of ", in.device->name,
                   " is too small for this model, menu and batch; the smallest max_vram_bytes that works is ",
                   MiBText(budget.least), ". A smaller batch_size or seqlen needs less"));
}

// All choices, judged.
class Candidates {
 public:
  Candidates(const PlanInput& in, const CostModel& costs, std::vector<ExecutionPlan> choices)
      : costs_(costs), choices_(std::move(choices)) {
    for (const ExecutionPlan& choice : choices_) peaks_.push_back(costs.PeakBytes(choice));
    least_ = *std::min_element(peaks_.begin(), peaks_.end()) + (in.floor_bytes > 0 ? kFloorStepBytes : 0);
  }
  // The smallest budget that is sure to do.
  uint64_t least() const { return least_; }

  // The fastest by estimate among those that keep to the limit; null if none does.
  const ExecutionPlan* Fastest(uint64_t limit) const {
    const ExecutionPlan* best = nullptr;
    double best_s = 0;
    for (size_t i = 0; i < choices_.size(); ++i) {
      const ExecutionPlan& choice = choices_[i];
      if (peaks_[i] > limit) continue;
      // Tiles read the weights over and over, which a slow disk would show: not while anything else fits.
      if (best != nullptr && choice.tiled && !best->tiled) continue;
      const double seconds = costs_.Seconds(choice, {});
      if (best != nullptr && seconds >= best_s) continue;
      best = &choice, best_s = seconds;
    }
    return best;
  }

 private:
  const CostModel& costs_;
  const std::vector<ExecutionPlan> choices_;
  std::vector<uint64_t> peaks_;
  uint64_t least_ = 0;
};

struct Budget {
  uint64_t limit = kNoLimit;
  uint64_t for_speed = kNoLimit;  // what may be filled with what only saves time
  std::string reason, warning;
};

std::string WhoHas(const FreeMemory& free) {
  return free.cgroup.empty() ? "the system has" : absl::StrCat("cgroup ", Quoted(free.cgroup), " has");
}

absl::StatusOr<Budget> TakeBudget(const PlanInput& in, const CostModel& costs, const Candidates& candidates) {
  Budget budget;
  if (in.max_ram_bytes > 0) {
    budget.limit = budget.for_speed = static_cast<uint64_t>(in.max_ram_bytes);
    budget.reason = "as given";
    // What the process holds before the run is no longer free.
    if (in.free.has_value() && budget.limit > in.floor_bytes && budget.limit - in.floor_bytes > in.free->bytes) {
      budget.warning = absl::StrCat(
          "the budget of ", MiBText(budget.limit), " is more than the ", MiBText(in.free->bytes), " that ",
          WhoHas(*in.free), " free",
          in.floor_bytes > 0 ? absl::StrCat(" beside the ", MiBText(in.floor_bytes), " that this process holds already")
                             : "",
          ": a run that uses it may swap, or be killed");
    }
    return budget;
  }
  const uint64_t full_speed = costs.PeakBytes(*candidates.Fastest(kNoLimit));
  if (in.max_ram_bytes < 0) {
    budget.for_speed = full_speed + (in.free.has_value() ? in.free->bytes / 4 : 0);
    budget.reason = "no limit; a quarter of what is free may serve to save time";
    return budget;
  }
  budget.limit = std::max(kFrugalBytes, full_speed);
  budget.reason = full_speed > kFrugalBytes ? "what full speed needs without saved activations" : "the default";
  if (in.free.has_value() && budget.limit > in.free->bytes / 2) {
    const std::string whose = WhoHas(*in.free);
    const uint64_t held = std::min(in.floor_bytes, candidates.least());  // is in memory already
    if (candidates.least() - held > in.free->bytes) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "this run needs at least ", MiBText(candidates.least()),
          held > 0 ? absl::StrCat(", of which the process holds ", MiBText(held), " already,") : "", " and ", whose,
          " only ", MiBText(in.free->bytes), " free: free some, or give a smaller batch_size or seqlen",
          in.may_spill ? "" : ", or let it spill"));
    }
    budget.limit = in.free->bytes / 2;
    budget.reason = absl::StrCat("half of what ", whose, " free");
    if (candidates.least() > budget.limit) {
      budget.limit = candidates.least();
      budget.reason = absl::StrCat("the least that works; more than half of what ", whose, " free");
      budget.warning = absl::StrCat("this run needs at least ", MiBText(candidates.least()), ", more than half of the ",
                                    MiBText(in.free->bytes), " that ", whose, " free");
    }
  }
  budget.for_speed = budget.limit;
  return budget;
}

// What the run will hold on the device, and what its pools are made for.
void DescribeDevice(const PlanInput& in, const CostModel& costs, const DeviceBudget& budget, PlannedRun& run) {
  CostModel::DeviceSizes sizes = costs.DeviceFootprint(run.choice);
  run.choice.device_pool_bytes = sizes.pool, run.choice.device_weight_pool_bytes = sizes.weight_pool;
  if (in.device->lanes > 1) {
    PlanInput all = in;
    all.needs = in.all_needs;
    run.plan.flops = CostModel(all).Flops(run.choice);
    run.plan.spill_bytes *= static_cast<uint64_t>(in.device->lanes);
  }
  run.choice.staging_bytes = costs.StagingBytes(run.choice);
  run.plan.device = in.device->name;
  run.plan.vram_resident = std::move(sizes.items), run.plan.vram_peak_bytes = sizes.peak;
  run.plan.vram_budget_bytes = budget.limit, run.plan.vram_budget_reason = budget.reason;
  run.plan.inputs_in_vram = run.choice.inputs_on_device;
  // A device is so fast that the disk decides: the second sweep reads from the page cache where that has room.
  const uint64_t cached = in.skeleton->total_bytes() + in.skeleton->total_bytes() / 8 + run.plan.peak_bytes;
  run.choice.drop_page_cache = !in.free.has_value() || in.free->bytes < cached;
  run.plan.vram_least_bytes = budget.least;
}

absl::Status TooSmall(const PlanInput& in, uint64_t least) {
  return absl::ResourceExhaustedError(absl::StrFormat(
      "a budget of %d bytes (%.0f MiB) is too small for this model, menu and batch; the smallest that works is %s. "
      "A smaller batch_size or seqlen needs less%s%s",
      in.max_ram_bytes, static_cast<double>(in.max_ram_bytes) / kMiB, MiBText(least),
      in.may_spill ? "" : ", and so does a run that may spill",
      in.max_ram_bytes < static_cast<int64_t>(kMiB) ? ". A budget without a unit is in bytes" : ""));
}

}  // namespace

absl::StatusOr<PlannedRun> PlanRun(const PlanInput& input, const MachineRates& rates) {
  const CostModel costs(input);
  DeviceBudget device;
  std::vector<ExecutionPlan> choices;
  if (input.device.has_value()) {
    AUTOSCHEME_ASSIGN_OR_RETURN(device, TakeDeviceBudget(*input.device));
    AUTOSCHEME_ASSIGN_OR_RETURN(choices, DeviceChoicesWithin(input, costs, device));
  } else {
    choices = Choices(input, costs);
  }
  const Candidates candidates(input, costs, std::move(choices));
  AUTOSCHEME_ASSIGN_OR_RETURN(const Budget budget, TakeBudget(input, costs, candidates));
  const ExecutionPlan* best = candidates.Fastest(budget.limit);
  if (best == nullptr) return TooSmall(input, candidates.least());
  PlannedRun run;
  run.choice = *best;
  run.warning = budget.warning;
  SaveForSpeed(input, costs, budget.for_speed, run.choice);
  run.plan = Describe(costs, run.choice, rates);
  run.plan.least_bytes = candidates.least();
  run.plan.budget_bytes = budget.limit == kNoLimit ? 0 : budget.limit;
  run.plan.budget_reason = budget.reason;
  if (input.device.has_value()) DescribeDevice(input, costs, device, run);
  return run;
}

}  // namespace autoscheme
