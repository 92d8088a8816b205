#include "plan/cost_model.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "autoscheme/block_streamer.h"
#include "exec/head.h"
#include "exec/weights.h"
#include "model/architecture.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
// What a first backward pass adds to the process beside our own tensors and packed copies of operands in the BLAS: operator
// tables and the code that becomes resident, and for every thread its stack and buffers.
constexpr uint64_t kRuntimeBytes = 26 * kMiB, kRuntimeThreadBytes = 3 * kMiB;
// What products of bfloat16 add to that: LibTorch takes them to another library, which packs all of an operand.
constexpr uint64_t kBFloat16RuntimeBytes = 12 * kMiB;
// Of both operands of a float32 product about three quarters are kept packed, of a large weight not more than this.
constexpr uint64_t kMostPacked = 128 * kMiB;
// And, of what is in memory beyond that of a small model, one part in so many: page tables and gaps.
constexpr uint64_t kSmallRun = 256 * kMiB, kRuntimePart = 100;
// Of kept activations, one part in so many is lost in the gaps that others of other sizes leave between them.
constexpr uint64_t kKeptPerGap = 32;

constexpr double kCopyRate = 8e9;  // bytes per second, into and out of boundaries in memory

// Of a thread that differentiates asymmetric integers, slice by slice: ten tensors of 16,384 float32. The fused loops
// of all other activations need less.
constexpr uint64_t kQuantizerScratch = 640 << 10;

uint64_t Sum(const std::vector<PlanItem>& items) {
  uint64_t bytes = 0;
  for (const PlanItem& item : items) bytes += item.bytes;
  return bytes;
}

UnitSizes Measure(const PlanInput& in, const std::vector<Unit>& units, std::vector<int64_t>& kept_by_unit) {
  const Architecture& architecture = in.skeleton->architecture();
  UnitSizes sizes;
  uint64_t in_turns[2] = {0, 0};
  for (const Unit& unit : units) {
    uint64_t& in_turn = in_turns[sizes.count++ % 2];
    uint64_t weights = 0;
    BlockStreamer::Step small;
    for (const TensorInfo* info : unit.tensors) {
      if (std::none_of(unit.linears.begin(), unit.linears.end(),
                       [&](const LinearLayer* l) { return l->weight == info; })) {
        small.push_back(info);
      }
    }
    for (const LinearLayer* layer : unit.linears) {
      const uint64_t numbers = static_cast<uint64_t>(layer->out_features) * layer->in_features;
      weights += numbers;
      sizes.largest_weight = std::max(sizes.largest_weight, numbers);
      sizes.shapes.emplace(layer->out_features, layer->in_features);
      sizes.widest_input = std::max(sizes.widest_input, layer->in_features);
      sizes.row_bytes = std::max(sizes.row_bytes, layer->weight->bytes / layer->out_features);
    }
    sizes.weights = std::max(sizes.weights, weights);
    const uint64_t slot = BlockStreamer::SlotBytes(unit.tensors).value_or(unit.bytes);
    sizes.slot_bytes = std::max(sizes.slot_bytes, slot), in_turn = std::max(in_turn, slot);
    sizes.small_slot_bytes = std::max(sizes.small_slot_bytes, BlockStreamer::SlotBytes(small).value_or(0));
    int64_t kept = 0, graph = 0;
    for (const Unit::Part& part : unit.parts) {
      const auto activations = architecture.ActivationsPerToken(part.segment, in.quantizes_activations);
      kept += activations.kept, graph += activations.graph;
      sizes.remade = std::max(sizes.remade, activations.graph - activations.kept);
      sizes.passing = std::max(sizes.passing, activations.passing);
      const auto scratch = architecture.ScratchBytes(part.segment, in.calibration->seqlen);
      sizes.shared_scratch = std::max<uint64_t>(sizes.shared_scratch, scratch.shared);
      sizes.row_scratch = std::max<uint64_t>(sizes.row_scratch, scratch.forward);
      sizes.row_scratch_outside = std::max<uint64_t>(sizes.row_scratch_outside, scratch.forward_outside);
      sizes.thread_scratch = std::max<uint64_t>(sizes.thread_scratch, scratch.backward);
    }
    kept_by_unit.push_back(kept);
    sizes.graph = std::max(sizes.graph, graph);
  }
  sizes.two_slots_bytes = in_turns[0] + in_turns[1];
  return sizes;
}

// By unit -> sums over the last 0, 1, .. units.
template <typename Number>
std::vector<Number> OfTheLast(std::vector<Number> numbers) {
  numbers.push_back(0);
  std::reverse(numbers.begin(), numbers.end());
  std::partial_sum(numbers.begin(), numbers.end(), numbers.begin());
  return numbers;
}

}  // namespace

CostModel::CostModel(const PlanInput& input) : in_(input) {
  for (const int segments : {0, 1}) {
    std::vector<Unit> units = MakeUnits(*in_.skeleton, segments);
    std::vector<int64_t> kept;
    const UnitSizes sizes = Measure(in_, units, kept);
    std::vector<uint64_t> weights;
    for (const Unit& unit : units) weights.push_back(unit.bytes);
    granularities_[segments] = {std::move(units), sizes, OfTheLast(std::move(kept)), OfTheLast(std::move(weights))};
  }
}

BatchShape CostModel::shape(const PlanChoice& choice) const {
  return {in_.calibration->nsamples, in_.calibration->seqlen, in_.batch_size, choice.sweep.slice_rows};
}

uint64_t CostModel::gradients() const {
  return in_.measurement->trajectories() - in_.measurement->forward_only_trajectories();
}

Schedule CostModel::schedule(const PlanChoice& choice) const {
  return Schedule(sizes(choice).count, choice.sweep.kept_units, choice.sweep.boundary_interval);
}

uint64_t CostModel::PeakBytes(const PlanChoice& choice) const { return Sum(Footprint(choice)); }

uint64_t CostModel::SpillBytes(const PlanChoice& choice) const {
  return (choice.sweep.boundaries_in_ram() ? 0 : BoundaryBytes(choice)) +
         (choice.sweep.passing_in_ram() ? 0 : UpBytes() + DownBytes() + HeadSumBytes());
}

uint64_t CostModel::ReadBytes(const PlanChoice& choice) const {
  const SweepOptions& sweep = choice.sweep;
  const auto key = std::make_tuple(sweep.tiled, sweep.slice_rows, sweep.segments_per_unit, sweep.cached_units, sweep.boundary_interval,
                                   sweep.boundary_interval > 1 ? sweep.kept_units : 0);
  auto known = read_bytes_.find(key);
  if (known == read_bytes_.end()) {
    known = read_bytes_.emplace(key, PlannedReadBytes(*in_.skeleton, *in_.calibration, sweep, *in_.measurement)).first;
  }
  return known->second;
}

uint64_t CostModel::tokens() const { return static_cast<uint64_t>(in_.calibration->nsamples) * in_.calibration->seqlen; }

uint64_t CostModel::HiddenBytes() const { return tokens() * in_.skeleton->hidden_size() * element_size(); }

uint64_t CostModel::SliceTokens(const PlanChoice& choice) const {
  return static_cast<uint64_t>(shape(choice).largest_slice()) * in_.calibration->seqlen;
}

uint64_t CostModel::BoundaryBytes(const PlanChoice& choice) const {
  const uint64_t slots = schedule(choice).stored_count() + schedule(choice).place_count();
  return HiddenBytes() * (1 + gradients() * slots);
}

uint64_t CostModel::UpBytes() const { return HiddenBytes() * in_.measurement->trajectories(); }

uint64_t CostModel::DownBytes() const { return HiddenBytes() * gradients(); }

uint64_t CostModel::HeadSumBytes() const {
  return tokens() * in_.skeleton->hidden_size() * gradients() * (4 + element_size());
}

uint64_t CostModel::KeptBytes(const PlanChoice& choice) const {
  return tokens() * gradients() * Of(choice).kept[choice.sweep.kept_units] * element_size();
}

uint64_t CostModel::ChunkBytes(const PlanChoice& choice) const {
  const UnitSizes& unit = sizes(choice);
  return std::min<uint64_t>(choice.chunk_bytes, unit.largest_weight * element_size()) + unit.row_bytes * 2;
}

std::vector<PlanItem> CostModel::Footprint(const PlanChoice& choice) const {
  std::vector<PlanItem> items = UnitItems(choice), head = HeadItems(choice), lasting = LastingItems(choice);
  if (Sum(head) > Sum(items)) items = std::move(head);
  items.insert(items.end(), lasting.begin(), lasting.end());
  if (in_.floor_bytes > 0) {
    items.push_back({"process before the run", in_.floor_bytes});
    items.push_back({"LibTorch's code and buffers", RuntimeBytes(choice, Sum(items))});
  }
  items.erase(std::remove_if(items.begin(), items.end(), [](const PlanItem& item) { return item.bytes == 0; }), items.end());
  return items;
}

std::vector<PlanItem> CostModel::LastingItems(const PlanChoice& choice) const {
  const SweepOptions& sweep = choice.sweep;
  const uint64_t kept = KeptBytes(choice);
  return {
      {"block boundaries", sweep.boundaries_in_ram() ? BoundaryBytes(choice) : 0},
      {"activations or gradients between units", sweep.passing_in_ram() ? UpBytes() : 0},
      {"kept activations", kept + kept / kKeptPerGap},
      {"kept weights", Of(choice).weights[sweep.cached_units]},
      {"calibration ids", tokens() * 4},
  };
}

std::vector<PlanItem> CostModel::UnitItems(const PlanChoice& choice) const {
  const SweepOptions& sweep = choice.sweep;
  const BatchShape shape = this->shape(choice);
  const UnitSizes& unit = sizes(choice);
  const uint64_t hidden = in_.skeleton->hidden_size(), element = element_size();
  const uint64_t slice_tokens = SliceTokens(choice);
  const uint64_t chunk = ChunkBytes(choice);
  const uint64_t tile = std::min(chunk / element * 2 + unit.row_bytes, unit.slot_bytes);
  // Two slots take every other unit each, down as well as up; units that run forward again come in another order. Pages of a
  // slot that no unit fills are not there.
  const bool in_turns = sweep.unit_slots == 2 && sweep.boundary_interval == 1;
  const uint64_t slots = in_turns ? unit.two_slots_bytes : sweep.unit_slots * unit.slot_bytes;
  // The first kept graph is differentiated while all are there: beside them are two hidden states and what it
  // makes again. They are freed one by one before the first recomputed one is there, which may be larger than all of them.
  const uint64_t kept = KeptBytes(choice), passing = slice_tokens * unit.passing * element;
  const uint64_t recomputed = slice_tokens * unit.graph * element, beside_kept = slice_tokens * (2 * hidden + unit.remade) * element;
  const uint64_t graph = kept > 0 ? std::max(beside_kept, recomputed - std::min(kept, recomputed)) : recomputed;
  // Scratch of the forward pass is gone when the gradients pass, and lies in their place but for what LibTorch allocates itself.
  const uint64_t rows_at_once = std::min<uint64_t>(in_.threads, shape.largest_slice());
  const uint64_t forward = unit.shared_scratch + rows_at_once * unit.row_scratch;
  const uint64_t scratch = std::max(in_.threads * unit.thread_scratch, forward - std::min(forward, passing)) +
                           rows_at_once * unit.row_scratch_outside;
  return {
      {sweep.tiled ? "weight tiles" : "weight slots", sweep.tiled ? sweep.unit_slots * (tile + unit.small_slot_bytes) : slots},
      {"dequantized weights", choice.cache_weights ? unit.weights * element : 0},
      // Of a chunk there is the gradient; where it is not kept the chunk itself, dequantized; and what a quantizer that works in
      // bfloat16 makes of it before it is in its place.
      {"row chunks", ((choice.cache_weights ? 1 : 2) + (in_.precision.dtype == at::kFloat ? 0 : 1)) * chunk},
      {"weight gradients of a batch", shape.sliced() ? unit.weights * 4 : 0},
      {"activations", graph + passing},
      // Rounded copies of a product's input and gradient, and what it gives before that is widened.
      {"operands of the backward pass", rounds_operands() ? slice_tokens * unit.widest_input * 3 * operand_size() : 0},
      {"operands widened to float32", WidenedUnitBytes(choice)},
      {"scratch of attention", scratch},
      {"temporaries of activation quantizers", in_.quantizes_activations ? in_.threads * kQuantizerScratch : 0},
  };
}

std::vector<PlanItem> CostModel::HeadItems(const PlanChoice& choice) const {
  const MetaSkeleton& skeleton = *in_.skeleton;
  const SweepOptions& sweep = choice.sweep;
  const uint64_t hidden = skeleton.hidden_size(), element = element_size(), operand = operand_size();
  const uint64_t rows = std::min<uint64_t>(sweep.head_tile_rows, skeleton.vocab_size());
  bool quantized = false, measured = false;
  for (int t = 0; t < in_.measurement->trajectories(); ++t) {
    const HeadTreatment treatment = in_.measurement->head(t);
    quantized = quantized || treatment.weight != nullptr;
    measured = measured || treatment.measure;
  }
  const bool copied = TorchType(skeleton.head().weight->dtype) != in_.precision.dtype;
  const uint64_t logits = SliceTokens(choice) * rows * (4 + (operand < 4 ? operand : 0)), states = SliceTokens(choice) * hidden * 4;
  return {
      {"head tiles", sweep.unit_slots * rows * (skeleton.head().weight->bytes / skeleton.vocab_size())},
      {"dequantized head tile", rows * hidden * ((quantized + copied) * element + (rounds_operands() ? operand : 0))},
      {"gradient of a head tile", measured ? 2 * rows * hidden * operand : 0},
      {"logits of a tile", logits},
      // Two or, quantized, three of them beside the logits; six once those are gone.
      {"hidden states", std::max((in_.quantizes_activations && measured ? 3 : 2) * states, 6 * states - std::min(logits, 6 * states))},
      {"operands widened to float32", WidenedHeadBytes(choice)},
      {"gradients and running sums of the head", sweep.passing_in_ram() ? DownBytes() + HeadSumBytes() : 0},
  };
}

uint64_t CostModel::WidenedUnitBytes(const PlanChoice& choice) const {
  if (!widens_operands()) return 0;
  const int64_t tokens = static_cast<int64_t>(SliceTokens(choice));
  uint64_t most = 0;
  for (const auto& [out, in] : sizes(choice).shapes) {
    const int64_t chunk = static_cast<int64_t>(ChunkBytes(choice) / (in * element_size())) + 1;
    const int64_t rows = choice.cache_weights ? out : std::min(out, chunk);
    // The result, the gradient of the input and that of the weight.
    most = std::max({most, WidenedBytes(tokens, in, rows), WidenedBytes(tokens, rows, in), WidenedBytes(rows, tokens, in)});
  }
  return most;
}

uint64_t CostModel::WidenedHeadBytes(const PlanChoice& choice) const {
  if (!widens_operands()) return 0;
  const int64_t tokens = static_cast<int64_t>(SliceTokens(choice)), hidden = in_.skeleton->hidden_size();
  const int64_t rows = std::min<int64_t>(choice.sweep.head_tile_rows, in_.skeleton->vocab_size());
  return std::max({WidenedBytes(tokens, hidden, rows), WidenedBytes(tokens, rows, hidden), WidenedBytes(rows, tokens, hidden)});
}

uint64_t CostModel::RuntimeBytes(const PlanChoice& choice, uint64_t others) const {
  const UnitSizes& unit = sizes(choice);
  const uint64_t operand = operand_size(), chunk = ChunkBytes(choice), element = element_size();
  const uint64_t left = SliceTokens(choice) * unit.widest_input * operand;
  const uint64_t weights = choice.cache_weights ? unit.largest_weight * element : chunk;
  const bool narrow = operand < 4 && !widens_operands();
  uint64_t packed = left + chunk / element * operand;
  if (!narrow) packed = (element < 4 ? WidenedUnitBytes(choice) : left * 4 / operand + std::min(weights, kMostPacked)) / 4 * 3;
  return kRuntimeBytes + in_.threads * kRuntimeThreadBytes + (narrow ? kBFloat16RuntimeBytes : 0) + packed +
         (std::max(others, kSmallRun) - kSmallRun) / kRuntimePart;
}

double CostModel::Flops(const PlanChoice& choice) const {
  const double tokens = static_cast<double>(this->tokens());
  const double forward_only = in_.measurement->forward_only_trajectories(), gradients = static_cast<double>(this->gradients());
  const std::vector<Unit>& units = Of(choice).units;
  const Schedule schedule = this->schedule(choice);
  const std::vector<int> again = schedule.Again();
  double flops = 0;
  for (int u = 0; u < static_cast<int>(units.size()); ++u) {
    const bool kept = u >= schedule.first_kept();
    for (const LinearLayer* layer : units[u].linears) {
      const double product = 2.0 * tokens * layer->out_features * layer->in_features;
      const bool recomputed = !kept && !(layer->ends_segment && choice.sweep.segments_per_unit == 1);
      flops += product * (forward_only + gradients * ((recomputed ? 4 : 3) + again[u]));
    }
  }
  const LinearLayer& head = in_.skeleton->head();
  const double product = 2.0 * tokens * head.out_features * head.in_features;
  for (int t = 0; t < in_.measurement->trajectories(); ++t) {
    const HeadTreatment treatment = in_.measurement->head(t);
    if (!treatment.skip) flops += product * (treatment.measure ? 4 : 2);
  }
  return flops;
}

double CostModel::Seconds(const PlanChoice& choice, const MachineRates& rates) const {
  const SweepOptions& sweep = choice.sweep;
  const BatchShape shape = this->shape(choice);
  const double slices = static_cast<double>(shape.slices().size());
  const double slice_tokens = static_cast<double>(SliceTokens(choice));
  const double trajectories = in_.measurement->trajectories();
  const UnitSizes& unit = sizes(choice);
  const double weights = static_cast<double>(unit.weights) * unit.count;

  // Products of few rows, and of small chunks of weights, run below the machine's best.
  double seconds = Flops(choice) / rates.flops * (1 + 48 / slice_tokens) *
                   (1 + 0.02 * static_cast<double>(kMiB) / static_cast<double>(choice.chunk_bytes));
  const std::vector<int> again_of_units = schedule(choice).Again();
  const double again = std::accumulate(again_of_units.begin(), again_of_units.end(), 0.0) / unit.count;
  seconds += weights * in_.quantize_s * (trajectories * (choice.cache_weights ? 2 : 3 * slices) +
                                        static_cast<double>(gradients()) * again * (choice.cache_weights ? 1 : slices));
  seconds +=
      2.0 * static_cast<double>(BoundaryBytes(choice)) / (sweep.boundaries_in_ram() ? kCopyRate : rates.spill_bytes);
  // What passes goes in and out at every unit, the head's sums and inputs at every tile.
  const double tiles = static_cast<double>(in_.skeleton->vocab_size()) / static_cast<double>(sweep.head_tile_rows);
  seconds += (2.0 * unit.count * static_cast<double>(UpBytes() + DownBytes()) +
              tiles * static_cast<double>(2 * HeadSumBytes() + UpBytes())) /
             (sweep.passing_in_ram() ? kCopyRate : rates.spill_bytes);
  seconds += tiles * slices * slice_tokens * trajectories * in_.skeleton->hidden_size() * 8 / kCopyRate;
  if (shape.sliced()) seconds += weights * trajectories * 4 * (slices + 1) / 8e9;

  const double read_s = static_cast<double>(ReadBytes(choice)) / rates.read_bytes;
  return sweep.unit_slots > 1 ? std::max(seconds, read_s) + 0.1 * read_s : seconds + read_s;
}

}  // namespace autoscheme
