// Schedule: in which order the sweeps take the units, and which block inputs they store on the way.
#ifndef AUTOSCHEME_EXEC_SCHEDULE_H_
#define AUTOSCHEME_EXEC_SCHEDULE_H_

#include <algorithm>
#include <vector>

namespace autoscheme {

enum class Pass { kForward, kBackward };

// One unit to read and compute. `again`: forward a second time, for the inputs that were not stored.
struct UnitStep {
  int unit = 0;
  Pass pass = Pass::kForward;
  bool again = false;
};

// Whether it is the first to take its unit.
inline bool IsFirst(const UnitStep& step) { return step.pass == Pass::kForward && !step.again; }

// Boundary k is the input of unit k. The graphs of the last `kept` units stay in memory. Of those below, the input of
// every `interval`-th is stored until the backward pass has used it. Those between live in places that each stretch of
// `interval` units uses anew; before the backward pass comes to a stretch, its units but the last run forward once more
// (checkpointing in the sense of Chen et al. 2016, "Training deep nets with sublinear memory cost"). The places of the
// uppermost stretch still hold what the forward pass left there.
class Schedule {
 public:
  Schedule(int units, int kept, int interval) : units_(units), first_kept_(std::max(units - kept, 0)), interval_(interval) {}

  std::vector<UnitStep> Forward() const;
  std::vector<UnitStep> Backward() const;
  std::vector<int> Again() const;  // of each unit: how often it runs forward again

  int first_kept() const { return first_kept_; }
  bool Stored(int boundary) const { return boundary % interval_ == 0; }
  // Index among the stored boundaries above boundary 0, for a stored one; among the places, for another.
  int Place(int boundary) const { return Stored(boundary) ? boundary / interval_ - 1 : boundary % interval_ - 1; }
  int stored_count() const { return first_kept_ > 0 ? (first_kept_ - 1) / interval_ : 0; }
  int place_count() const;
  int top() const { return stored_count() * interval_; }  // first unit of the uppermost stretch

 private:
  int units_, first_kept_, interval_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_EXEC_SCHEDULE_H_
