// The cost model's numbers worked by hand for a model of two blocks. How they compare with runs is seen by
// test/pipeline/planned_memory_test.cc.
#include "planner/cost_model.h"

#include <algorithm>
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

// The slot that is read beside the tiles of a sublayer: norms and biases.
uint64_t SmallSlot(const MetaSkeleton& skeleton) {
  uint64_t most = 0;
  for (const Block& block : skeleton.blocks()) {
    for (BlockStreamer::Step tensors : block.sublayers) {
      const auto is_matrix = [](const TensorInfo* info) { return info->shape.size() > 1; };
      tensors.erase(std::remove_if(tensors.begin(), tensors.end(), is_matrix), tensors.end());
      most = std::max(most, BlockStreamer::SlotBytes(tensors).value());
    }
  }
  return most;
}

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
  // The last norm, and sine and cosine of 8 positions for the half of a head of 8.
  CHECK(Item(costs.Footprint(plan), "norms, positions and rotary tables") == 4 * 32 + 2 * 8 * 4 * 4);
  plan.unit_slots = 1, plan.cache_weights = false, plan.cached_units = 1;
  CHECK(Item(costs.Footprint(plan), "weight slots") == slot);
  CHECK(Item(costs.Footprint(plan), "dequantized weights") == 0);
  CHECK(Item(costs.Footprint(plan), "cached weights") == block.bytes);
  // A chunk cannot be larger than the largest weight; two stored rows of the longest beside it, and its gradient.
  CHECK(Item(costs.Footprint(plan), "row chunks") == 4 * 1536 + 2 * 2 * 48);
  CHECK(Item(costs.Footprint(plan), "gradient of a row chunk") == 4 * 1536 + 2 * 2 * 48);
  CHECK(costs.ReadBytes(plan) == PlannedReadBytes(*planned.tiny, planned.calibration, plan, planned.needs));
}

TEST_CASE("a transposed weight is one tile, and its chunks are turned in a buffer") {
  // GPT-2's config as it would be with wider blocks: c_fc and c_proj of the MLP hold 256 x 1024 numbers in bfloat16.
  const auto skeleton = MetaSkeleton::FromConfig({}, R"({"model_type": "gpt2", "n_embd": 256, "n_layer": 2, "n_head": 4,
      "n_positions": 64, "vocab_size": 512, "dtype": "bfloat16"})")
                            .value();
  const ScorerNeeds needs = NeedsOf(*skeleton, kScored);
  const Calibration calibration = RowsOf(4, 8, std::vector<int32_t>(32, 1));
  PlanInput input;
  input.skeleton = skeleton.get(), input.calibration = &calibration, input.needs = &needs;
  input.batch_size = 2;
  const CostModel costs(input);
  ExecutionPlan plan;
  plan.chunk_bytes = 64 << 10, plan.cache_weights = false, plan.head_tile_rows = 16;
  const uint64_t largest = 2 * 256 * 1024, longest_row = 2 * 1024;
  // 64 KiB of float32 and two rows, as they are stored.
  const uint64_t turned = ((64 << 10) + 2 * longest_row) / 2;
  CHECK(Item(costs.Footprint(plan), "turned row chunks") == turned);
  plan.sublayers_per_unit = 1, plan.tiled = true;
  // Beside it malloc holds LibTorch's scratch, and so most in attention, whose rows are shorter.
  CHECK(Item(costs.Footprint(plan), "turned row chunks") == ((64 << 10) + 2 * 2 * 256) / 2);
  CHECK(Item(costs.Footprint(plan), "weight tiles") == largest + 2 * 4096 + 2 * SmallSlot(*skeleton));
  plan.chunk_bytes = 8 << 20;  // no more than the weight, whichever way it lies
  CHECK(Item(costs.Footprint(plan), "turned row chunks") == largest);
  CHECK(Item(CostModel(Planned().input).Footprint(plan), "turned row chunks") == 0);
}

TEST_CASE("tiles of a float32 checkpoint are twice those of bfloat16") {
  TinyModel model;
  model.dtype = "F32";
  const TinySkeleton narrow, wide(model);
  uint64_t tiles[2];
  for (const TinySkeleton* tiny : {&narrow, &wide}) {
    const ScorerNeeds needs = NeedsOf(**tiny, kScored);
    const Calibration calibration = RowsOf(4, 8, std::vector<int32_t>(32, 1));
    PlanInput input;
    input.skeleton = tiny->skeleton.get(), input.calibration = &calibration, input.needs = &needs;
    ExecutionPlan plan;
    plan.sublayers_per_unit = 1, plan.tiled = true, plan.unit_slots = 1, plan.chunk_bytes = 2048;
    tiles[tiny == &wide] = Item(CostModel(input).Footprint(plan), "weight tiles") - SmallSlot(**tiny);
  }
  // A chunk of 2048 bytes with two rows of the longest as they are stored, and a row more.
  CHECK(tiles[0] == (2048 + 2 * 2 * 48) / 4 * 2 + 2 * 48);
  CHECK(tiles[1] == (2048 + 2 * 4 * 48) / 4 * 4 + 4 * 48);
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

TEST_CASE("an evaluation holds the logits of two variants, one input for each form of the embedding, and no gradient") {
  Planned planned;
  planned.needs.variants.assign(3, planned.needs.variants[0]);
  for (VariantNeeds& variant : planned.needs.variants) variant.forward_only = true;
  planned.needs.compares_logits = true;
  planned.needs.variants[2].embedding = 1;
  for (const int v : {1, 2}) planned.needs.variants[v].linears.back().quantizes_weight = true;
  const CostModel costs(planned.input);
  ExecutionPlan plan;
  plan.batch_size = 2, plan.head_tile_rows = 16;
  CHECK(Item(costs.Footprint(plan), "saved inputs") == 2 * kHidden);
  CHECK(Item(costs.Footprint(plan), "activations or gradients between units") == 3 * kHidden);
  CHECK(Item(costs.Footprint(plan), "figures of each token") == 3 * 32 * 57);
  CHECK(Item(costs.Footprint(plan), "gradient of a row chunk") == 0);
  CHECK(costs.SpillBytes(plan) == 0);
  // Two rows of eight tokens at a time.
  plan.head_tile_rows = 64;
  plan.chunk_bytes = 1024, plan.cache_weights = false;
  CHECK(Item(costs.Footprint(plan), "logits of a tile, and their exponentials") == 16 * 64 * 16);
  CHECK(Item(costs.Footprint(plan), "dequantized head tile") == 64 * 32 * 4 * 3);  // float32, and two forms
  // Products of all variants, once, the head's too.
  double linears = 64 * 32;
  for (const Block& block : planned.tiny->blocks()) {
    for (const LinearLayer& layer : block.linears) linears += layer.out_features * layer.in_features;
  }
  CHECK(costs.Flops(plan) == Approx(3 * 2 * 32 * linears));
}

}  // namespace
}  // namespace autoscheme
