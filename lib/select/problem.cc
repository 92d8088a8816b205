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
#include "base/count.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "formats/bits.h"
#include "formats/data_types.h"
#include "formats/rules.h"
#include "formats/scorer_names.h"
#include "formats/stand_in.h"
#include "select/groups.h"
#include "select/losses.h"

namespace autoscheme {
namespace {

// How many there are of what is warned of, and which was the first.
struct Tally {
  void Add(const std::string& example) {
    if (count++ == 0) first = example;
  }
  int64_t count = 0;
  std::string first;
};

absl::Status CheckTable(const ScoreTable& table);
absl::StatusOr<std::vector<int>> ResolveMenu(const ScoreTable& table, const std::vector<std::string>& names);
absl::Status CheckStandIns(const Problem& problem, const Context& context);
void ReplaceFixed(Problem* problem, const Context& context);
absl::Status FixSharedGroups(const std::vector<LayerGroup>& groups, const std::vector<std::vector<double>>& losses,
                             Problem* problem, const Context& context);
void CountBits(Accounting accounting, bool ignore_scale_zp_bits, Problem* problem);
absl::Status FillKeys(const std::vector<LayerGroup>& groups, const std::vector<std::vector<double>>& losses,
                      Problem* problem, const Context& context);

}  // namespace

absl::StatusOr<Problem> MakeProblem(const ScoreTable& table, const SelectOptions& options, const Context& context,
                                    Accounting accounting) {
  Problem problem;
  AUTOSCHEME_RETURN_IF_ERROR(CheckTable(table));
  AUTOSCHEME_ASSIGN_OR_RETURN(problem.menu, ResolveMenu(table, options.schemes));
  problem.table = &table;
  problem.reference_rules = options.reference_rules;
  AUTOSCHEME_RETURN_IF_ERROR(CheckStandIns(problem, context));
  for (const LayerInfo& layer : table.layers) problem.fixed.push_back(layer.fixed);
  AUTOSCHEME_RETURN_IF_ERROR(CheckSharedLayers(table.layers, options.shared_layers));
  const std::vector<LayerGroup> groups = GroupLayers(table.layers, options.shared_layers);
  const std::vector<std::vector<double>> losses = MenuLosses(table, problem.menu);
  if (options.reference_rules && table.scorer != kTwoTermScorer) {
    return absl::InvalidArgumentError(absl::StrCat("reference_rules choose as AutoRound does, from scores of ",
                                                   kTwoTermScorer, "; these were made by ", Quoted(table.scorer)));
  }
  if (!options.reference_rules) {
    ReplaceFixed(&problem, context);
    AUTOSCHEME_RETURN_IF_ERROR(FixSharedGroups(groups, losses, &problem, context));
  }
  for (const LayerGroup& group : groups) {
    if (!group.members.empty() && !problem.fixed[group.members[0]].has_value()) problem.groups.push_back(group.members);
  }
  CountBits(accounting, options.ignore_scale_zp_bits, &problem);
  AUTOSCHEME_RETURN_IF_ERROR(FillKeys(groups, losses, &problem, context));
  return problem;
}

int64_t StoredBytes(const ScoreTable& table, const LayerInfo& layer, const Scheme& scheme) {
  if (layer.is_head && table.tied_head && scheme.bits >= 16) return 0;
  return FileBytes(StoredScheme(scheme, layer), layer.out_features, layer.in_features);
}

Scheme Problem::Charged(int k, int layer) const {
  return reference_rules ? scheme(k) : StoredScheme(scheme(k), table->layers[layer]);
}

int64_t Problem::EmbeddingBits(int k) const {
  int64_t sum = 0;
  for (int l : embeddings) sum += bits[k][l];
  return sum;
}

int64_t Problem::LeastBits() const {
  int64_t embedding = std::numeric_limits<int64_t>::max();
  for (size_t k = 0; k < menu.size(); ++k) embedding = std::min(embedding, EmbeddingBits(static_cast<int>(k)));
  return fixed_bits + embedding + least_group_bits;
}

int64_t Problem::MostBits() const {
  int64_t sum = 0;
  for (size_t k = 0; k < menu.size(); ++k) sum = std::max(sum, EmbeddingBits(static_cast<int>(k)));
  for (const SolverKey& key : keys) {
    int64_t most = 0;
    for (const SolverOption& option : key) most = std::max(most, option.bits);
    sum += most;
  }
  return fixed_bits + sum;
}

namespace {

absl::Status CheckTable(const ScoreTable& table) {
  if (table.schemes.empty()) return absl::InvalidArgumentError("the scores hold no scheme");
  if (table.layers.empty()) return absl::InvalidArgumentError("the scores hold no layer");
  if (table.scores.size() != table.schemes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the scores hold ", Count(table.schemes.size(), "scheme"),
                                                   " but results for ", table.scores.size()));
  }
  for (size_t s = 0; s < table.schemes.size(); ++s) {
    AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(table.schemes[s]));
    if (table.scores[s].size() != table.layers.size()) {
      return absl::InvalidArgumentError(absl::StrCat("the scores of ", Quoted(table.schemes[s].name), " cover ",
                                                     Count(table.scores[s].size(), "layer"), "; the model has ",
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

// Scores that were measured with stand-ins belong to the rules that charge them, and the other way round.
absl::Status CheckStandIns(const Problem& problem, const Context& context) {
  const ScoreTable& table = *problem.table;
  Tally replaced, unmeasured;
  for (const int s : problem.menu) {
    for (size_t l = 0; l < table.layers.size(); ++l) {
      const LayerInfo& layer = table.layers[l];
      if (layer.fixed.has_value()) continue;
      const std::optional<Scheme> stand_in = StandIn(table.schemes[s], layer);
      if (!stand_in.has_value()) continue;
      const std::string example = absl::StrCat(Quoted(layer.name), " with rows of ", layer.in_features, ": ",
                                               Quoted(stand_in->name), " for ", Quoted(table.schemes[s].name));
      if (problem.reference_rules && table.scores[s][l].stand_in) {
        return absl::InvalidArgumentError(
            absl::StrCat("these scores were measured with the stand-ins of k-quants (", example,
                         "), which reference_rules leaves out: score again with reference_rules"));
      }
      replaced.Add(example);
      if (!layer.is_embedding && !table.scores[s][l].stand_in) unmeasured.Add(example);
    }
  }
  if (problem.reference_rules) return absl::OkStatus();
  if (replaced.count > 0) {
    context.Warn(absl::StrCat(
        "k-quants hold rows of multiples of 256 weights only: others take their place and are charged, such as in ",
        replaced.first));
  }
  if (unmeasured.count > 0) {
    context.Warn(absl::StrCat("the scores lack the loss of ", Count(unmeasured.count, "stand-in"), ", such as ",
                              unmeasured.first,
                              "; that of the k-quant is taken instead: score again for a better choice"));
  }
  return absl::OkStatus();
}

// Fixed k-quants become what stands in for them, by name.
void ReplaceFixed(Problem* problem, const Context& context) {
  Tally replaced;
  for (size_t l = 0; l < problem->fixed.size(); ++l) {
    std::optional<Scheme>& fixed = problem->fixed[l];
    const LayerInfo& layer = problem->table->layers[l];
    std::optional<Scheme> stand_in = fixed.has_value() ? StandIn(*fixed, layer) : std::nullopt;
    if (!stand_in.has_value()) continue;
    replaced.Add(absl::StrCat(Quoted(layer.name), ", whose rows of ", layer.in_features, " weights ",
                              Quoted(fixed->name), " cannot hold, gets ", Quoted(stand_in->name)));
    fixed = std::move(stand_in);
  }
  if (replaced.count > 0) {
    context.Warn(absl::StrCat(
        replaced.count, replaced.count == 1 ? " fixed layer gets" : " fixed layers get",
        " another scheme than the one asked for, because its blocks of 256 weights do not divide the rows: ",
        replaced.first));
  }
}

// Whether a runtime can hold both in one tensor.
bool Alike(const Scheme& a, const Scheme& b) {
  return SameScheme(a, b) || (a.IsPassThrough() && b.IsPassThrough() && a.bits == b.bits);
}

absl::Status GroupError(const Problem& problem, const LayerGroup& group, const std::string& why) {
  const auto& layers = problem.table->layers;
  std::vector<int> all = group.bystanders;
  all.insert(all.end(), group.members.begin(), group.members.end());
  std::vector<std::string> names;
  for (size_t i = 0; i < all.size() && i < 4; ++i) names.push_back(Quoted(layers[all[i]].name));
  if (all.size() > names.size()) names.push_back(absl::StrCat("and ", all.size() - names.size(), " more"));
  const int block = layers[all[0]].block;
  const bool one_block =
      block >= 0 && std::all_of(all.begin(), all.end(), [&](int l) { return layers[l].block == block; });
  return absl::InvalidArgumentError(absl::StrCat("shared_layers: ", absl::StrJoin(names, ", "),
                                                 one_block ? absl::StrCat(" of block ", block) : "",
                                                 " must have one scheme, but ", why));
}

// The loss of a layer under a scheme that need not be on the menu; nothing where it was not measured.
std::optional<double> MeasuredLoss(const Problem& problem, const std::vector<std::vector<double>>& losses, int layer,
                                   const Scheme& scheme) {
  if (scheme.IsPassThrough()) return 0;
  const LayerInfo& info = problem.table->layers[layer];
  for (size_t k = 0; k < problem.menu.size(); ++k) {
    const bool same = Alike(problem.Charged(static_cast<int>(k), layer), scheme);
    if (same && std::isfinite(losses[k][layer])) return losses[k][layer];
  }
  for (size_t s = 0; s < problem.table->schemes.size(); ++s) {
    if (!Alike(StoredScheme(problem.table->schemes[s], info), scheme)) continue;
    std::vector<int> longer = problem.menu;
    longer.push_back(static_cast<int>(s));
    const double loss = MenuLosses(*problem.table, longer).back()[layer];
    if (std::isfinite(loss)) return loss;
  }
  return std::nullopt;
}

// Gives the free layers of a shared group the scheme of its fixed ones.
absl::Status FixSharedGroups(const std::vector<LayerGroup>& groups, const std::vector<std::vector<double>>& losses,
                             Problem* problem, const Context& context) {
  const auto& layers = problem->table->layers;
  Tally taken, unmeasured;
  for (const LayerGroup& group : groups) {
    if (!group.shared || group.bystanders.empty()) continue;
    const int given = group.bystanders[0];
    const auto by = [&](int l) {
      return absl::StrCat(Quoted(layers[l].name), " is fixed at ", Quoted(problem->fixed[l]->name));
    };
    for (int l : group.bystanders) {
      if (group.bystanders.size() + group.members.size() == 1) break;
      if (!problem->fixed[l].has_value()) {
        return GroupError(*problem, group,
                          absl::StrCat(Quoted(layers[l].name),
                                       " is the embedding, whose scheme follows a rule of its own; take it out"));
      }
      if (!Alike(*problem->fixed[l], *problem->fixed[given])) {
        return GroupError(*problem, group,
                          absl::StrCat(by(given), " and ", by(l), "; fix them alike, or take one out of the group"));
      }
    }
    for (int l : group.members) {
      const Scheme& scheme = *problem->fixed[given];
      if (!SuitsShape(scheme, layers[l]) || StandIn(scheme, layers[l]).has_value()) {
        return GroupError(
            *problem, group,
            absl::StrCat(by(given), ", which does not suit ", Quoted(layers[l].name), " [", layers[l].out_features,
                         ", ", layers[l].in_features, "]; fix another scheme, or take one out of the group"));
      }
      problem->fixed[l] = scheme;
      taken.Add(
          absl::StrCat(Quoted(layers[l].name), " takes ", Quoted(scheme.name), " from ", Quoted(layers[given].name)));
      const std::optional<double> loss = MeasuredLoss(*problem, losses, l, scheme);
      problem->fixed_loss += loss.value_or(0);
      if (!loss.has_value()) unmeasured.Add(absl::StrCat(Quoted(layers[l].name), " under ", Quoted(scheme.name)));
    }
  }
  if (taken.count > 0) {
    context.Warn(absl::StrCat(taken.count, taken.count == 1 ? " layer is" : " layers are",
                              " fixed because another of the same shared group is: ", taken.first));
  }
  if (unmeasured.count > 0) {
    context.Warn(absl::StrCat("the predicted loss leaves out ", Count(unmeasured.count, "layer"),
                              " whose scheme comes from a fixed layer of the shared group and was not scored, such as ",
                              unmeasured.first, "; score with that scheme among the schemes too, and it counts"));
  }
  return absl::OkStatus();
}

void CountBits(Accounting accounting, bool ignore_scale_zp_bits, Problem* problem) {
  const ScoreTable& table = *problem->table;
  const size_t menu_size = problem->menu.size(), layer_count = table.layers.size();
  problem->bits.assign(menu_size, std::vector<int64_t>(layer_count));
  problem->total_bits.assign(menu_size, 0);
  for (size_t l = 0; l < layer_count; ++l) {
    const LayerInfo& layer = table.layers[l];
    const std::optional<Scheme>& fixed = problem->fixed[l];
    problem->total_params += layer.out_features * layer.in_features;
    for (size_t k = 0; k < menu_size; ++k) {
      const Scheme scheme = fixed.has_value() ? *fixed : problem->Charged(static_cast<int>(k), static_cast<int>(l));
      problem->bits[k][l] = accounting == Accounting::kFile
                                ? 8 * StoredBytes(table, layer, scheme)
                                : LayerBits(scheme, layer.out_features, layer.in_features, ignore_scale_zp_bits);
      problem->total_bits[k] += problem->bits[k][l];
    }
    if (fixed.has_value()) {
      problem->fixed_bits += problem->bits[0][l];
    } else if (layer.is_embedding) {
      problem->embeddings.push_back(static_cast<int>(l));
    }
  }
}

// The options that all of a group can have: each suits every layer, and in a shared group it is the same type for all
// of them. Under the reference's rules all, where none is.
std::vector<bool> SuitsGroup(const Problem& problem, const LayerGroup& group) {
  std::vector<bool> suits(problem.menu.size(), true);
  for (size_t k = 0; k < suits.size(); ++k) {
    const int option = static_cast<int>(k);
    for (int l : group.members) {
      suits[k] = suits[k] && SuitsShape(problem.scheme(option), problem.table->layers[l]);
      if (group.shared)
        suits[k] = suits[k] && Alike(problem.Charged(option, group.members[0]), problem.Charged(option, l));
    }
  }
  const bool none = std::find(suits.begin(), suits.end(), true) == suits.end();
  if (none && problem.reference_rules) suits.assign(suits.size(), true);
  return suits;
}

absl::Status NothingSuits(const Problem& problem, const LayerGroup& group) {
  std::vector<std::string> schemes;
  for (size_t k = 0; k < problem.menu.size(); ++k) schemes.push_back(Quoted(problem.scheme(static_cast<int>(k)).name));
  const std::string menu = absl::StrJoin(schemes, ", ");
  const LayerInfo& layer = problem.table->layers[group.members[0]];
  if (group.shared && group.members.size() > 1) {
    return GroupError(
        problem, group,
        absl::StrCat("none of ", menu,
                     " suits all of them as one type; add a scheme that does, or take one out of the group"));
  }
  return absl::InvalidArgumentError(absl::StrCat("none of ", menu, " suits ", Quoted(layer.name), " [",
                                                 layer.out_features, ", ", layer.in_features,
                                                 "]: add a scheme that does, or put the layer into ignore_layers"));
}

void WarnLeftOut(const Context& context, const Tally& choices, absl::string_view why) {
  if (choices.count == 0) return;
  context.Warn(absl::StrCat(Count(choices.count, "choice"), choices.count == 1 ? " is" : " are", " left out ", why,
                            choices.first));
}

// Options that do not suit a shape or have no finite loss are left out, with a warning; a group that has none left is
// an error.
absl::Status FillKeys(const std::vector<LayerGroup>& groups, const std::vector<std::vector<double>>& losses,
                      Problem* problem, const Context& context) {
  const ScoreTable& table = *problem->table;
  const size_t menu_size = problem->menu.size();
  std::vector<double> scheme_loss(menu_size, 0.0);
  Tally dropped, unsuited;
  for (const LayerGroup& group : groups) {
    const std::vector<int>& members = group.members;
    if (members.empty() || problem->fixed[members[0]].has_value()) continue;
    SolverKey key;
    std::vector<int> kept;
    std::string not_finite;
    const std::vector<bool> suits = SuitsGroup(*problem, group);
    if (std::find(suits.begin(), suits.end(), true) == suits.end()) return NothingSuits(*problem, group);
    for (size_t k = 0; k < menu_size; ++k) {
      SolverOption option;
      for (int l : members) {
        option.bits += problem->bits[k][l];
        option.loss += losses[k][l];
        if (!std::isfinite(losses[k][l]) && not_finite.empty()) {
          not_finite = absl::StrCat(Quoted(table.layers[l].name), " under ",
                                    Quoted(table.schemes[problem->menu[k]].name), " is ", losses[k][l]);
        }
      }
      scheme_loss[k] += option.loss;
      if (!suits[k]) {
        unsuited.Add(absl::StrCat(Quoted(table.layers[members[0]].name), " under ",
                                  Quoted(table.schemes[problem->menu[k]].name)));
        continue;
      }
      if (!std::isfinite(option.loss)) {
        dropped.Add(not_finite);
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
    if (members.size() == 1 && table.layers[members[0]].is_head)
      problem->head_group = static_cast<int>(problem->keys.size());
    int64_t least = std::numeric_limits<int64_t>::max();
    for (const SolverOption& option : key) least = std::min(least, option.bits);
    problem->least_group_bits += least;
    problem->keys.push_back(std::move(key));
    problem->options.push_back(std::move(kept));
  }
  WarnLeftOut(context, dropped, "because the loss is not finite: that of ");
  WarnLeftOut(context, unsuited, "for shapes that the scheme does not suit, such as ");
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
