#include "score/planner.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "score/cost_model.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Everything that the plan may choose but what is kept for speed: that fills the room which is left.
std::vector<PlanChoice> Choices(const PlanInput& in, const CostModel& costs) {
  struct Sizes {
    uint64_t chunk_bytes;
    int64_t head_tile_rows;
  };
  struct Stores {
    bool boundaries_in_ram, passing_in_ram;
  };
  std::vector<PlanChoice> choices;
  const auto for_each_store = [&](PlanChoice choice, int units) {
    for (const Stores& stores : {Stores{true, true}, {false, true}, {false, false}}) {
      if (!stores.boundaries_in_ram && !in.may_spill) continue;
      choice.sweep.boundaries_in_ram = stores.boundaries_in_ram;
      choice.sweep.passing_in_ram = stores.passing_in_ram;
      // The disk has room for all inputs: computing some of them again would only be slower.
      const int longest = stores.boundaries_in_ram ? std::max(units / 2, 1) : 1;
      for (int interval = 1; interval <= longest; interval += std::max(interval / 2, 1)) {
        choice.sweep.boundary_interval = interval;
        choices.push_back(choice);
      }
    }
  };
  for (const bool tiled : {false, true}) {
    for (const int segments : {0, 1}) {
      const int units = costs.units(segments);
      for (const bool cache : {true, false}) {
        for (const int slots : {2, 1}) {
          for (const Sizes& sizes : {Sizes{8 * kMiB, 8192}, {8 * kMiB, 4096}, {4 * kMiB, 2048}, {kMiB, 512}}) {
            for (int64_t rows = in.batch_size; rows >= 1; rows = rows == 1 ? 0 : (rows + 1) / 2) {
              if (tiled && (cache || segments == 0)) continue;
              if (rows != in.batch_size && !in.may_slice) continue;
              PlanChoice choice;
              choice.sweep.batch_size = in.batch_size;
              choice.sweep.precision = in.precision;
              choice.sweep.tiled = tiled;
              choice.sweep.segments_per_unit = segments;
              choice.sweep.unit_slots = slots;
              choice.sweep.head_tile_rows = sizes.head_tile_rows;
              choice.sweep.slice_rows = rows == in.batch_size ? 0 : rows;
              choice.cache_weights = cache;
              choice.chunk_bytes = sizes.chunk_bytes;
              for_each_store(choice, units);
            }
          }
        }
      }
    }
  }
  return choices;
}

// Spends what `limit` leaves on activations that need not be recomputed, then on weights that need not be read again.
// (Without a limit the page cache keeps those.)
void KeepForSpeed(const PlanInput& in, const CostModel& costs, uint64_t limit, PlanChoice& choice) {
  if (choice.sweep.tiled || costs.PeakBytes(choice) > limit) return;
  const int units = costs.sizes(choice).count;
  const auto most = [&](int& knob) {
    int fits = 0, above = units + 1;  // PeakBytes grows with the knob
    while (above - fits > 1) {
      knob = (fits + above) / 2;
      (costs.PeakBytes(choice) <= limit ? fits : above) = knob;
    }
    knob = fits;
  };
  if (in.measurement->trajectories() > in.measurement->forward_only_trajectories()) {
    most(choice.sweep.kept_units);
    if (in.max_ram_bytes != 0) most(choice.sweep.cached_units);
  }
}

Plan Describe(const CostModel& costs, const PlanChoice& choice, const MachineRates& rates) {
  Plan plan;
  plan.resident = costs.Footprint(choice);
  plan.peak_bytes = costs.PeakBytes(choice);
  plan.boundaries_in_ram = choice.sweep.boundaries_in_ram;
  plan.boundary_interval = choice.sweep.boundary_interval;
  plan.spill_bytes = costs.SpillBytes(choice);
  plan.read_bytes = costs.ReadBytes(choice);
  plan.flops = costs.Flops(choice);
  plan.estimated_s = costs.Seconds(choice, rates);
  plan.slots = choice.sweep.unit_slots;
  plan.slice_rows = costs.shape(choice).largest_slice();
  plan.kept_units = choice.sweep.kept_units;
  plan.cached_units = choice.sweep.cached_units;
  plan.units = costs.sizes(choice).count;
  plan.tile_bytes = choice.sweep.tiled ? choice.chunk_bytes : 0;
  return plan;
}

}  // namespace

absl::StatusOr<PlannedRun> PlanRun(const PlanInput& input, const MachineRates& rates) {
  const uint64_t no_limit = ~uint64_t{0};
  const uint64_t limit = input.max_ram_bytes != 0 ? input.max_ram_bytes : no_limit;
  uint64_t least = no_limit;
  const PlanChoice* best = nullptr;
  double best_s = 0;
  const CostModel costs(input);
  const std::vector<PlanChoice> choices = Choices(input, costs);
  for (const PlanChoice& choice : choices) {
    const uint64_t peak = costs.PeakBytes(choice);
    least = std::min(least, peak);
    if (peak > limit) continue;
    // Tiles read the weights over and over, which a slow disk would show: not while anything else fits.
    if (best != nullptr && choice.sweep.tiled && !best->sweep.tiled) continue;
    const double seconds = costs.Seconds(choice, {});
    if (best != nullptr && seconds >= best_s) continue;
    best = &choice, best_s = seconds;
  }
  if (input.floor_bytes > 0) least += kFloorStepBytes;
  if (best == nullptr) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "a budget of %d bytes (%.0f MiB) is too small for this model, menu and batch; the smallest that works is %d bytes "
        "(%d MiB). A smaller batch_size or seqlen needs less%s%s",
        input.max_ram_bytes, static_cast<double>(input.max_ram_bytes) / kMiB, least, (least + kMiB - 1) / kMiB,
        input.may_spill ? "" : ", and so does a run that may spill",
        input.max_ram_bytes < kMiB ? ". A budget without a unit is in bytes" : ""));
  }
  PlannedRun run;
  run.choice = *best;
  const uint64_t room = input.max_ram_bytes != 0 ? limit : costs.PeakBytes(*best) + input.available_bytes / 4;
  KeepForSpeed(input, costs, room, run.choice);
  run.plan = Describe(costs, run.choice, rates);
  run.plan.least_bytes = least;
  return run;
}

}  // namespace autoscheme
