// CostModel: what a choice of the plan holds in memory, reads, spills, computes and takes.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "nn/costs.h"
#include "plan/micro_batches.h"
#include "plan/schedule.h"
#include "plan/units.h"
#include "planner/planner.h"
#include "tensor/widened.h"

namespace autoscheme {

// What a unit needs beside its slot.
struct UnitSizes {
  std::set<std::pair<int64_t, int64_t>> shapes;  // outputs and inputs of all linears
  uint64_t weights = 0;                          // numbers in all linears
  uint64_t row_bytes = 1;                        // longest row of a linear's weight, as stored; never 0
  uint64_t stored_width = 1;                     // bytes of its numbers, as stored
  uint64_t turned_bytes = 0;                     // the largest weight that is stored transposed; 0 = none
  uint64_t largest_weight = 0;                   // numbers in one of them
  int64_t widest_input = 0;                      // inputs of the widest linear
  int64_t largest_graph = 0;                     // activations per token of the largest sublayer
  int64_t recomputed = 0;                        // activations per token that a saved graph recomputes, of a sublayer
  Activations activations;                       // saved and graph of all sublayers, transient of the largest
  Scratch scratch;                               // the largest sublayer's
  // Heads, key heads, their width, window, and whether scores are capped.
  std::set<std::tuple<int64_t, int64_t, int64_t, int64_t, bool>> attentions;

  auto AsTuple() const {
    return std::tie(shapes, weights, row_bytes, stored_width, turned_bytes, largest_graph, recomputed,
                    activations.saved, activations.graph, activations.transient, attentions, scratch.shared,
                    scratch.forward, scratch.forward_outside, scratch.backward);
  }
  bool operator<(const UnitSizes& other) const { return AsTuple() < other.AsTuple(); }
};

uint64_t Sum(const std::vector<PlanItem>& items);
// Takes those of 0 bytes out.
void DropEmpty(std::vector<PlanItem>& items);

// One thread. Sizes are taken from the skeleton once; a choice is then judged in microseconds.
class CostModel {
 public:
  explicit CostModel(const PlanInput& input);

  // What is alive in host memory at the peak, by item.
  std::vector<PlanItem> Footprint(const ExecutionPlan& choice) const;
  uint64_t PeakBytes(const ExecutionPlan& choice) const;
  // The same in the memory of the device that the run computes on, and what its pools must hold.
  struct DeviceSizes {
    uint64_t pool = 0, weight_pool = 0;
    std::vector<PlanItem> items;  // pools and all else
    uint64_t peak = 0;            // their sum
  };
  DeviceSizes DeviceFootprint(const ExecutionPlan& choice) const;
  // Pinned host memory by which one tensor goes to its store and back.
  uint64_t StagingBytes(const ExecutionPlan& choice) const;
  // Size of the spill files, 0 when saved inputs stay in RAM.
  uint64_t SpillBytes(const ExecutionPlan& choice) const;
  uint64_t ReadBytes(const ExecutionPlan& choice) const;
  // Multiplications and additions of the matrix products.
  double Flops(const ExecutionPlan& choice) const;
  double Seconds(const ExecutionPlan& choice, const MachineRates& rates) const;

  int units(int sublayers_per_unit) const {
    return static_cast<int>(granularities_.at(sublayers_per_unit).units.size());
  }
  BatchShape shape(const ExecutionPlan& choice) const;

 private:
  struct Granularity {
    std::vector<Unit> units;
    std::set<UnitSizes> classes;          // units that need the same
    uint64_t slot_bytes = 0;              // the largest unit as stored, with the padding of a slot
    uint64_t two_slots_bytes = 0;         // the two slots that take the units in turns
    uint64_t small_slot_bytes = 0;        // the largest without the weights of linears
    uint64_t most_weights = 0;            // numbers in all linears of a unit
    std::vector<int64_t> saved = {0};     // activations per token in saved graphs of the last 0, 1, .. units
    std::vector<uint64_t> weights = {0};  // bytes as stored, of the last 0, 1, .. units
  };
  const Granularity& Of(const ExecutionPlan& choice) const { return granularities_.at(choice.sublayers_per_unit); }
  Schedule schedule(const ExecutionPlan& choice) const;
  uint64_t gradients() const;  // variants that have some
  uint64_t tokens() const;     // how many the calibration has
  uint64_t MicroBatchTokens(const ExecutionPlan& choice) const;
  uint64_t HiddenBytes() const;  // one hidden state of all tokens
  uint64_t InputBytes(const ExecutionPlan& choice) const;
  uint64_t ActivationBytes() const;                        // activations on their way up
  uint64_t GradientBytes() const;                          // gradients on their way down
  uint64_t HeadSumBytes() const;                           // in the stores of RunHead
  uint64_t TokenFigureBytes() const;                       // what EvaluationScorer and RunEvalHead keep
  uint64_t OuterBytes() const;                             // tensors outside the blocks, and rotary tables
  uint64_t SavedBytes(const ExecutionPlan& choice) const;  // activations of saved graphs
  // Activations of a unit that nothing will differentiate.
  uint64_t ForwardBytes(const ExecutionPlan& choice, const UnitSizes& unit) const;
  uint64_t StoredWeightBytes(const ExecutionPlan& choice, const UnitSizes& unit) const;
  // Rows of a weight that are dequantized together.
  uint64_t ChunkBytes(const ExecutionPlan& choice, const UnitSizes& unit) const;
  // Bytes of a number that is computed, and of one that a product of the backward pass takes.
  uint64_t element_size() const { return in_.precision.element_bytes(); }
  uint64_t operand_size() const { return in_.precision.operand_bytes(); }
  bool rounds_operands() const { return in_.precision.rounds_operands(); }
  bool widens_operands() const { return in_.precision.widens_operands(); }
  // The parts of a footprint; an item may be of 0 bytes. Units and the head never run at the same time.
  std::vector<PlanItem> LastingItems(const ExecutionPlan& choice) const;  // between the sweeps, and below them
  std::array<std::vector<PlanItem>, 3> UnitItems(const ExecutionPlan& choice, const UnitSizes& unit) const;
  std::vector<PlanItem> HeadItems(const ExecutionPlan& choice) const;
  std::vector<PlanItem> EvalHeadItems(const ExecutionPlan& choice) const;
  BatchedScratch DeviceAttention(const ExecutionPlan& choice, const UnitSizes& unit) const;
  std::vector<PlanItem> DeviceUnitItems(const ExecutionPlan& choice, const UnitSizes& unit) const;
  std::vector<PlanItem> HostItemsOfDevice(const ExecutionPlan& choice) const;
  double DeviceSeconds(const ExecutionPlan& choice) const;
  // What a scorer's candidates make of a linear layer's input and output, rows of the weight coming `rows` at a time; 0
  // without any.
  uint64_t CandidateChunkBytes(uint64_t numbers) const;
  uint64_t CandidateBytes(const ExecutionPlan& choice, int64_t inputs, int64_t rows) const;
  // Panels of operands that are widened to be multiplied.
  uint64_t WidenedUnitBytes(const ExecutionPlan& choice, const UnitSizes& unit) const;
  // The items and what the process takes beside them, without those of 0 bytes.
  std::vector<PlanItem> WithProcess(const ExecutionPlan& choice, std::vector<PlanItem> items) const;
  // What LibTorch adds to `others`, all else.
  uint64_t RuntimeBytes(const ExecutionPlan& choice, uint64_t others) const;

  const PlanInput& in_;
  int candidates_ = 0, candidate_inputs_ = 0;  // those of the layer that has most
  int64_t row_multiple_ = 1;                   // the most that a chunk must have; 0 = all of the weight
  bool weight_gradients_ = false;              // some layer's are shown
  std::map<int, Granularity> granularities_;   // by sublayers_per_unit
  mutable std::map<std::tuple<bool, int64_t, int, int, int, int>, uint64_t> read_bytes_;
};

}  // namespace autoscheme
