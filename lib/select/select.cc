#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "autoscheme/recipe.h"
#include "base/checked.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "scheme/bits.h"
#include "select/groups.h"
#include "select/losses.h"
#include "select/solver.h"

namespace autoscheme {
namespace {

// All that does not depend on the target.
struct Problem {
  std::vector<int> menu;                   // indices of table.schemes
  std::vector<std::vector<int64_t>> bits;  // bits[k][l]; a fixed layer has its own scheme's bits under every k
  std::vector<std::vector<int>> groups;    // layers chosen together, in the order of the decision
  std::vector<SolverKey> keys;             // finite options of each group
  std::vector<std::vector<int>> options;   // options[g][j]: the k of keys[g][j]
  std::vector<int> by_loss;                // every k, least total loss first
  int head_group = -1;                     // the head, where it is chosen and by itself
  std::vector<int64_t> total_bits;         // of every option applied to all layers
  int64_t fixed_bits = 0;
  int64_t total_params = 0;
};

absl::Status CheckTable(const ScoreTable& table);
absl::StatusOr<std::vector<int>> ResolveMenu(const ScoreTable& table, const std::vector<std::string>& names);
absl::StatusOr<Problem> MakeProblem(const ScoreTable& table, const SelectOptions& options, const Context& context);
absl::StatusOr<int64_t> Budget(const ScoreTable& table, const Problem& problem, double target);
void LimitHead(const ScoreTable& table, const Problem& problem, double target, int64_t budget, SolverKey* key,
               std::vector<int>* options);
Recipe MakeRecipe(const ScoreTable& table, const Problem& problem, const std::vector<int>& choice, double target);

}  // namespace

absl::StatusOr<std::vector<Recipe>> SelectRecipes(const ScoreTable& table, const SelectOptions& options,
                                                  const Context& context) {
  if (options.avg_bits.empty()) return absl::InvalidArgumentError("no target: give at least one average of bits");
  AUTOSCHEME_RETURN_IF_ERROR(CheckTable(table));
  AUTOSCHEME_ASSIGN_OR_RETURN(const Problem problem, MakeProblem(table, options, context));
  std::vector<Recipe> recipes;
  for (double target : options.avg_bits) {
    AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
    AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t budget, Budget(table, problem, target));
    std::vector<SolverKey> keys = problem.keys;
    std::vector<std::vector<int>> kept = problem.options;
    if (problem.head_group >= 0) {
      LimitHead(table, problem, target, budget, &keys[problem.head_group], &kept[problem.head_group]);
    }
    const absl::StatusOr<Solution> solution = SolveBudget(keys, budget, {}, context);
    if (absl::IsOutOfRange(solution.status())) {
      return absl::InvalidArgumentError(
          absl::StrCat("target of ", target, " bits: ", solution.status().message(),
                       ", as the loss of cheaper schemes is not finite; raise the target"));
    }
    if (!solution.ok()) return solution.status();
    std::vector<int> choice(table.layers.size(), -1);
    for (size_t g = 0; g < keys.size(); ++g) {
      for (int l : problem.groups[g]) choice[l] = kept[g][solution->choice[g]];
    }
    recipes.push_back(MakeRecipe(table, problem, choice, target));
    recipes.back().loss = solution->loss;
    recipes.back().gap = solution->gap;
    if (solution->gap > 0) {
      context.Warn(absl::StrCat("target of ", target, " bits: the choice is within ", solution->gap,
                                " of the least possible loss, but not proven to be the best"));
    }
    if (context.progress) {
      Progress progress;
      progress.stage = "select";
      progress.done = static_cast<int64_t>(recipes.size());
      progress.total = static_cast<int64_t>(options.avg_bits.size());
      AUTOSCHEME_RETURN_IF_ERROR(context.progress(progress));
    }
  }
  return recipes;
}

namespace {

absl::Status CheckTable(const ScoreTable& table) {
  if (table.schemes.empty()) return absl::InvalidArgumentError("the scores hold no scheme");
  if (table.layers.empty()) return absl::InvalidArgumentError("the scores hold no layer");
  if (table.scores.size() != table.schemes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the scores hold ", table.schemes.size(), " schemes but results for ", table.scores.size()));
  }
  for (size_t s = 0; s < table.schemes.size(); ++s) {
    AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(table.schemes[s]));
    if (table.scores[s].size() != table.layers.size()) {
      return absl::InvalidArgumentError(absl::StrCat("the scores of ", Quoted(table.schemes[s].name), " cover ",
                                                     table.scores[s].size(), " layers; the model has ",
                                                     table.layers.size()));
    }
  }
  absl::flat_hash_set<std::string> names;
  uint64_t params = 0;
  for (const LayerInfo& layer : table.layers) {
    if (!names.insert(layer.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("the scores hold the layer ", Quoted(layer.name), " twice"));
    }
    const auto weights = layer.out_features > 0 && layer.in_features > 0
                             ? CheckedMul(layer.out_features, layer.in_features)
                             : std::nullopt;
    const auto sum = weights.has_value() ? CheckedAdd(params, *weights) : std::nullopt;
    // 2^53: bits of all layers stay far inside an int64, and their average is exact enough.
    if (!sum.has_value() || *sum > uint64_t{1} << 53) {
      return absl::InvalidArgumentError(absl::StrCat("layer ", Quoted(layer.name), " has the shape [",
                                                     layer.out_features, ", ", layer.in_features,
                                                     "]; both must be positive and all weights at most 2^53"));
    }
    params = *sum;
    if (layer.fixed.has_value()) AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(*layer.fixed));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int>> ResolveMenu(const ScoreTable& table, const std::vector<std::string>& names) {
  std::vector<int> menu;
  if (names.empty()) {
    for (size_t s = 0; s < table.schemes.size(); ++s) menu.push_back(static_cast<int>(s));
    return menu;
  }
  for (const std::string& name : names) {
    int found = -1;
    for (size_t s = 0; s < table.schemes.size() && found < 0; ++s) {
      if (absl::EqualsIgnoreCase(table.schemes[s].name, name)) found = static_cast<int>(s);
    }
    if (found < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the scheme ", Quoted(name), " was not scored; scored are ",
          absl::StrJoin(table.schemes, ", ",
                        [](std::string* out, const Scheme& scheme) { absl::StrAppend(out, Quoted(scheme.name)); })));
    }
    if (std::find(menu.begin(), menu.end(), found) == menu.end()) menu.push_back(found);
  }
  return menu;
}

absl::StatusOr<Problem> MakeProblem(const ScoreTable& table, const SelectOptions& options, const Context& context) {
  Problem problem;
  AUTOSCHEME_ASSIGN_OR_RETURN(problem.menu, ResolveMenu(table, options.schemes));
  const size_t menu_size = problem.menu.size(), layer_count = table.layers.size();
  const std::vector<std::vector<double>> losses = MenuLosses(table, problem.menu);
  problem.bits.assign(menu_size, std::vector<int64_t>(layer_count));
  problem.total_bits.assign(menu_size, 0);
  for (size_t l = 0; l < layer_count; ++l) {
    const LayerInfo& layer = table.layers[l];
    problem.total_params += layer.out_features * layer.in_features;
    for (size_t k = 0; k < menu_size; ++k) {
      const Scheme& scheme = layer.fixed.has_value() ? *layer.fixed : table.schemes[problem.menu[k]];
      problem.bits[k][l] = LayerBits(scheme, layer.out_features, layer.in_features, options.ignore_scale_zp_bits);
      problem.total_bits[k] += problem.bits[k][l];
    }
    if (layer.fixed.has_value()) problem.fixed_bits += problem.bits[0][l];
  }

  problem.groups = GroupLayers(table.layers, options.shared_layers, context);
  std::vector<double> scheme_loss(menu_size, 0.0);
  int64_t dropped = 0;
  std::string first_dropped;
  for (size_t g = 0; g < problem.groups.size(); ++g) {
    const std::vector<int>& group = problem.groups[g];
    SolverKey key;
    std::vector<int> kept;
    std::string not_finite;
    for (size_t k = 0; k < menu_size; ++k) {
      SolverOption option;
      for (int l : group) {
        option.bits += problem.bits[k][l];
        option.loss += losses[k][l];
        if (!std::isfinite(losses[k][l]) && not_finite.empty()) {
          not_finite = absl::StrCat(Quoted(table.layers[l].name), " under ",
                                    Quoted(table.schemes[problem.menu[k]].name), " is ", losses[k][l]);
        }
      }
      scheme_loss[k] += option.loss;
      if (!std::isfinite(option.loss)) {
        ++dropped;
        continue;
      }
      key.push_back(option);
      kept.push_back(static_cast<int>(k));
    }
    if (key.empty()) {
      return absl::DataLossError(absl::StrCat("the loss of ", not_finite,
                                              ", and no other scheme gives it a finite one; score again with other "
                                              "schemes, tokens or dtype, or put the layer into ignore_layers"));
    }
    if (!not_finite.empty() && first_dropped.empty()) first_dropped = not_finite;
    if (group.size() == 1 && table.layers[group[0]].is_head) problem.head_group = static_cast<int>(g);
    problem.keys.push_back(std::move(key));
    problem.options.push_back(std::move(kept));
  }
  if (dropped > 0) {
    context.Warn(
        absl::StrCat(dropped, " choices are left out because their loss is not finite: that of ", first_dropped));
  }
  for (size_t k = 0; k < menu_size; ++k) {
    problem.by_loss.push_back(static_cast<int>(k));
    if (std::isnan(scheme_loss[k])) scheme_loss[k] = std::numeric_limits<double>::infinity();
  }
  std::stable_sort(problem.by_loss.begin(), problem.by_loss.end(),
                   [&](int a, int b) { return scheme_loss[a] < scheme_loss[b]; });
  return problem;
}

// Bits for the layers that are not fixed. The target must lie between the averages of the cheapest and the dearest
// scheme; within 0.001 of either it becomes that one (SPEC 6.2), and then exactly so.
absl::StatusOr<int64_t> Budget(const ScoreTable& table, const Problem& problem, double target) {
  const double params = static_cast<double>(problem.total_params);
  const auto [least, most] = std::minmax_element(problem.total_bits.begin(), problem.total_bits.end());
  const double low = static_cast<double>(*least) / params, high = static_cast<double>(*most) / params;
  if (std::abs(target - low) < 1e-3) return *least - problem.fixed_bits;
  if (std::abs(target - high) < 1e-3) return *most - problem.fixed_bits;
  if (!(target >= low && target <= high)) {
    std::string averages;
    for (size_t k = 0; k < problem.menu.size(); ++k) {
      absl::StrAppend(&averages, k == 0 ? "" : ", ", table.schemes[problem.menu[k]].name, " ",
                      static_cast<double>(problem.total_bits[k]) / params);
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "the target of ", target, " bits is outside the reachable range [", low, ", ", high, "] (averages: ", averages,
        problem.fixed_bits > 0 ? "; fixed layers included" : "", "); choose a target within it or other schemes"));
  }
  return static_cast<int64_t>(params * target) - problem.fixed_bits;
}

// SPEC 7.3: a head that is chosen by itself gets 6 bits or more where the menu and the budget allow it.
void LimitHead(const ScoreTable& table, const Problem& problem, double target, int64_t budget, SolverKey* key,
               std::vector<int>* options) {
  const auto scheme_bits = [&](int k) { return table.schemes[problem.menu[k]].bits; };
  std::vector<int> wide, allowed;
  for (size_t k = 0; k < problem.menu.size(); ++k) {
    if (scheme_bits(static_cast<int>(k)) >= 6) wide.push_back(static_cast<int>(k));
  }
  if (wide.empty()) {
    allowed = {problem.by_loss[0]};
  } else if (wide.size() > 1 && target > 6) {
    allowed = {
        *std::max_element(wide.begin(), wide.end(), [&](int a, int b) { return scheme_bits(a) < scheme_bits(b); })};
  } else {
    allowed = wide;
  }
  int64_t others = 0;
  for (size_t g = 0; g < problem.keys.size(); ++g) {
    if (static_cast<int>(g) == problem.head_group) continue;
    int64_t least = std::numeric_limits<int64_t>::max();
    for (const SolverOption& option : problem.keys[g]) least = std::min(least, option.bits);
    others += least;
  }
  const int head = problem.groups[problem.head_group][0];
  const auto fits = [&] {
    for (int k : allowed) {
      if (others + problem.bits[k][head] <= budget) return true;
    }
    return false;
  };
  for (size_t i = 0; i < problem.by_loss.size() && !fits(); ++i) allowed.push_back(problem.by_loss[i]);

  SolverKey limited;
  std::vector<int> limited_options;
  for (size_t j = 0; j < options->size(); ++j) {
    if (std::find(allowed.begin(), allowed.end(), (*options)[j]) == allowed.end()) continue;
    limited.push_back((*key)[j]);
    limited_options.push_back((*options)[j]);
  }
  if (limited.empty()) return;
  *key = std::move(limited);
  *options = std::move(limited_options);
}

Recipe MakeRecipe(const ScoreTable& table, const Problem& problem, const std::vector<int>& choice, double target) {
  Recipe recipe;
  recipe.target_avg_bits = target;
  recipe.total_params = problem.total_params;
  for (size_t l = 0; l < table.layers.size(); ++l) {
    const LayerInfo& layer = table.layers[l];
    const bool fixed = layer.fixed.has_value();
    recipe.total_bits += problem.bits[fixed ? 0 : choice[l]][l];
    recipe.layers.push_back({layer.name, fixed ? *layer.fixed : table.schemes[problem.menu[choice[l]]], fixed});
  }
  recipe.avg_bits = static_cast<double>(recipe.total_bits) / static_cast<double>(recipe.total_params);
  return recipe;
}

}  // namespace
}  // namespace autoscheme
