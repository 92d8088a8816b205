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

// What is solved for a target: a budget, what the rules leave, and what came out.
struct Attempt {
  Attempt(const Problem& problem, double avg_bits, int64_t bits)
      : budget(bits), special(ApplyRules(problem, avg_bits, bits)) {}
  int64_t budget = 0;  // bits for the layers that are not fixed
  SpecialLayers special;
  std::vector<std::vector<int>>
      options;  // options[g][j]: the index into problem.menu that solution.choice[g] == j means
  Solution solution;
};

absl::StatusOr<Recipe> SelectOne(const Problem& problem, const Target& target, const SelectOptions& options,
                                 const Context& context);
void AddSmallerBudgets(const Problem& problem, std::vector<Attempt>* attempts);
absl::StatusOr<bool> Solve(const Problem& problem, const Target& target, const std::optional<Attempt>& best,
                           Attempt* attempt, const Context& context);
double Average(const Problem& problem, int64_t bits);
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
      const double avg_bits = Average(problem, budget + problem.fixed_bits);
      AUTOSCHEME_RETURN_IF_ERROR(solve(problem, {avg_bits, bytes, budget, absl::StrCat(bytes, " bytes")}));
    }
  }
  return recipes;
}

namespace {

// The target's own budget and rules, and the smaller budgets at whose end the rules said something else: a larger
// target never gives a worse choice than a smaller one.
absl::StatusOr<Recipe> SelectOne(const Problem& problem, const Target& target, const SelectOptions& options,
                                 const Context& context) {
  std::vector<Attempt> attempts = {Attempt(problem, target.avg_bits, target.budget)};
  if (!problem.reference_rules) AddSmallerBudgets(problem, &attempts);
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
    for (int l : problem.groups[g]) choice[l] = best->options[g][best->solution.choice[g]];
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

// One attempt for every other thing that the rules say below the first attempt's budget, each at the largest such
// budget.
void AddSmallerBudgets(const Problem& problem, std::vector<Attempt>* attempts) {
  const int64_t least = problem.LeastBits() - problem.fixed_bits;
  std::vector<int64_t> steps = RuleSteps(problem);
  std::sort(steps.begin(), steps.end(), std::greater<>());
  for (const int64_t step : steps) {
    if (step >= attempts->front().budget || step < least) continue;
    Attempt attempt(problem, Average(problem, step + problem.fixed_bits), step);
    const bool known =
        std::any_of(attempts->begin(), attempts->end(), [&](const Attempt& a) { return a.special == attempt.special; });
    if (!known) attempts->push_back(std::move(attempt));
  }
}

// False for an attempt that cannot be better than `best`.
absl::StatusOr<bool> Solve(const Problem& problem, const Target& target, const std::optional<Attempt>& best,
                           Attempt* attempt, const Context& context) {
  int64_t budget = attempt->budget;
  if (attempt->special.embedding >= 0) budget -= problem.EmbeddingBits(attempt->special.embedding);
  std::vector<SolverKey> keys = problem.keys;
  attempt->options = problem.options;
  if (problem.head_group >= 0) {
    SolverKey& key = keys[problem.head_group];
    std::vector<int>& options = attempt->options[problem.head_group];
    size_t kept = 0;
    for (size_t j = 0; j < options.size(); ++j) {
      const std::vector<int>& allowed = attempt->special.head;
      if (std::find(allowed.begin(), allowed.end(), options[j]) == allowed.end()) continue;
      key[kept] = key[j], options[kept] = options[j];
      ++kept;
    }
    key.resize(kept), options.resize(kept);
  }
  if (best.has_value() && Relax(keys, budget).bound >= best->solution.loss) return false;
  absl::StatusOr<Solution> solution = SolveBudget(keys, budget, {}, context);
  if (absl::IsOutOfRange(solution.status())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the target of ", target.text, " leaves too little: ", solution.status().message(),
                     "; raise the target to at least ", Average(problem, problem.LeastBits()), " bits"));
  }
  if (!solution.ok()) return solution.status();
  attempt->solution = *std::move(solution);
  return true;
}

double Average(const Problem& problem, int64_t bits) {
  return static_cast<double>(bits) / static_cast<double>(problem.total_params);
}

// Bits for the layers that are not fixed (docs/algorithm.md 8.3). The target must lie between the least and the most
// that the layers can cost; the reference takes the averages of the cheapest and the dearest scheme for that. Within
// 0.001 of either it becomes that one there, and then exactly so; by our own rules at the lower end only, where there
// would be no choice otherwise.
absl::StatusOr<int64_t> Budget(const Problem& problem, double target) {
  const auto [cheapest, dearest] = std::minmax_element(problem.total_bits.begin(), problem.total_bits.end());
  const int64_t least = problem.reference_rules ? *cheapest : problem.LeastBits();
  const int64_t most = problem.reference_rules ? *dearest : problem.MostBits();
  const double low = Average(problem, least), high = Average(problem, most);
  if (std::abs(target - low) < 1e-3) return least - problem.fixed_bits;
  if (problem.reference_rules && std::abs(target - high) < 1e-3) return most - problem.fixed_bits;
  // The dearest scheme's own average is a target that means something, also where a layer cannot have that scheme.
  const double limit = std::max(high, Average(problem, *dearest)) + 1e-3;
  if (!(target >= low && target <= limit)) {
    std::string averages;
    for (size_t k = 0; k < problem.menu.size(); ++k) {
      absl::StrAppend(&averages, k == 0 ? "" : ", ", problem.scheme(static_cast<int>(k)).name, " ",
                      Average(problem, problem.total_bits[k]));
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "the target of ", target, " bits is outside the reachable range [", low, ", ", high, "] (averages: ", averages,
        problem.fixed_bits > 0 ? "; fixed layers included" : "", "); choose a target within it or other schemes"));
  }
  return static_cast<int64_t>(static_cast<double>(problem.total_params) * target) - problem.fixed_bits;
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
