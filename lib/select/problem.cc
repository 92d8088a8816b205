#include "select/problem.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checked.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "scheme/bits.h"
#include "scheme/file_bytes.h"
#include "scheme/rules.h"
#include "select/groups.h"
#include "select/losses.h"
#include "select/special_layers.h"

namespace autoscheme {
namespace {

absl::Status CheckTable(const ScoreTable& table);
absl::StatusOr<std::vector<int>> ResolveMenu(const ScoreTable& table, const std::vector<std::string>& names);
absl::Status FillKeys(Problem* problem, const Context& context);

}  // namespace

absl::StatusOr<Problem> MakeProblem(const ScoreTable& table, const SelectOptions& options, const Context& context,
                                    Accounting accounting) {
  Problem problem;
  AUTOSCHEME_RETURN_IF_ERROR(CheckTable(table));
  AUTOSCHEME_ASSIGN_OR_RETURN(problem.menu, ResolveMenu(table, options.schemes));
  problem.table = &table;
  const size_t menu_size = problem.menu.size(), layer_count = table.layers.size();
  problem.bits.assign(menu_size, std::vector<int64_t>(layer_count));
  problem.total_bits.assign(menu_size, 0);
  for (size_t l = 0; l < layer_count; ++l) {
    const LayerInfo& layer = table.layers[l];
    problem.total_params += layer.out_features * layer.in_features;
    for (size_t k = 0; k < menu_size; ++k) {
      const Scheme& scheme = layer.fixed.has_value() ? *layer.fixed : table.schemes[problem.menu[k]];
      problem.bits[k][l] =
          accounting == Accounting::kFile
              ? 8 * StoredBytes(table, layer, scheme)
              : LayerBits(scheme, layer.out_features, layer.in_features, options.ignore_scale_zp_bits);
      problem.total_bits[k] += problem.bits[k][l];
    }
    if (layer.fixed.has_value()) {
      problem.fixed_bits += problem.bits[0][l];
    } else if (layer.is_embedding) {
      problem.embeddings.push_back(static_cast<int>(l));
    }
  }

  problem.groups = GroupLayers(table.layers, options.shared_layers, context);
  AUTOSCHEME_RETURN_IF_ERROR(FillKeys(&problem, context));
  return problem;
}

int64_t StoredBytes(const ScoreTable& table, const LayerInfo& layer, const Scheme& scheme) {
  if (layer.is_head && table.tied_head && scheme.bits >= 16) return 0;
  if (const auto stand_in = GgufFallback(scheme, layer)) return FileBytes(*stand_in, layer.out_features, layer.in_features);
  return FileBytes(scheme, layer.out_features, layer.in_features);
}

int64_t Problem::LeastGroupBits() const {
  int64_t sum = 0;
  for (const SolverKey& key : keys) {
    int64_t least = std::numeric_limits<int64_t>::max();
    for (const SolverOption& option : key) least = std::min(least, option.bits);
    sum += least;
  }
  return sum;
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

// The schemes that runtimes can hold all of the group's layers in; all where there is none.
std::vector<bool> SuitsGroup(const Problem& problem, const std::vector<int>& group) {
  std::vector<bool> suits(problem.menu.size(), true);
  for (size_t k = 0; k < suits.size(); ++k) {
    for (int l : group) suits[k] = suits[k] && SuitsShape(problem.scheme(static_cast<int>(k)), problem.table->layers[l]);
  }
  if (std::find(suits.begin(), suits.end(), true) == suits.end()) suits.assign(suits.size(), true);
  return suits;
}

// Options that do not suit a shape or have no finite loss are left out, with a warning; a group that has no finite one is an
// error.
absl::Status FillKeys(Problem* problem, const Context& context) {
  const ScoreTable& table = *problem->table;
  const size_t menu_size = problem->menu.size();
  const std::vector<std::vector<double>> losses = MenuLosses(table, problem->menu);
  std::vector<double> scheme_loss(menu_size, 0.0);
  int64_t dropped = 0, unsuited = 0;
  std::string first_dropped, first_unsuited;
  for (size_t g = 0; g < problem->groups.size(); ++g) {
    const std::vector<int>& group = problem->groups[g];
    SolverKey key;
    std::vector<int> kept;
    std::string not_finite;
    const std::vector<bool> suits = SuitsGroup(*problem, group);
    for (size_t k = 0; k < menu_size; ++k) {
      SolverOption option;
      for (int l : group) {
        option.bits += problem->bits[k][l];
        option.loss += losses[k][l];
        if (!std::isfinite(losses[k][l]) && not_finite.empty()) {
          not_finite = absl::StrCat(Quoted(table.layers[l].name), " under ",
                                    Quoted(table.schemes[problem->menu[k]].name), " is ", losses[k][l]);
        }
      }
      scheme_loss[k] += option.loss;
      if (!suits[k]) {
        if (unsuited++ == 0) {
          first_unsuited = absl::StrCat(Quoted(table.layers[group[0]].name), " under ", Quoted(table.schemes[problem->menu[k]].name));
        }
        continue;
      }
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
    if (group.size() == 1 && table.layers[group[0]].is_head) problem->head_group = static_cast<int>(g);
    problem->keys.push_back(std::move(key));
    problem->options.push_back(std::move(kept));
  }
  if (dropped > 0) {
    context.Warn(
        absl::StrCat(dropped, " choices are left out because their loss is not finite: that of ", first_dropped));
  }
  if (unsuited > 0) {
    context.Warn(absl::StrCat(unsuited, " choices are left out because the scheme's groups do not divide the layer, such as ",
                              first_unsuited));
  }
  for (size_t k = 0; k < menu_size; ++k) {
    problem->by_loss.push_back(static_cast<int>(k));
    if (std::isnan(scheme_loss[k])) scheme_loss[k] = std::numeric_limits<double>::infinity();
  }
  std::stable_sort(problem->by_loss.begin(), problem->by_loss.end(),
                   [&](int a, int b) { return scheme_loss[a] < scheme_loss[b]; });
  return absl::OkStatus();
}

}  // namespace
}  // namespace autoscheme
