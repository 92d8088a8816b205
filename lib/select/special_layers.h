// Layers that do not simply take the solver's choice: the head and the embedding.
#pragma once

#include <cstdint>
#include <vector>

#include "select/problem.h"

namespace autoscheme {

// What the reference's rules (docs/algorithm.md 8.4, 8.5) leave to the solver at one budget.
struct SpecialLayers {
  int embedding = -1;  // the option (an index into problem.menu) of all embeddings; -1: there are none
  std::vector<int>
      head;  // the options of a head that is chosen by itself, in the order of the menu; empty: there is none

  bool operator==(const SpecialLayers& o) const { return embedding == o.embedding && head == o.head; }
};

// The embedding gets a scheme of about the target's bits, the head one of 6 bits and more, where menu and budget allow
// it. `budget`: bits for all layers that are not fixed; `avg_bits`: the average that it stands for.
SpecialLayers ApplyRules(const Problem& problem, double avg_bits, int64_t budget);

// Budgets up to which the rules may say one thing and beyond which another, in no order.
std::vector<int64_t> RuleSteps(const Problem& problem);

}  // namespace autoscheme
