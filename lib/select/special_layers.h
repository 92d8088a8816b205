// Layers that do not simply take the solver's choice: the head and the embedding.
#pragma once

#include <cstdint>
#include <vector>

#include "select/problem.h"

namespace autoscheme {

// What the reference's rules (docs/algorithm.md 8.4, 8.5) leave to the solver at one budget: the embedding gets a
// scheme of about the target's bits, the head one of 6 bits and more, where menu and budget allow it.
struct SpecialLayers {
  int embedding = -1;  // the option (an index into problem.menu) of all embeddings; -1: there are none
  std::vector<int>
      head;  // the options of a head that is chosen by itself, in the order of the menu; empty: there is none

  bool operator==(const SpecialLayers& o) const { return embedding == o.embedding && head == o.head; }
};

// `budget`: bits for all layers that are not fixed; `avg_bits`: the average that it stands for.
SpecialLayers ApplyRules(const Problem& problem, double avg_bits, int64_t budget);

// One thing that the rules say, and the bits of the choices by it that may be taken, fixed layers not counted. By our
// own rules these are all up to the largest budget at which the rules say so: a larger target may take what a smaller
// one has. The reference follows what the rules say at the target alone, so that the bits are those of one stretch.
struct Regime {
  SpecialLayers special;
  int64_t least = 0, most = 0;
};
// Everything that the rules say at one budget or another, by rising `most`.
std::vector<Regime> Regimes(const Problem& problem);

// What is left to the solver: the options of every group, the head's cut down to the allowed ones.
struct FreeKeys {
  std::vector<SolverKey> keys;
  std::vector<std::vector<int>> options;  // as Problem::options
  int64_t embedding_bits = 0;             // what the embeddings take of the budget
};
FreeKeys KeysUnder(const Problem& problem, const SpecialLayers& special);

}  // namespace autoscheme
