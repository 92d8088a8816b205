// The cost model's numbers worked by hand for a model of two blocks. How they compare with runs is seen by
// test/pipeline/planned_memory_test.cc.
#include "planner/cost_model.h"

#include <catch2/catch.hpp>
#include <numeric>
#include <string>

#include "autoscheme/block_streamer.h"
#include "plan/reads.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

constexpr LinearNeeds kScored{/*quantizes_weight=*/true, /*whole_weight=*/false, /*weight_gradient=*/true,
                              /*scored=*/true};

// 4 rows of 8 tokens, of 32 float32 each.
struct Planned {
  explicit Planned(LinearNeeds head = {}) : needs(NeedsOf(*tiny, kScored, head)) {
    input.skeleton = tiny.skeleton.get(), input.calibration = &calibration, input.needs = &needs;
    input.batch_size = 2;
  }
  TinySkeleton tiny;
  Calibration calibration = RowsOf(4, 8, std::vector<int32_t>(32, 1));
  ScorerNeeds needs;
  PlanInput input;
};
constexpr uint64_t kHidden = 4 * 8 * 32 * 4;

uint64_t Item(const std::vector<PlanItem>& items, const std::string& name) {
  for (const PlanItem& item : items) {
    if (item.name == name) return item.bytes;
  }
  return 0;
}

TEST_CASE("saved inputs lie in memory or in the spill file") {
  const Planned planned;
  const CostModel costs(planned.input);
  ExecutionPlan plan;
  CHECK(costs.units(0) == 2);
  CHECK(costs.units(1) == 4);
  // The embedded rows and the input of the second block.
  CHECK(Item(costs.Footprint(plan), "saved inputs") == 2 * kHidden);
  CHECK(costs.SpillBytes(plan) == 0);
  plan.sublayers_per_unit = 1;
  CHECK(Item(costs.Footprint(plan), "saved inputs") == 4 * kHidden);
  plan.input_interval = 2;  // input 2, and one place for inputs 1 and 3
  CHECK(Item(costs.Footprint(plan), "saved inputs") == 3 * kHidden);
  plan = {};
  plan.spilled = Spilled::kInputs;
  CHECK(Item(costs.Footprint(plan), "saved inputs") == 0);
  CHECK(costs.SpillBytes(plan) == 2 * kHidden);
  plan.spilled = Spilled::kEverything;  // besides activations, gradients and two sums of the head
  CHECK(costs.SpillBytes(plan) == (2 + 1 + 1 + 2) * kHidden);
}

TEST_CASE("weights of a unit: as stored in two slots, dequantized once, cached where asked for") {
  const Planned planned;
  const CostModel costs(planned.input);
  ExecutionPlan plan;
  const Block& block = planned.tiny->blocks()[0];
  const uint64_t slot = BlockStreamer::SlotBytes(block.tensors).value();
  CHECK(slot >= block.bytes);
  CHECK(Item(costs.Footprint(plan), "weight slots") == 2 * slot);
  CHECK(Item(costs.Footprint(plan), "dequantized weights") == 4 * (2 * 1024 + 2 * 512 + 3 * 1536));
  CHECK(Item(costs.Footprint(plan), "cached weights") == 0);
  CHECK(Item(costs.Footprint(plan), "calibration ids") == 32 * 4);
  plan.unit_slots = 1, plan.cache_weights = false, plan.cached_units = 1;
  CHECK(Item(costs.Footprint(plan), "weight slots") == slot);
  CHECK(Item(costs.Footprint(plan), "dequantized weights") == 0);
  CHECK(Item(costs.Footprint(plan), "cached weights") == block.bytes);
  // A chunk cannot be larger than the largest weight; two stored rows of the longest beside it, and its gradient.
  CHECK(Item(costs.Footprint(plan), "row chunks") == 4 * 1536 + 2 * 2 * 48);
  CHECK(Item(costs.Footprint(plan), "gradient of a row chunk") == 4 * 1536 + 2 * 2 * 48);
  CHECK(costs.ReadBytes(plan) == PlannedReadBytes(*planned.tiny, planned.calibration, plan, planned.needs));
}

TEST_CASE("gradients of whole weights are there only where batches are cut") {
  const Planned planned;
  const CostModel costs(planned.input);
  ExecutionPlan plan;
  plan.sublayers_per_unit = 1;
  CHECK(Item(costs.Footprint(plan), "weight gradients of a batch") == 0);
  plan.micro_batch_rows = 1;
  CHECK(Item(costs.Footprint(plan), "weight gradients of a batch") == 4 * 3 * 1536);
  plan.micro_batch_rows = 2;  // a whole batch
  CHECK(Item(costs.Footprint(plan), "weight gradients of a batch") == 0);
}

TEST_CASE("the peak is the sum of its items, and grows with what is kept") {
  Planned planned;
  planned.input.floor_bytes = uint64_t{100} << 20;
  const CostModel costs(planned.input);
  ExecutionPlan plan;
  const std::vector<PlanItem> items = costs.Footprint(plan);
  CHECK(Item(items, "process before the run") == uint64_t{100} << 20);
  CHECK(std::accumulate(items.begin(), items.end(), uint64_t{0},
                        [](uint64_t sum, const PlanItem& item) { return sum + item.bytes; }) == costs.PeakBytes(plan));
  uint64_t before = costs.PeakBytes(plan);
  for (plan.cached_units = 1; plan.cached_units <= 2; ++plan.cached_units) {
    CHECK(costs.PeakBytes(plan) > before);
    before = costs.PeakBytes(plan);
  }
}

TEST_CASE("multiplications: up, down, once more for gradients, and again for what is recomputed") {
  const Planned planned, with_head(kScored);
  const CostModel costs(planned.input);
  const double a_weight = 2.0 * 32, inner = a_weight * (2 * 1024 + 2 * 512 + 2 * 1536), last = a_weight * 1536;
  const double head = a_weight * 64 * 32;
  ExecutionPlan plan;
  CHECK(costs.Flops(plan) == 2 * (4 * inner + 3 * last) + 2 * head);
  plan.saved_units = 1;
  CHECK(costs.Flops(plan) == (4 * inner + 3 * last) + (3 * inner + 3 * last) + 2 * head);
  CHECK(CostModel(with_head.input).Flops(plan) == costs.Flops(plan) + 2 * head);
}

TEST_CASE("a slower machine takes longer, and a spill to a slower disk too") {
  const Planned planned;
  const CostModel costs(planned.input);
  MachineRates half;
  half.flops /= 2, half.read_bytes /= 2, half.spill_bytes /= 2;
  ExecutionPlan plan;
  CHECK(costs.Seconds(plan, half) > costs.Seconds(plan, {}));
  MachineRates slow_disk;
  slow_disk.spill_bytes = 1e6;
  CHECK(costs.Seconds(plan, slow_disk) == costs.Seconds(plan, {}));
  plan.spilled = Spilled::kInputs;
  // Both ways, without what they take at 1 GB/s.
  CHECK(costs.Seconds(plan, slow_disk) - costs.Seconds(plan, {}) == Approx(2 * 2 * kHidden * (1e-6 - 1e-9)));
}

}  // namespace
}  // namespace autoscheme
