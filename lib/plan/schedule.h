// Schedule: in which order the sweeps take the units, and which inputs of units they save on the way.
#pragma once

#include <algorithm>
#include <vector>

#include "plan/execution_plan.h"

namespace autoscheme {

enum class Pass { kForward, kBackward, kRecompute };

// One unit to read and compute. kRecompute: forward once more, for inputs that were not saved.
struct UnitStep {
  int unit = 0;
  Pass pass = Pass::kForward;
};

// Input k is what unit k takes. The autograd graphs of the last `saved` units stay in memory. Of the units below, the
// input of every `interval`-th is saved until the backward pass has used it. The inputs between share a few places,
// which each group of `interval` units uses anew: before the backward pass comes to a group, its units but the last run
// forward once more (Chen et al. 2016, "Training deep nets with sublinear memory cost"). For the uppermost group, the
// places still hold what the forward pass left there.
class Schedule {
 public:
  Schedule(int units, int saved, int interval)
      : units_(units), first_saved_(std::max(units - saved, 0)), interval_(interval) {}

  std::vector<UnitStep> Forward() const;
  std::vector<UnitStep> Backward() const;
  std::vector<int> Recomputes() const;  // by unit: how often it runs forward again

  int first_saved() const { return first_saved_; }
  bool Saved(int input) const { return input % interval_ == 0; }
  // Index of input k > 0: among the saved inputs, or among the shared places.
  int Place(int input) const { return Saved(input) ? input / interval_ - 1 : input % interval_ - 1; }
  int saved_count() const { return first_saved_ > 0 ? (first_saved_ - 1) / interval_ : 0; }
  int recomputed_count() const;
  int top() const { return saved_count() * interval_; }  // first unit of the uppermost group

 private:
  int units_, first_saved_, interval_;
};

// The plan's. Where nothing is differentiated there are no graphs to save.
inline Schedule ScheduleOf(const ExecutionPlan& plan, int units, bool gradients) {
  return Schedule(units, gradients ? plan.saved_units : 0, plan.input_interval);
}

}  // namespace autoscheme
