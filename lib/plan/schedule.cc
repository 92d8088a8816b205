#include "plan/schedule.h"

#include <algorithm>

namespace autoscheme {

int Schedule::recomputed_count() const { return std::max(std::min(interval_, first_saved_) - 1, 0); }

std::vector<UnitStep> Schedule::Forward() const {
  std::vector<UnitStep> steps;
  for (int u = 0; u < units_; ++u) steps.push_back({u, Pass::kForward});
  return steps;
}

std::vector<UnitStep> Schedule::Backward() const {
  std::vector<UnitStep> steps;
  for (int u = units_ - 1; u >= first_saved_; --u) steps.push_back({u, Pass::kBackward});
  for (int first = top(); first >= 0; first -= interval_) {
    const int last = std::min(first + interval_, first_saved_) - 1;
    for (int u = first; first < top() && u < last; ++u) steps.push_back({u, Pass::kRecompute});
    for (int u = last; u >= first; --u) steps.push_back({u, Pass::kBackward});
  }
  return steps;
}

std::vector<int> Schedule::Recomputes() const {
  std::vector<int> counts(units_);
  for (const UnitStep& step : Backward()) counts[step.unit] += step.pass == Pass::kRecompute;
  return counts;
}

}  // namespace autoscheme
