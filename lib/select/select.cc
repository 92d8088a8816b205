#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "autoscheme/recipe.h"
#include "base/status_macros.h"
#include "formats/bits.h"
#include "formats/stand_in.h"
#include "select/problem.h"
#include "select/relaxation.h"
#include "select/solver.h"
#include "select/special_layers.h"

namespace autoscheme {
namespace {

struct Target {
  double avg_bits = 0;
  int64_t bytes = 0;   // the whole model's; 0: avg_bits is what was asked for
  int64_t budget = 0;  // bits for the layers that are not fixed
  std::string text;    // for messages
};

// What is solved for a target: what the rules leave, within which budget, and what came out.
struct Attempt {
  SpecialLayers special;
  int64_t budget = 0;  // bits for the layers that are not fixed
  FreeKeys left;
  Solution solution;
};

absl::StatusOr<Recipe> SelectOne(const Problem& problem, const Target& target, const SelectOptions& options,
                                 const Context& context);
std::vector<Attempt> Attempts(const Problem& problem, const Target& target);
absl::StatusOr<bool> Solve(const Problem& problem, const Target& target, const std::optional<Attempt>& best,
                           Attempt* attempt, const Context& context);
absl::StatusOr<int64_t> Budget(const Problem& problem, double target);
absl::StatusOr<int64_t> SizeBudget(const Problem& problem, int64_t target_bytes);
Recipe MakeRecipe(const Problem& problem, const std::vector<int>& choice, const Target& target,
                  bool ignore_scale_zp_bits);

}  // namespace

absl::StatusOr<std::vector<Recipe>> SelectRecipes(const ScoreTable& table, const SelectOptions& options,
                                                  const Context& context) {
  if (options.avg_bits.empty() && options.target_bytes.empty()) {
    return absl::InvalidArgumentError("no target: give at least one average of bits, or one size");
  }
  std::vector<Recipe> recipes;
  const auto solve = [&](const Problem& problem, const Target& target) -> absl::Status {
    AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
    AUTOSCHEME_ASSIGN_OR_RETURN(Recipe recipe, SelectOne(problem, target, options, context));
    recipes.push_back(std::move(recipe));
    if (!context.progress) return absl::OkStatus();
    Progress progress;
    progress.stage = "select";
    progress.done = static_cast<int64_t>(recipes.size());
    progress.total = static_cast<int64_t>(options.avg_bits.size() + options.target_bytes.size());
    return context.progress(progress);
  };
  if (!options.avg_bits.empty()) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const Problem problem, MakeProblem(table, options, context));
    for (const double avg_bits : options.avg_bits) {
      AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t budget, Budget(problem, avg_bits));
      AUTOSCHEME_RETURN_IF_ERROR(solve(problem, {avg_bits, 0, budget, absl::StrCat(avg_bits, " bits")}));
    }
  }
  if (!options.target_bytes.empty()) {
    // Its warnings have been said where there are targets in bits too.
    Context quiet = context;
    if (!options.avg_bits.empty()) quiet.log = nullptr;
    AUTOSCHEME_ASSIGN_OR_RETURN(const Problem problem, MakeProblem(table, options, quiet, Accounting::kFile));
    for (const int64_t bytes : options.target_bytes) {
      AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t budget, SizeBudget(problem, bytes));
      const double avg_bits = problem.Average(budget + problem.fixed_bits);
      AUTOSCHEME_RETURN_IF_ERROR(solve(problem, {avg_bits, bytes, budget, absl::StrCat(bytes, " bytes")}));
    }
  }
  return recipes;
}

namespace {

// What the rules say at the target's own budget, and whatever else they allow within it: a larger target never gives a
// worse choice than a smaller one.
absl::StatusOr<Recipe> SelectOne(const Problem& problem, const Target& target, const SelectOptions& options,
                                 const Context& context) {
  std::vector<Attempt> attempts = Attempts(problem, target);
  std::optional<Attempt> best;
  double bound = 0;  // no attempt can lose less
  for (Attempt& attempt : attempts) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const bool solved, Solve(problem, target, best, &attempt, context));
    if (!solved) continue;
    const double attempt_bound = attempt.solution.loss - attempt.solution.gap;
    bound = best.has_value() ? std::min(bound, attempt_bound) : attempt_bound;
    if (!best.has_value() || attempt.solution.loss < best->solution.loss) best = std::move(attempt);
  }

  std::vector<int> choice(problem.table->layers.size(), -1);
  for (int l : problem.embeddings) choice[l] = best->special.embedding;
  for (size_t g = 0; g < problem.groups.size(); ++g) {
    for (int l : problem.groups[g]) choice[l] = best->left.options[g][best->solution.choice[g]];
  }
  Recipe recipe = MakeRecipe(problem, choice, target, options.ignore_scale_zp_bits);
  recipe.loss = best->solution.loss + problem.fixed_loss;
  recipe.gap = std::max(0.0, best->solution.loss - bound);
  if (recipe.gap > 0) {
    context.Warn(absl::StrCat("target of ", target.text, ": the choice is within ", recipe.gap,
                              " of the least possible loss, but not proven to be the best"));
  }
  return recipe;
}

// The target's own regime first; by our own rules then all others: the nearest below it, and those above it.
std::vector<Attempt> Attempts(const Problem& problem, const Target& target) {
  const double avg_bits =
      problem.reference_rules ? target.avg_bits : problem.Average(target.budget + problem.fixed_bits);
  std::vector<Attempt> attempts = {{ApplyRules(problem, avg_bits, target.budget), target.budget, {}, {}}};
  if (problem.reference_rules) return attempts;
  std::vector<Regime> others = Regimes(problem);
  std::stable_sort(others.begin(), others.end(), [&](const Regime& a, const Regime& b) {
    const bool below = a.most < target.budget;
    return below != (b.most < target.budget) ? below : below && a.most > b.most;
  });
  for (Regime& other : others) {
    if (other.special == attempts.front().special) continue;
    attempts.push_back({std::move(other.special), std::min(other.most, target.budget), {}, {}});
  }
  return attempts;
}

// False for an attempt that cannot be better than `best`.
absl::StatusOr<bool> Solve(const Problem& problem, const Target& target, const std::optional<Attempt>& best,
                           Attempt* attempt, const Context& context) {
  attempt->left = KeysUnder(problem, attempt->special);
  const std::vector<SolverKey>& keys = attempt->left.keys;
  const int64_t budget = attempt->budget - attempt->left.embedding_bits;
  if (best.has_value() && (LowerHulls(keys).cost.bits > budget || Relax(keys, budget).bound >= best->solution.loss)) {
    return false;
  }
  absl::StatusOr<Solution> solution = SolveBudget(keys, budget, {}, context);
  if (absl::IsOutOfRange(solution.status())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the target of ", target.text, " leaves too little: ", solution.status().message(),
                     "; raise the target to at least ", problem.Average(problem.LeastBits()), " bits"));
  }
  if (!solution.ok()) return solution.status();
  attempt->solution = *std::move(solution);
  return true;
}

// Bits for the layers that are not fixed (docs/algorithm.md 8.3). The target must lie between the least and the most
// that the layers can cost; the reference takes the averages of the cheapest and the dearest scheme for that. Within
// 0.001 of either it becomes that one there, and then exactly so; by our own rules only below the lower end, where
// there would be no choice otherwise. Between the ends our budget is the largest whose average, as it is reported, does
// not exceed the target; the reference's product may round to one bit more or less.
absl::StatusOr<int64_t> Budget(const Problem& problem, double target) {
  const auto [cheapest, dearest] = std::minmax_element(problem.total_bits.begin(), problem.total_bits.end());
  const int64_t least = problem.reference_rules ? *cheapest : problem.LeastBits();
  const int64_t most = problem.reference_rules ? *dearest : problem.MostBits();
  const double low = problem.Average(least), high = problem.Average(most);
  if (std::abs(target - low) < 1e-3 && (problem.reference_rules || target < low)) return least - problem.fixed_bits;
  if (problem.reference_rules && std::abs(target - high) < 1e-3) return most - problem.fixed_bits;
  // The dearest scheme's own average is a target that means something, also where a layer cannot have that scheme.
  const double limit = std::max(high, problem.Average(*dearest)) + 1e-3;
  if (!(target >= low && target <= limit)) {
    std::string averages;
    for (size_t k = 0; k < problem.menu.size(); ++k) {
      absl::StrAppend(&averages, k == 0 ? "" : ", ", problem.scheme(static_cast<int>(k)).name, " ",
                      problem.Average(problem.total_bits[k]));
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "the target of ", target, " bits is outside the reachable range [", low, ", ", high, "] (averages: ", averages,
        problem.fixed_bits > 0 ? "; fixed layers included" : "", "); choose a target within it or other schemes"));
  }
  auto bits = static_cast<int64_t>(static_cast<double>(problem.total_params) * target);
  if (!problem.reference_rules) {
    while (problem.Average(bits) > target) --bits;
    while (problem.Average(bits + 1) <= target) ++bits;
  }
  return bits - problem.fixed_bits;
}

// A size beyond the dearest choice's is simply more than enough.
absl::StatusOr<int64_t> SizeBudget(const Problem& problem, int64_t target_bytes) {
  const ScoreTable& table = *problem.table;
  if (table.other_bytes < 0) {
    return absl::InvalidArgumentError(
        "the scores do not say how large the model's other tensors are; score again with this version, or give a "
        "target in bits");
  }
  const int64_t least = problem.LeastBits() / 8 + table.other_bytes;
  if (target_bytes < least) {
    return absl::InvalidArgumentError(
        absl::StrCat("the target of ", target_bytes, " bytes is below the ", least,
                     " bytes of the smallest model that these schemes make, of which ", table.other_bytes,
                     " are tensors that stay as they are; raise the target or choose other schemes"));
  }
  const int64_t most = problem.MostBits() / 8 + table.other_bytes;
  return 8 * (std::min(target_bytes, most) - table.other_bytes) - problem.fixed_bits;
}

Recipe MakeRecipe(const Problem& problem, const std::vector<int>& choice, const Target& target,
                  bool ignore_scale_zp_bits) {
  Recipe recipe;
  recipe.target_bytes = target.bytes;
  recipe.total_params = problem.total_params;
  for (size_t l = 0; l < problem.table->layers.size(); ++l) {
    const LayerInfo& layer = problem.table->layers[l];
    LayerChoice entry;
    entry.layer = layer.name;
    entry.fixed = problem.fixed[l].has_value();
    entry.scheme = StoredScheme(entry.fixed ? *problem.fixed[l] : problem.scheme(choice[l]), layer);
    recipe.total_bits += LayerBits(entry.scheme, layer.out_features, layer.in_features, ignore_scale_zp_bits);
    recipe.layer_bytes += StoredBytes(*problem.table, layer, entry.scheme);
    recipe.layers.push_back(std::move(entry));
  }
  recipe.avg_bits = static_cast<double>(recipe.total_bits) / static_cast<double>(recipe.total_params);
  recipe.target_avg_bits = target.bytes > 0 ? recipe.avg_bits : target.avg_bits;
  if (problem.table->other_bytes >= 0) recipe.model_bytes = recipe.layer_bytes + problem.table->other_bytes;
  return recipe;
}

}  // namespace
}  // namespace autoscheme
