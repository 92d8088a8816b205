// A score table and a menu turned into what the solver takes: all that does not depend on the target.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/recipe.h"
#include "select/solver.h"

namespace autoscheme {

// A bit of the budget is one of the reference's accounting (docs/algorithm.md 7.1), or one of the stored file (7.2).
enum class Accounting { kReference, kFile };

struct Problem {
  std::vector<int> menu;  // indices of table.schemes; k below indexes this
  // By layer: its scheme where there is no choice, because the layer or another one of its shared group is fixed.
  std::vector<std::optional<Scheme>> fixed;
  std::vector<std::vector<int64_t>>
      bits;  // bits[k][l], of stand-ins where they take over; of a fixed layer under every k the same
  std::vector<int64_t> total_bits;  // total_bits[k]: k applied to every layer that is not fixed
  int64_t fixed_bits = 0;
  double fixed_loss = 0;  // sum over layers that a fixed layer of their group has fixed, as far as it was measured
  int64_t total_params = 0;
  std::vector<std::vector<int>> groups;   // layers chosen together, in the order of the decision
  std::vector<SolverKey> keys;            // finite options of each group
  std::vector<std::vector<int>> options;  // options[g][j]: the k of keys[g][j]
  std::vector<int> by_loss;               // every k, least total loss first
  int head_group = -1;                    // the head, where it is chosen and by itself
  std::vector<int> embeddings;            // layers that get their scheme by a rule and not by the solver
  int64_t least_group_bits = 0;           // the least that all groups together can cost
  bool reference_rules = false;
  const ScoreTable* table = nullptr;

  const Scheme& scheme(int k) const { return table->schemes[menu[k]]; }
  // What a layer that is not fixed is charged as under k: its stand-in, but under the reference's rules k itself.
  Scheme Charged(int k, int layer) const;
  int64_t EmbeddingBits(int k) const;  // all embeddings under k
  double Average(int64_t bits_of_all) const {
    return static_cast<double>(bits_of_all) / static_cast<double>(total_params);
  }

  // The least and the most that all layers together can cost. Between them every budget has a choice.
  int64_t LeastBits() const;
  int64_t MostBits() const;
};

// `table` is borrowed. Errors: as SelectRecipes.
absl::StatusOr<Problem> MakeProblem(const ScoreTable& table, const SelectOptions& options, const Context& context,
                                    Accounting accounting = Accounting::kReference);

// Bytes of a layer in the stored file. A head that is the embedding is stored a second time only if it is quantized.
int64_t StoredBytes(const ScoreTable& table, const LayerInfo& layer, const Scheme& scheme);

}  // namespace autoscheme
