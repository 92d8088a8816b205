#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "autoscheme/recipe.h"
#include "base/status_macros.h"
#include "scheme/bits.h"
#include "select/problem.h"
#include "select/solver.h"
#include "select/special_layers.h"

namespace autoscheme {
namespace {

struct Target {
  double avg_bits = 0;
  int64_t bytes = 0;   // of the whole model; 0: avg_bits is what was asked for
  int64_t budget = 0;  // bits for the layers that are not fixed
  std::string text;    // for messages
};

absl::StatusOr<Recipe> SelectOne(const Problem& problem, const Target& target, const SelectOptions& options,
                                 const Context& context);
absl::StatusOr<int64_t> Budget(const Problem& problem, double target);
absl::StatusOr<int64_t> SizeBudget(const Problem& problem, int64_t target_bytes);
Recipe MakeRecipe(const Problem& problem, const std::vector<int>& choice, const Target& target, bool ignore_scale_zp_bits);

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
    AUTOSCHEME_ASSIGN_OR_RETURN(const Problem problem, MakeProblem(table, options, context, Accounting::kFile));
    for (const int64_t bytes : options.target_bytes) {
      AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t budget, SizeBudget(problem, bytes));
      const double avg_bits = static_cast<double>(budget + problem.fixed_bits) / static_cast<double>(problem.total_params);
      AUTOSCHEME_RETURN_IF_ERROR(solve(problem, {avg_bits, bytes, budget, absl::StrCat(bytes, " bytes")}));
    }
  }
  return recipes;
}

namespace {

absl::StatusOr<Recipe> SelectOne(const Problem& problem, const Target& target, const SelectOptions& options,
                                 const Context& context) {
  int64_t budget = target.budget;
  std::vector<int> choice(problem.table->layers.size(), -1);
  if (!problem.embeddings.empty()) {
    const int k = ChooseEmbedding(problem, target.avg_bits, budget);
    for (int l : problem.embeddings) {
      choice[l] = k;
      budget -= problem.bits[k][l];
    }
  }
  std::vector<SolverKey> keys = problem.keys;
  std::vector<std::vector<int>> kept = problem.options;
  LimitHead(problem, target.avg_bits, budget, &keys, &kept);
  const absl::StatusOr<Solution> solution = SolveBudget(keys, budget, {}, context);
  if (absl::IsOutOfRange(solution.status())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the target of ", target.text, " leaves too little: ", solution.status().message(), "; raise the target"));
  }
  if (!solution.ok()) return solution.status();
  for (size_t g = 0; g < keys.size(); ++g) {
    for (int l : problem.groups[g]) choice[l] = kept[g][solution->choice[g]];
  }
  if (solution->gap > 0) {
    context.Warn(absl::StrCat("target of ", target.text, ": the choice is within ", solution->gap,
                              " of the least possible loss, but not proven to be the best"));
  }
  Recipe recipe = MakeRecipe(problem, choice, target, options.ignore_scale_zp_bits);
  recipe.loss = solution->loss;
  recipe.gap = solution->gap;
  return recipe;
}

// Bits for the layers that are not fixed. The target must lie between the averages of the cheapest and the dearest
// scheme; within 0.001 of either it becomes that one (SPEC 6.2), and then exactly so.
absl::StatusOr<int64_t> Budget(const Problem& problem, double target) {
  const double params = static_cast<double>(problem.total_params);
  const auto [least, most] = std::minmax_element(problem.total_bits.begin(), problem.total_bits.end());
  const double low = static_cast<double>(*least) / params, high = static_cast<double>(*most) / params;
  if (std::abs(target - low) < 1e-3) return *least - problem.fixed_bits;
  if (std::abs(target - high) < 1e-3) return *most - problem.fixed_bits;
  if (!(target >= low && target <= high)) {
    std::string averages;
    for (size_t k = 0; k < problem.menu.size(); ++k) {
      absl::StrAppend(&averages, k == 0 ? "" : ", ", problem.scheme(static_cast<int>(k)).name, " ",
                      static_cast<double>(problem.total_bits[k]) / params);
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "the target of ", target, " bits is outside the reachable range [", low, ", ", high, "] (averages: ", averages,
        problem.fixed_bits > 0 ? "; fixed layers included" : "", "); choose a target within it or other schemes"));
  }
  return static_cast<int64_t>(params * target) - problem.fixed_bits;
}

// A size beyond the dearest scheme's is simply more than enough.
absl::StatusOr<int64_t> SizeBudget(const Problem& problem, int64_t target_bytes) {
  const ScoreTable& table = *problem.table;
  if (table.other_bytes < 0) {
    return absl::InvalidArgumentError(
        "the scores do not say how large the model's other tensors are; score again with this version, or give a target in bits");
  }
  const int64_t least = *std::min_element(problem.total_bits.begin(), problem.total_bits.end()) / 8 + table.other_bytes;
  if (target_bytes < least) {
    return absl::InvalidArgumentError(absl::StrCat("the target of ", target_bytes, " bytes is below the ", least,
                                                   " bytes of the model under its cheapest scheme, of which ", table.other_bytes,
                                                   " are tensors that stay as they are; raise the target or choose other schemes"));
  }
  const int64_t most = *std::max_element(problem.total_bits.begin(), problem.total_bits.end()) / 8 + table.other_bytes;
  return 8 * (std::min(target_bytes, most) - table.other_bytes) - problem.fixed_bits;
}

Recipe MakeRecipe(const Problem& problem, const std::vector<int>& choice, const Target& target, bool ignore_scale_zp_bits) {
  Recipe recipe;
  recipe.target_bytes = target.bytes;
  recipe.total_params = problem.total_params;
  for (size_t l = 0; l < problem.table->layers.size(); ++l) {
    const LayerInfo& layer = problem.table->layers[l];
    LayerChoice entry;
    entry.layer = layer.name;
    entry.fixed = layer.fixed.has_value();
    entry.scheme = entry.fixed ? *layer.fixed : problem.scheme(choice[l]);
    // As in the reference the stand-in is not budgeted: the average may exceed the target.
    if (auto fallback = GgufFallback(entry.scheme, layer)) entry.scheme = *std::move(fallback);
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
