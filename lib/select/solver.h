// Exact multiple-choice knapsack: one option for each key, least loss within a budget of bits (docs/algorithm.md 8.6).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"

namespace autoscheme {

struct SolverOption {
  int64_t bits = 0;  // >= 0
  double loss = 0;   // finite
};
// The options of one key (a layer, or layers that are chosen together), in the order of the menu.
using SolverKey = std::vector<SolverOption>;

struct SolverLimits {
  // Partial solutions that are remembered, over all keys; 4 bytes each. Beyond it the answer may be unproven.
  int64_t max_nodes = 16 << 20;
  // Partial solutions that are extended at one key; 24 bytes each.
  int64_t max_states = 1 << 18;
  // Extensions of a partial solution by an option, over all sweeps: 20 to 50 million a second.
  int64_t max_steps = 32 << 20;
};

struct Solution {
  std::vector<int> choice;  // index into each key's options
  int64_t bits = 0;
  double loss = 0;  // summed in key order
  // No choice within the budget is better than loss - gap; 0 when the answer is proven optimal.
  double gap = 0;
  int64_t peak_states = 0;  // most partial solutions alive at one key
  int64_t nodes = 0;        // partial solutions remembered by the last pass
};

// Deterministic. Ties are those of the reference's dynamic programme: among choices of least loss the one of least
// bits; among those the one whose earlier keys are cheaper (docs/algorithm.md 8.6), wherever gap is
// 0 and no limit was met.
//
// Errors: OUT_OF_RANGE when even the cheapest options do not fit (names both numbers); INVALID_ARGUMENT for a key
// without options, a loss that is not finite or bits that are negative; CANCELLED.
absl::StatusOr<Solution> SolveBudget(absl::Span<const SolverKey> keys, int64_t budget, const SolverLimits& limits = {},
                                     const Context& context = {});

}  // namespace autoscheme
