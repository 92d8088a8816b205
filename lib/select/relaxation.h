// The linear relaxation of the knapsack: a bound for every partial choice, and a first good choice.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "select/solver.h"

namespace autoscheme {

// One step along the lower convex hull of a key's options: `bits` more and `loss` less.
struct HullStep {
  int key = 0;
  int from = 0, to = 0;                                              // indices of options
  int64_t bits = 0;                                                  // > 0
  double loss = 0;                                                   // > 0
  double value() const { return loss / static_cast<double>(bits); }  // loss saved per bit
};

// The hulls of all keys: the options that they start from, the cheapest ones, with what these cost together; and all
// steps by falling value, which keeps those of one key in sequence.
struct Hulls {
  std::vector<int> base;
  SolverOption cost;
  std::vector<HullStep> steps;
};
Hulls LowerHulls(absl::Span<const SolverKey> keys);

struct Relaxation {
  double bound = 0;       // no choice within the budget has less loss
  double multiplier = 0;  // loss per bit at the budget: the value of the step that no longer fits
  double greedy_loss = 0;
  std::vector<int> greedy;  // a choice within the budget: steps by value, skipping those that do not fit
};
// The budget must hold every key's cheapest option.
Relaxation Relax(absl::Span<const SolverKey> keys, int64_t budget);

}  // namespace autoscheme
