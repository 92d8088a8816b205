// The part of CostModel that is about runs on a device: what lies in its memory, what is left to the host, and how long
// that takes. The device's memory is a context, buffers of a size that is known when the run begins (slots, two pools)
// and what LibTorch's operators allocate for a moment.
#include <algorithm>
#include <utility>
#include <vector>

#include "autoscheme/block_streamer.h"
#include "plan/calibration_ids.h"
#include "planner/cost_model.h"
#include "planner/fitted.h"

namespace autoscheme {
namespace {

uint64_t WithGaps(uint64_t bytes) { return bytes + bytes / fitted::kDevicePoolPerGap + (uint64_t{1} << 20); }

}  // namespace

CostModel::DeviceSizes CostModel::DeviceFootprint(const ExecutionPlan& choice) const {
  std::vector<PlanItem> unit, head = HeadItems(choice),
                              lasting = {
                                  {"saved inputs", choice.inputs_on_device ? InputBytes(choice) : 0},
                                  {"activations or gradients between units", ActivationBytes()},
                                  {"norms, positions and rotary tables", OuterBytes()},
                              };
  uint64_t chunk = 0, weights = 0, outside = 0;
  for (const UnitSizes& sizes : Of(choice).classes) {
    std::vector<PlanItem> items = DeviceUnitItems(choice, sizes);
    if (Sum(items) > Sum(unit)) unit = std::move(items);
    chunk = std::max(chunk, ChunkBytes(choice, sizes));
    weights = std::max(weights, sizes.weights * element_size());
    const BatchedScratch attention = DeviceAttention(choice, sizes);
    outside = std::max(outside, static_cast<uint64_t>(std::max(attention.forward_outside, attention.backward_outside)));
  }
  const uint64_t tile = head[0].bytes;
  head.erase(head.begin());  // the tiles lie in slots
  const uint64_t slots = std::max(choice.unit_slots * Of(choice).slot_bytes, tile);
  const std::vector<PlanItem>& busiest = Sum(head) > Sum(unit) ? head : unit;
  DeviceSizes sizes;
  sizes.pool = WithGaps(Sum(busiest) + Sum(lasting));
  sizes.weight_pool =
      WithGaps((choice.cache_weights ? weights : 2 * chunk) + CandidateChunkBytes(chunk / element_size()));
  const uint64_t temporaries = fitted::kDeviceTemporaries * fitted::kDeviceChunkNumbers * 4 +
                               4 * MicroBatchTokens(choice) * in_.skeleton->hidden_size() * 4 + outside +
                               fitted::kDeviceRounding;
  sizes.items = {{"context of the process (assumed)", kDeviceContextBytes},
                 {"workspaces of products (assumed)", fitted::kDeviceWorkspaceBytes},
                 {"temporaries of operators (assumed)", temporaries},
                 {"figures of each token", TokenFigureBytes()},
                 {"weight slots", slots},
                 {choice.cache_weights ? "dequantized weights" : "row chunks", sizes.weight_pool}};
  sizes.items.insert(sizes.items.end(), busiest.begin(), busiest.end());
  sizes.items.insert(sizes.items.end(), lasting.begin(), lasting.end());
  sizes.items.push_back({"gaps between tensors", sizes.pool - Sum(busiest) - Sum(lasting)});
  DropEmpty(sizes.items);
  sizes.peak = Sum(sizes.items);
  return sizes;
}

// The largest that any attention of the unit needs.
BatchedScratch CostModel::DeviceAttention(const ExecutionPlan& choice, const UnitSizes& unit) const {
  BatchedScratch most;
  for (const auto& [heads, kv_heads, head_dim, window, capped] : unit.attentions) {
    AttentionShape attention;
    attention.heads = heads, attention.kv_heads = kv_heads, attention.head_dim = head_dim, attention.window = window;
    attention.softcap = capped;
    const BatchedScratch one = BatchedAttentionScratch(attention, shape(choice).most_rows(), in_.calibration->seqlen,
                                                       static_cast<int64_t>(element_size()));
    most.forward = std::max(most.forward, one.forward), most.backward = std::max(most.backward, one.backward);
    most.forward_outside = std::max(most.forward_outside, one.forward_outside);
    most.backward_outside = std::max(most.backward_outside, one.backward_outside);
  }
  return most;
}

// What lies in the pool of activations while a unit runs.
std::vector<PlanItem> CostModel::DeviceUnitItems(const ExecutionPlan& choice, const UnitSizes& unit) const {
  const uint64_t element = element_size(), tokens = MicroBatchTokens(choice);
  const BatchedScratch attention = DeviceAttention(choice, unit);
  if (gradients() == 0) {
    return {
        {"activations", ForwardBytes(choice, unit)},
        {"scratch of attention", static_cast<uint64_t>(attention.forward)},
    };
  }
  uint64_t candidates = 0;
  for (const auto& [out, in] : unit.shapes) {
    const int64_t rows = std::min<int64_t>(out, ChunkBytes(choice, unit) / (in * element) + 1);
    candidates = std::max(candidates, CandidateBytes(choice, in, rows));
  }
  return {
      {"gradient of a row chunk", weight_gradients_ ? ChunkBytes(choice, unit) / element * 4 : 0},
      {"inputs and outputs under candidates", candidates},
      {"weight gradients of a batch", shape(choice).cut() && weight_gradients_ ? unit.weights * 4 : 0},
      {"activations", tokens * (unit.activations.graph + unit.activations.transient) * element},
      {"operands of the backward pass", rounds_operands() ? tokens * unit.widest_input * 3 * operand_size() : 0},
      {"scratch of attention", static_cast<uint64_t>(std::max(attention.forward, attention.backward))},
  };
}

uint64_t CostModel::StagingBytes(const ExecutionPlan& choice) const {
  if (choice.inputs_on_device) return 0;
  return MicroBatchTokens(choice) * in_.skeleton->hidden_size() * element_size();
}

std::vector<PlanItem> CostModel::HostItemsOfDevice(const ExecutionPlan& choice) const {
  const TensorInfo& embedding = *in_.skeleton->embedding();
  const uint64_t row = embedding.bytes / static_cast<uint64_t>(embedding.shape[0]);
  const auto lanes = static_cast<uint64_t>(in_.device->lanes);
  return {
      {"ring of pinned slots", kUploadSlots * kUploadSlotBytes},
      {"pinned staging", lanes * StagingBytes(choice)},
      {"saved inputs", choice.inputs_in_ram() ? lanes * InputBytes(choice) : 0},
      {"rows of the embedding", lanes * (DistinctIds(*in_.calibration).size() + MicroBatchTokens(choice)) * row},
      {"calibration ids", tokens() * 4},
      {"figures of each token", TokenFigureBytes()},
      {"libraries of the device (assumed)",
       in_.device->free_bytes == 0 ? fitted::kDeviceHostBytes : fitted::kDeviceLaterHostBytes},
  };
}

double CostModel::DeviceSeconds(const ExecutionPlan& choice) const {
  const double flops = Flops(choice), forward = flops / 2;  // a pass up, one of recomputing, two of gradients
  const bool rounds = in_.precision.tf32_gradients || operand_size() < 4;
  double seconds = forward / (element_size() < 4 ? fitted::kDeviceRoundedFlops : fitted::kDeviceFlops) +
                   (flops - forward) / (rounds ? fitted::kDeviceRoundedFlops : fitted::kDeviceFlops);
  const double chunks = static_cast<double>(choice.chunk_bytes) / (1 << 20);
  // Small products leave a device idle.
  seconds *= (1 + 2 / chunks) * (1 + fitted::kDeviceTokensAtHalfSpeed / static_cast<double>(MicroBatchTokens(choice)));
  if (!choice.cache_weights) seconds *= 1.05;
  const MachineRates disk;
  if (!choice.inputs_on_device) {
    seconds += 2.0 * static_cast<double>(InputBytes(choice)) /
               (choice.inputs_in_ram() ? fitted::kDeviceLinkRate : disk.spill_bytes);
  }
  const double read_s = static_cast<double>(ReadBytes(choice)) / disk.read_bytes;
  return choice.unit_slots > 1 ? std::max(seconds, read_s) + fitted::kUnhiddenReading * read_s : seconds + read_s;
}

}  // namespace autoscheme
