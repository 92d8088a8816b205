// What a plan would hold, read and take, from the skeleton's shapes alone. Read it in this order:
// - The constructor cuts the model into units, by blocks and by sublayers, and sorts them into classes: units of one
//   class need the same, so that a model of 80 blocks has one or two.
// - Footprint: what lies in memory at the peak. LastingItems are there during the whole run; beside them is either the
//   dearest class of units (UnitItems) or the head (HeadItems), never both. Each pool keeps the pages of its busiest
//   moment, so the classes are maximised pool by pool.
// - RuntimeBytes: what LibTorch adds to that. Those numbers are fitted to measurements, and all stand in fitted.h.
// - ReadBytes, SpillBytes, Flops: exact, and tests hold a run to them. Seconds: an estimate that only has to order
//   plans.
#include "planner/cost_model.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "autoscheme/block_streamer.h"
#include "base/io.h"
#include "plan/reads.h"
#include "planner/fitted.h"

namespace autoscheme {
namespace {

UnitSizes Measure(const PlanInput& in, const Unit& unit) {
  UnitSizes sizes;
  const auto raise = [](auto& most, auto one) { most = one > most ? one : most; };
  for (const auto& [layer, recomputed] : unit.linears) {
    const uint64_t numbers = static_cast<uint64_t>(layer->out_features) * layer->in_features;
    sizes.weights += numbers;
    sizes.shapes.emplace(layer->out_features, layer->in_features);
    raise(sizes.largest_weight, numbers), raise(sizes.widest_input, layer->in_features);
    raise(sizes.row_bytes, layer->weight->bytes / layer->out_features);
    raise(sizes.stored_width, layer->weight->bytes / numbers);
    if (layer->transposed) raise(sizes.turned_bytes, layer->weight->bytes);
  }
  for (const Unit::Part& part : unit.parts) {
    const Sublayer& sublayer = in.skeleton->spec().blocks[part.block].sublayers[part.sublayer];
    const Activations one = ActivationsOf(sublayer, in.skeleton->hidden_size(), in.needs->quantizes_activations);
    sizes.activations.saved += one.saved, sizes.activations.graph += one.graph;
    raise(sizes.recomputed, one.graph - one.saved), raise(sizes.activations.transient, one.transient);
    raise(sizes.largest_graph, one.graph);
    const int64_t given = static_cast<int64_t>(in.precision.element_bytes());
    const Scratch scratch =
        ScratchOf(sublayer, in.calibration->seqlen, {given, in.precision.hardware_bfloat16 ? given : 4});
    raise(sizes.scratch.shared, scratch.shared), raise(sizes.scratch.backward, scratch.backward);
    for (const Branch& branch : sublayer.branches) {
      if (const Attention* a = std::get_if<Attention>(&branch.body); a != nullptr) {
        sizes.attentions.emplace(a->heads, a->kv_heads, a->head_dim, a->window, a->softcap > 0);
      }
    }
    raise(sizes.scratch.forward, scratch.forward), raise(sizes.scratch.forward_outside, scratch.forward_outside);
  }
  return sizes;
}

// Panels that are widened for a product's result, the gradient of its input and that of its weight.
uint64_t WidenedProducts(int64_t tokens, int64_t in, int64_t rows) {
  return std::max({WidenedBytes(tokens, in, rows), WidenedBytes(tokens, rows, in), WidenedBytes(rows, tokens, in)});
}

}  // namespace

uint64_t Sum(const std::vector<PlanItem>& items) {
  uint64_t bytes = 0;
  for (const PlanItem& item : items) bytes += item.bytes;
  return bytes;
}

void DropEmpty(std::vector<PlanItem>& items) {
  items.erase(std::remove_if(items.begin(), items.end(), [](const PlanItem& item) { return item.bytes == 0; }),
              items.end());
}

CostModel::CostModel(const PlanInput& input) : in_(input) {
  for (const VariantNeeds& variant : in_.needs->variants) {
    for (const LinearNeeds& linear : variant.linears) {
      candidates_ = std::max(candidates_, linear.candidates);
      candidate_inputs_ = std::max(candidate_inputs_, linear.candidate_inputs);
      weight_gradients_ |= linear.weight_gradient;
      const bool whole = row_multiple_ == 0 || linear.row_multiple == 0;
      row_multiple_ = whole ? 0 : std::max(row_multiple_, linear.row_multiple);
    }
  }
  for (const int sublayers : {0, 1}) {
    Granularity& all = granularities_[sublayers];
    all.units = MakeUnits(*in_.skeleton, sublayers);
    uint64_t in_turns[2] = {0, 0};
    for (auto it = all.units.rbegin(); it != all.units.rend(); ++it) {
      const Unit& unit = *it;
      const UnitSizes sizes = Measure(in_, unit);
      all.classes.insert(sizes);
      const uint64_t slot = BlockStreamer::SlotBytes(unit.tensors).value_or(unit.bytes);
      uint64_t& in_turn = in_turns[all.saved.size() % 2];
      all.slot_bytes = std::max(all.slot_bytes, slot), in_turn = std::max(in_turn, slot);
      BlockStreamer::Step small = unit.tensors;
      for (const Unit::Linear& linear : unit.linears) {
        small.erase(std::remove(small.begin(), small.end(), linear.layer->weight), small.end());
      }
      all.small_slot_bytes = std::max(all.small_slot_bytes, BlockStreamer::SlotBytes(small).value_or(0));
      all.most_weights = std::max(all.most_weights, sizes.weights);
      all.saved.push_back(all.saved.back() + sizes.activations.saved);
      all.weights.push_back(all.weights.back() + unit.bytes);
    }
    all.two_slots_bytes = in_turns[0] + in_turns[1];
  }
}

BatchShape CostModel::shape(const ExecutionPlan& choice) const {
  return {in_.calibration->nsamples, in_.calibration->seqlen, in_.batch_size, choice.micro_batch_rows};
}

uint64_t CostModel::gradients() const { return in_.needs->with_gradients(); }

Schedule CostModel::schedule(const ExecutionPlan& choice) const {
  return ScheduleOf(choice, units(choice.sublayers_per_unit), gradients() > 0);
}

uint64_t CostModel::PeakBytes(const ExecutionPlan& choice) const { return Sum(Footprint(choice)); }

uint64_t CostModel::SpillBytes(const ExecutionPlan& choice) const {
  return (choice.spilled == Spilled::kNothing ? 0 : InputBytes(choice)) +
         (choice.transient_in_ram() ? 0 : ActivationBytes() + GradientBytes() + HeadSumBytes());
}

uint64_t CostModel::ReadBytes(const ExecutionPlan& choice) const {
  const auto key =
      std::make_tuple(choice.tiled, choice.micro_batch_rows, choice.sublayers_per_unit, choice.cached_units,
                      choice.input_interval, choice.input_interval > 1 ? choice.saved_units : 0);
  auto known = read_bytes_.find(key);
  if (known == read_bytes_.end()) {
    known = read_bytes_.emplace(key, PlannedReadBytes(*in_.skeleton, *in_.calibration, choice, *in_.needs)).first;
  }
  return known->second;
}

uint64_t CostModel::tokens() const {
  return static_cast<uint64_t>(in_.calibration->nsamples) * in_.calibration->seqlen;
}

uint64_t CostModel::HiddenBytes() const { return tokens() * in_.skeleton->hidden_size() * element_size(); }

uint64_t CostModel::MicroBatchTokens(const ExecutionPlan& choice) const {
  return static_cast<uint64_t>(shape(choice).most_rows()) * in_.calibration->seqlen;
}

uint64_t CostModel::InputBytes(const ExecutionPlan& choice) const {
  const uint64_t slots = schedule(choice).saved_count() + schedule(choice).recomputed_count();
  return HiddenBytes() * (in_.needs->embeddings() + gradients() * slots);
}

uint64_t CostModel::ActivationBytes() const { return HiddenBytes() * in_.needs->count(); }

uint64_t CostModel::GradientBytes() const { return HiddenBytes() * gradients(); }

uint64_t CostModel::HeadSumBytes() const {
  return tokens() * in_.skeleton->hidden_size() * gradients() * (4 + element_size());
}

// The scorer keeps two float64 and a byte, the head sums of five numbers; and of all of a micro-batch what is made of
// those at the end.
uint64_t CostModel::TokenFigureBytes() const {
  return in_.needs->compares_logits ? tokens() * in_.needs->count() * (2 * 8 + 1 + 5 * 8) : 0;
}

uint64_t CostModel::OuterBytes() const {
  uint64_t bytes = 0;
  for (const TensorInfo* info : in_.skeleton->other_tensors()) bytes += info->numel() * element_size();
  for (const RotaryTable& table : in_.skeleton->spec().tables) bytes += in_.calibration->seqlen * table.dims * 4;
  return bytes;
}

uint64_t CostModel::SavedBytes(const ExecutionPlan& choice) const {
  return tokens() * gradients() * Of(choice).saved[choice.saved_units] * element_size();
}

// What a graph would hold of a sublayer is all that its forward pass makes but the result; beside it is the unit's
// input.
uint64_t CostModel::ForwardBytes(const ExecutionPlan& choice, const UnitSizes& unit) const {
  const uint64_t hidden = in_.skeleton->hidden_size();
  return MicroBatchTokens(choice) * (static_cast<uint64_t>(unit.largest_graph) + 2 * hidden) * element_size();
}

uint64_t CostModel::ChunkBytes(const ExecutionPlan& choice, const UnitSizes& unit) const {
  const uint64_t whole = unit.largest_weight * element_size();
  const uint64_t least = static_cast<uint64_t>(row_multiple_) * unit.widest_input * element_size();
  return std::min(whole, row_multiple_ == 0 ? whole : std::max(choice.chunk_bytes, least)) + unit.row_bytes * 2;
}

std::vector<PlanItem> CostModel::Footprint(const ExecutionPlan& choice) const {
  if (in_.device.has_value()) return WithProcess(choice, HostItemsOfDevice(choice));
  // Memory keeps the pages of one unit for the next: each kind of it is as large as the class that fills it most makes
  // it, and that need not be one class for all.
  std::array<std::vector<PlanItem>, 3> most;
  for (const UnitSizes& unit : Of(choice).classes) {
    std::array<std::vector<PlanItem>, 3> kinds = UnitItems(choice, unit);
    for (size_t i = 0; i < kinds.size(); ++i) {
      if (Sum(kinds[i]) > Sum(most[i])) most[i] = std::move(kinds[i]);
    }
  }
  std::vector<PlanItem> items, head = HeadItems(choice), lasting = LastingItems(choice);
  for (const std::vector<PlanItem>& kind : most) items.insert(items.end(), kind.begin(), kind.end());
  if (Sum(head) > Sum(items)) items = std::move(head);
  items.insert(items.end(), lasting.begin(), lasting.end());
  return WithProcess(choice, std::move(items));
}

std::vector<PlanItem> CostModel::WithProcess(const ExecutionPlan& choice, std::vector<PlanItem> items) const {
  if (in_.floor_bytes > 0) {
    items.push_back({"process before the run", in_.floor_bytes});
    items.push_back({"LibTorch's code and buffers", RuntimeBytes(choice, Sum(items))});
  }
  DropEmpty(items);
  return items;
}

std::vector<PlanItem> CostModel::LastingItems(const ExecutionPlan& choice) const {
  const uint64_t saved = SavedBytes(choice);
  return {
      {"saved inputs", choice.inputs_in_ram() ? InputBytes(choice) : 0},
      {"activations or gradients between units", choice.transient_in_ram() ? ActivationBytes() : 0},
      {"saved activations", saved + saved / fitted::kSavedPerGap},
      {"cached weights", Of(choice).weights[choice.cached_units]},
      {"norms, positions and rotary tables", OuterBytes()},
      {"calibration ids", tokens() * 4},
      {"figures of each token", TokenFigureBytes()},
  };
}

// Weights of units as they come from the checkpoint.
uint64_t CostModel::StoredWeightBytes(const ExecutionPlan& choice, const UnitSizes& unit) const {
  const Granularity& all = Of(choice);
  const uint64_t stored_chunk = ChunkBytes(choice, unit) / element_size() * unit.stored_width;
  const uint64_t tile = std::min(stored_chunk + unit.row_bytes, all.slot_bytes);
  // The rows of a transposed weight lie in no one place: it is one tile, with the rest of two pages, and each chunk is
  // turned in a buffer.
  const uint64_t turned_tile = unit.turned_bytes == 0 ? 0 : unit.turned_bytes + 2 * File::kDirectAlignment;
  const uint64_t tiles = std::max(choice.unit_slots * tile, turned_tile);
  // Two slots take every other unit each, down as well as up; units that run forward again come in another order. Pages
  // of a slot that no unit fills are not there.
  const bool in_turns = choice.unit_slots == 2 && choice.input_interval == 1;
  const uint64_t slots = in_turns ? all.two_slots_bytes : choice.unit_slots * all.slot_bytes;
  return choice.tiled ? tiles + choice.unit_slots * all.small_slot_bytes : slots;
}

// What lies in the pool of weights and beside it, in the pool of activations, and in malloc's memory.
std::array<std::vector<PlanItem>, 3> CostModel::UnitItems(const ExecutionPlan& choice, const UnitSizes& unit) const {
  const BatchShape shape = this->shape(choice);
  const uint64_t hidden = in_.skeleton->hidden_size(), element = element_size();
  const uint64_t micro_batch_tokens = MicroBatchTokens(choice);
  const uint64_t chunk = ChunkBytes(choice, unit);
  const uint64_t stored_chunk = chunk / element * unit.stored_width;
  // The first saved graph is differentiated while all are there: beside them are two hidden states and what it
  // recomputes. They are freed one by one before the first recomputed one is there, which may be larger than all of
  // them.
  const uint64_t saved = SavedBytes(choice), transient = micro_batch_tokens * unit.activations.transient * element;
  const uint64_t recomputed = micro_batch_tokens * unit.activations.graph * element,
                 beside_saved = micro_batch_tokens * (2 * hidden + unit.recomputed) * element;
  const uint64_t graph = saved > 0 ? std::max(beside_saved, recomputed - std::min(saved, recomputed)) : recomputed;
  const bool differentiates = gradients() > 0;
  // Scratch of the forward pass is gone when the gradients pass, and lies in their place but for what LibTorch
  // allocates itself.
  const uint64_t rows_at_once = std::min<uint64_t>(in_.threads, shape.most_rows());
  const uint64_t forward = unit.scratch.shared + rows_at_once * unit.scratch.forward;
  const uint64_t scratch =
      differentiates ? std::max<uint64_t>(in_.threads * unit.scratch.backward, forward - std::min(forward, transient))
                     : forward;
  // A chunk that is not saved, dequantized; what a quantizer that works in bfloat16 makes of it before it is in its
  // place; and what candidates hold.
  const uint64_t chunks =
      (!choice.cache_weights + (in_.precision.dtype != Dtype::kF32)) * chunk + CandidateChunkBytes(chunk / element);
  uint64_t candidates = 0;
  for (const auto& [out, in] : unit.shapes) {
    candidates = std::max(candidates, CandidateBytes(choice, in, std::min<int64_t>(out, chunk / (in * element) + 1)));
  }
  return {
      {{
           {choice.tiled ? "weight tiles" : "weight slots", StoredWeightBytes(choice, unit)},
           {"dequantized weights", choice.cache_weights ? unit.weights * element : 0},
           {"row chunks", chunks},
       },
       {
           {"gradient of a row chunk", weight_gradients_ ? chunk : 0},
           {"inputs and outputs under candidates", candidates},
           {"weight gradients of a batch", shape.cut() && weight_gradients_ ? unit.weights * 4 : 0},
           {"activations", differentiates ? graph + transient : ForwardBytes(choice, unit)},
           // Rounded copies of a product's input and gradient, and what it gives before that is widened.
           {"operands of the backward pass",
            differentiates && rounds_operands() ? micro_batch_tokens * unit.widest_input * 3 * operand_size() : 0},
           {"operands widened to float32", WidenedUnitBytes(choice, unit)},
           {"scratch of attention and row chunks", scratch},
           {"temporaries of activation quantizers",
            in_.needs->quantizes_activations || candidate_inputs_ > 0 ? in_.threads * fitted::kQuantizerScratch : 0},
       },
       {
           {"scratch of LibTorch's attention", rows_at_once * unit.scratch.forward_outside},
           {"turned row chunks", std::min(stored_chunk, unit.turned_bytes)},
       }}};
}

// What RunEvalHead holds: the logits of full precision stay beside those of one variant.
std::vector<PlanItem> CostModel::EvalHeadItems(const ExecutionPlan& choice) const {
  const LinearLayer& head = in_.skeleton->head();
  const uint64_t hidden = in_.skeleton->hidden_size(), element = element_size(), tokens = MicroBatchTokens(choice);
  const uint64_t rows = std::min<uint64_t>(choice.head_tile_rows, in_.skeleton->vocab_size());
  uint64_t forms = head.weight->dtype != in_.precision.dtype;
  for (const VariantNeeds& variant : in_.needs->variants) forms += variant.linears[head.index].quantizes_weight;
  const uint64_t narrow = element < 4 ? element : 0;
  return {
      {"head tiles", choice.unit_slots * rows * (head.weight->bytes / in_.skeleton->vocab_size())},
      {"dequantized head tile", rows * hidden * forms * element},
      {"logits of a tile, and their exponentials", tokens * rows * (4 + 8 + 4 + narrow)},
      {"hidden states", 4 * tokens * hidden * 4},
      {"operands widened to float32", widens_operands() ? WidenedProducts(tokens, hidden, rows) : 0},
      {"scratch of row chunks", static_cast<uint64_t>(in_.threads) * fitted::kEvalChunkScratch},
  };
}

std::vector<PlanItem> CostModel::HeadItems(const ExecutionPlan& choice) const {
  if (in_.needs->compares_logits) return EvalHeadItems(choice);
  const MetaSkeleton& skeleton = *in_.skeleton;
  const uint64_t hidden = skeleton.hidden_size(), element = element_size(), operand = operand_size();
  const uint64_t rows = std::min<uint64_t>(choice.head_tile_rows, skeleton.vocab_size());
  bool quantized = false, measured = false, random = false;
  for (const VariantNeeds& variant : in_.needs->variants) {
    const LinearNeeds& needs = variant.linears[skeleton.head().index];
    quantized = quantized || needs.quantizes_weight;
    measured = measured || needs.scored;
    random = random || variant.gradient == Gradient::kRandom;
  }
  const bool copied = skeleton.head().weight->dtype != in_.precision.dtype;
  // A random gradient has exponentials, their roots and the slopes of the logits at once, where there are slopes.
  const bool slopes = skeleton.spec().output.softcap > 0 || skeleton.spec().output.multiplier != 1;
  const uint64_t logits =
                     MicroBatchTokens(choice) * rows * (4 + (operand < 4 ? operand : 0) + (random ? 8 * slopes : 0)),
                 states = MicroBatchTokens(choice) * hidden * 4;
  return {
      {"head tiles", choice.unit_slots * rows * (skeleton.head().weight->bytes / skeleton.vocab_size())},
      {"dequantized head tile", rows * hidden * ((quantized + copied) * element + (rounds_operands() ? operand : 0))},
      {"gradient of a head tile", measured ? 2 * rows * hidden * operand : 0},
      {"logits of a tile", logits},
      // Two or, quantized, three of them beside the logits; six once those are gone.
      {"hidden states", std::max((in_.needs->quantizes_activations && measured ? 3 : 2) * states,
                                 6 * states - std::min(logits, 6 * states))},
      {"operands widened to float32", widens_operands() ? WidenedProducts(MicroBatchTokens(choice), hidden, rows) : 0},
      {"inputs and outputs under candidates",
       measured && candidates_ > 0 ? CandidateBytes(choice, static_cast<int64_t>(hidden), static_cast<int64_t>(rows)) +
                                         CandidateChunkBytes(rows * hidden) + this->tokens() * candidates_ * 4
                                   : 0},
      {"gradients and running sums of the head", choice.transient_in_ram() ? GradientBytes() + HeadSumBytes() : 0},
  };
}

// A candidate's rows and the unquantized ones, in float32; and as an operand.
uint64_t CostModel::CandidateChunkBytes(uint64_t numbers) const {
  if (candidates_ == 0) return 0;
  return numbers * (8 + (operand_size() < 4 ? operand_size() : 0));
}

uint64_t CostModel::CandidateBytes(const ExecutionPlan& choice, int64_t inputs, int64_t rows) const {
  if (candidates_ == 0) return 0;
  const uint64_t tokens = MicroBatchTokens(choice);
  // The errors themselves; the unquantized output beside a candidate's; inputs in float32 and quantized.
  const uint64_t wide = candidate_inputs_ > 0 ? candidate_inputs_ + (element_size() < 4) : 0;
  return tokens * candidates_ * 4 + tokens * rows * 4 * (1 + (candidate_inputs_ > 0)) +
         tokens * inputs * (4 * wide + (rounds_operands() ? operand_size() : 0));
}

uint64_t CostModel::WidenedUnitBytes(const ExecutionPlan& choice, const UnitSizes& unit) const {
  if (!widens_operands()) return 0;
  const int64_t tokens = static_cast<int64_t>(MicroBatchTokens(choice));
  uint64_t most = 0;
  for (const auto& [out, in] : unit.shapes) {
    const int64_t chunk = static_cast<int64_t>(ChunkBytes(choice, unit) / (in * element_size())) + 1;
    const int64_t rows = choice.cache_weights ? out : std::min(out, chunk);
    most = std::max(most, WidenedProducts(tokens, in, rows));
  }
  return most;
}

uint64_t CostModel::RuntimeBytes(const ExecutionPlan& choice, uint64_t others) const {
  const uint64_t operand = operand_size(), element = element_size();
  const bool narrow = operand < 4 && !widens_operands();
  if (in_.device.has_value()) return fitted::kRuntimeBytes + in_.threads * fitted::kRuntimeThreadBytes;
  uint64_t packed = 0;
  for (const UnitSizes& unit : Of(choice).classes) {
    const uint64_t left = MicroBatchTokens(choice) * unit.widest_input, chunk = ChunkBytes(choice, unit);
    const uint64_t weights = choice.cache_weights ? unit.largest_weight * element : chunk;
    const uint64_t wide =
        element < 4 ? WidenedUnitBytes(choice, unit) : left * 4 + std::min(weights, fitted::kMostPacked);
    packed = std::max(packed, narrow ? (left + chunk / element) * operand : wide / 4 * fitted::kPackedQuarters);
  }
  return fitted::kRuntimeBytes + in_.threads * fitted::kRuntimeThreadBytes +
         (narrow ? fitted::kBFloat16RuntimeBytes : 0) + packed +
         (std::max(others, fitted::kSmallRun) - fitted::kSmallRun) / fitted::kRuntimePart;
}

double CostModel::Flops(const ExecutionPlan& choice) const {
  const double tokens = static_cast<double>(this->tokens());
  const std::vector<Unit>& units = Of(choice).units;
  const Schedule schedule = this->schedule(choice);
  const std::vector<int> again = schedule.Recomputes();
  double flops = 0;
  for (int u = 0; u < static_cast<int>(units.size()); ++u) {
    const bool saved = u >= schedule.first_saved();
    for (const auto& [layer, recomputed] : units[u].linears) {
      int products = 0;
      for (const VariantNeeds& variant : in_.needs->variants) {
        const LinearNeeds& asked = variant.linears[layer->index];
        products += variant.forward_only ? 1
                                         : 2 + (!saved && recomputed) + again[u] + asked.weight_gradient +
                                               asked.candidates + (asked.candidate_inputs > 0);
      }
      flops += 2.0 * tokens * layer->out_features * layer->in_features * products;
    }
  }
  const LinearLayer& head = in_.skeleton->head();
  const double product = 2.0 * tokens * head.out_features * head.in_features;
  for (const VariantNeeds& variant : in_.needs->variants) {
    const LinearNeeds& asked = variant.linears[head.index];
    if (in_.needs->compares_logits) flops += product;
    if (variant.forward_only) continue;
    const int shown = asked.weight_gradient + asked.candidates + (asked.candidate_inputs > 0);
    flops += product * (2 + (variant.gradient == Gradient::kRandom) + (shown > 0) + shown);
  }
  return flops;
}

double CostModel::Seconds(const ExecutionPlan& choice, const MachineRates& rates) const {
  if (in_.device.has_value()) return DeviceSeconds(choice);
  const BatchShape shape = this->shape(choice);
  const double micro_batches = static_cast<double>(shape.micro_batches().size());
  const double micro_batch_tokens = static_cast<double>(MicroBatchTokens(choice));
  const double variants = in_.needs->count();
  const double units = this->units(choice.sublayers_per_unit);
  const double weights = static_cast<double>(Of(choice).most_weights) * units;

  // Products of few rows, and of small chunks of weights, run below the machine's best.
  double seconds = Flops(choice) / rates.flops * (1 + fitted::kTokensAtHalfSpeed / micro_batch_tokens) *
                   (1 + fitted::kChunkAtHalfSpeed / static_cast<double>(choice.chunk_bytes));
  const std::vector<int> recomputes = schedule(choice).Recomputes();
  const double again = std::accumulate(recomputes.begin(), recomputes.end(), 0.0) / units;
  seconds += weights * in_.quantize_s *
             (variants * (choice.cache_weights ? 2 : 3 * micro_batches) + candidates_ * micro_batches +
              static_cast<double>(gradients()) * again * (choice.cache_weights ? 1 : micro_batches));
  seconds +=
      2.0 * static_cast<double>(InputBytes(choice)) / (choice.inputs_in_ram() ? fitted::kCopyRate : rates.spill_bytes);
  // What passes goes in and out at every unit, the head's sums and inputs at every tile.
  const double tiles = static_cast<double>(in_.skeleton->vocab_size()) / static_cast<double>(choice.head_tile_rows);
  seconds += (2.0 * units * static_cast<double>(ActivationBytes() + GradientBytes()) +
              tiles * static_cast<double>(2 * HeadSumBytes() + ActivationBytes())) /
             (choice.transient_in_ram() ? fitted::kCopyRate : rates.spill_bytes);
  seconds +=
      tiles * micro_batches * micro_batch_tokens * variants * in_.skeleton->hidden_size() * 8 / fitted::kCopyRate;
  if (shape.cut()) seconds += weights * variants * 4 * (micro_batches + 1) / fitted::kCopyRate;

  const double read_s = static_cast<double>(ReadBytes(choice)) / rates.read_bytes;
  return choice.unit_slots > 1 ? std::max(seconds, read_s) + fitted::kUnhiddenReading * read_s : seconds + read_s;
}

}  // namespace autoscheme
