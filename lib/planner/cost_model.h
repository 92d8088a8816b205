// CostModel: what a choice of the plan holds in memory, reads, spills, computes and takes.
#ifndef AUTOSCHEME_PLANNER_COST_MODEL_H_
#define AUTOSCHEME_PLANNER_COST_MODEL_H_

#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "plan/micro_batches.h"
#include "plan/schedule.h"
#include "plan/units.h"
#include "planner/planner.h"
#include "tensor/widened.h"

namespace autoscheme {

// Of the largest unit, each on its own, but for two_slots_bytes.
struct UnitSizes {
  int count = 0;
  uint64_t slot_bytes = 0;                       // as stored, with the padding of a slot
  uint64_t two_slots_bytes = 0;                  // of the two slots that take the units in turns
  uint64_t small_slot_bytes = 0;                 // the same without the weights of linears
  uint64_t weights = 0;                          // numbers in all linears
  uint64_t row_bytes = 1;                        // longest row of a linear's weight, as stored; never 0
  uint64_t largest_weight = 0;                   // numbers in one of them
  std::set<std::pair<int64_t, int64_t>> shapes;  // outputs and inputs of all linears
  int64_t graph = 0;                             // activations per token in a graph that is differentiated at once
  int64_t recomputed = 0;                        // and that a saved graph recomputes, of a sublayer
  int64_t transient = 0;                         // and that come and go beside either
  int64_t widest_input = 0;                      // of a linear
  uint64_t shared_scratch = 0;                   // bytes, forward
  uint64_t row_scratch = 0;                      // bytes, of each row that a thread is at, forward
  uint64_t row_scratch_outside = 0;              // bytes of these that do not lie in the pool of the run's tensors
  uint64_t thread_scratch = 0;                   // bytes, of each thread, backward
};

// One thread. Sizes are taken from the skeleton once; a choice is then judged in microseconds.
class CostModel {
 public:
  explicit CostModel(const PlanInput& input);

  // What is alive at the peak, by item.
  std::vector<PlanItem> Footprint(const ExecutionPlan& choice) const;
  uint64_t PeakBytes(const ExecutionPlan& choice) const;
  // Size of the spill files, 0 when saved inputs stay in RAM.
  uint64_t SpillBytes(const ExecutionPlan& choice) const;
  uint64_t ReadBytes(const ExecutionPlan& choice) const;
  // Multiplications and additions of the matrix products.
  double Flops(const ExecutionPlan& choice) const;
  double Seconds(const ExecutionPlan& choice, const MachineRates& rates) const;

  const UnitSizes& sizes(const ExecutionPlan& choice) const { return Of(choice).sizes; }
  int units(int sublayers_per_unit) const { return granularities_.at(sublayers_per_unit).sizes.count; }
  BatchShape shape(const ExecutionPlan& choice) const;

 private:
  struct Granularity {
    std::vector<Unit> units;
    UnitSizes sizes;
    std::vector<int64_t> saved;     // activations per token in saved graphs of the last 0, 1, .. units
    std::vector<uint64_t> weights;  // bytes as stored, of the last 0, 1, .. units
  };
  const Granularity& Of(const ExecutionPlan& choice) const { return granularities_.at(choice.sublayers_per_unit); }
  Schedule schedule(const ExecutionPlan& choice) const;
  uint64_t gradients() const;  // variants that have some
  uint64_t tokens() const;     // of the calibration
  uint64_t MicroBatchTokens(const ExecutionPlan& choice) const;
  uint64_t HiddenBytes() const;  // of one hidden state of all tokens
  uint64_t InputBytes(const ExecutionPlan& choice) const;
  uint64_t ActivationBytes() const;                        // activations on their way up
  uint64_t GradientBytes() const;                          // gradients on their way down
  uint64_t HeadSumBytes() const;                           // in the stores of RunHead
  uint64_t SavedBytes(const ExecutionPlan& choice) const;  // activations of saved graphs
  uint64_t ChunkBytes(const ExecutionPlan& choice) const;  // rows of a weight that are dequantized together
  // Bytes of a number that is computed, and of one that a product of the backward pass takes.
  uint64_t element_size() const { return in_.precision.element_bytes(); }
  uint64_t operand_size() const { return in_.precision.operand_bytes(); }
  bool rounds_operands() const { return in_.precision.rounds_operands(); }
  bool widens_operands() const { return in_.precision.widens_operands(); }
  // The parts of a footprint; an item may be of 0 bytes. Units and the head never run at the same time.
  std::vector<PlanItem> LastingItems(const ExecutionPlan& choice) const;  // between the sweeps, and below them
  std::vector<PlanItem> UnitItems(const ExecutionPlan& choice) const;
  std::vector<PlanItem> HeadItems(const ExecutionPlan& choice) const;
  // Panels of operands that are widened to be multiplied: in a unit, in the head.
  uint64_t WidenedUnitBytes(const ExecutionPlan& choice) const;
  uint64_t WidenedHeadBytes(const ExecutionPlan& choice) const;
  uint64_t RuntimeBytes(const ExecutionPlan& choice,
                        uint64_t others) const;  // what LibTorch adds to `others`, all else

  const PlanInput& in_;
  std::map<int, Granularity> granularities_;  // by sublayers_per_unit
  mutable std::map<std::tuple<bool, int64_t, int, int, int, int>, uint64_t> read_bytes_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_PLANNER_COST_MODEL_H_
