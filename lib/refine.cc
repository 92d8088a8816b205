// Refinement, round by round: draw corrections of the losses -> select by each -> measure side by side -> learn.
#include "refine.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/count.h"
#include "base/status_macros.h"
#include "formats/scheme_json.h"
#include "formats/stand_in.h"
#include "run_setup.h"
#include "select/loss_correction.h"
#include "select/losses.h"

namespace autoscheme {
namespace {

// Sweeps: what one has measured steers what the next one tries. The first ones look further.
constexpr int64_t kRounds = 3;
constexpr double kWidths[kRounds] = {1, 0.5, 0.25};
// So many draws in a row that lead to a recipe which is known already, and no more are tried in this round.
constexpr int kFruitlessDraws = 8;
// Depths of the model whose layers may be off by a factor of their own.
constexpr int kDepths = 3;

// How many further recipes each round measures, of each choice.
std::vector<int64_t> Rounds(int64_t evaluations) {
  std::vector<int64_t> rounds;
  for (int64_t left = std::min(kRounds, evaluations); left > 0; --left) {
    rounds.push_back((evaluations + left - 1) / left);
    evaluations -= rounds.back();
  }
  return rounds;
}

absl::Status CheckEvaluations(int64_t evaluations) {
  constexpr int64_t kMost = 1000;
  if (evaluations >= 1 && evaluations <= kMost) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("refinement by ", evaluations, " evaluations: must be at least 1 and at most ", kMost));
}

// Classes of layers: those whose names end alike, and those of one depth.
std::vector<std::vector<int>> ClassesOf(const std::vector<LayerInfo>& layers, int& count) {
  absl::flat_hash_map<std::string, int> endings;
  int blocks = 1;
  for (const LayerInfo& layer : layers) blocks = std::max(blocks, layer.block + 1);
  std::vector<std::vector<int>> classes;
  for (const LayerInfo& layer : layers) {
    const std::string ending = layer.name.substr(layer.name.rfind('.') + 1);
    classes.push_back({kDepths + endings.try_emplace(ending, static_cast<int>(endings.size())).first->second});
    if (layer.block >= 0) classes.back().push_back(layer.block * kDepths / blocks);
  }
  count = kDepths + static_cast<int>(endings.size());
  return classes;
}

// The table in the form in which recipes of it are compared. Borrows it.
class Losses {
 public:
  explicit Losses(const ScoreTable& table) : table_(table) {
    for (size_t k = 0; k < table.schemes.size(); ++k) menu_.push_back(static_cast<int>(k));
    values_ = MenuLosses(table, menu_);
    for (const LayerInfo& layer : table.layers) {
      std::vector<std::string>& stored = stored_.emplace_back();
      for (const Scheme& scheme : table.schemes) stored.push_back(SchemeToJson(StoredScheme(scheme, layer)));
    }
  }

  // The index of each layer's scheme, -1 for one that was not scored.
  std::vector<int> ChoiceOf(const Recipe& recipe) const {
    std::vector<int> choice;
    for (size_t l = 0; l < stored_.size(); ++l) {
      const LayerInfo& layer = table_.layers[l];
      const auto found =
          std::find(stored_[l].begin(), stored_[l].end(), SchemeToJson(recipe.layers[l].scheme)) - stored_[l].begin();
      const bool counts =
          !layer.fixed.has_value() && !layer.is_embedding && found < static_cast<int64_t>(stored_[l].size());
      choice.push_back(counts ? static_cast<int>(found) : -1);
    }
    return choice;
  }
  double Sum(const std::vector<int>& choice) const {
    double sum = 0;
    for (size_t l = 0; l < choice.size(); ++l) sum += choice[l] < 0 ? 0 : values_[choice[l]][l];
    return sum;
  }
  ScoreTable Times(const std::vector<std::vector<double>>& factors) const {
    ScoreTable product = table_;
    for (size_t k = 0; k < menu_.size(); ++k) {
      for (size_t l = 0; l < stored_.size(); ++l) {
        product.scores[k][l].weight *= factors[k][l], product.scores[k][l].activation *= factors[k][l];
      }
    }
    return product;
  }
  LossCorrection Correction() const {
    std::vector<std::vector<double>> finite = values_, errors = values_;
    for (size_t k = 0; k < menu_.size(); ++k) {
      for (size_t l = 0; l < stored_.size(); ++l) {
        finite[k][l] = std::isfinite(values_[k][l]) ? std::max(0.0, values_[k][l]) : 0;
        errors[k][l] = finite[k][l] > 0 ? table_.scores[k][l].standard_error / finite[k][l] : 0;
      }
    }
    int count = 0;
    std::vector<std::vector<int>> classes = ClassesOf(table_.layers, count);
    return LossCorrection(std::move(finite), std::move(classes), count, std::move(errors));
  }

 private:
  const ScoreTable& table_;
  std::vector<int> menu_;
  std::vector<std::vector<double>> values_;
  std::vector<std::vector<std::string>> stored_;
};

// The refinement of one choice.
struct Search {
  SelectOptions select;
  LossCorrection correction;
  std::mt19937_64 random;
  std::vector<Recipe> recipes;  // the choice first, then what was tried
  std::vector<std::vector<int>> choices;
  std::vector<RecipeEvaluation> measured;  // the first so many of them
};

Search Begin(const Losses& losses, SelectOptions select, const Recipe& recipe, size_t index) {
  if (recipe.target_bytes > 0) {
    select.target_bytes = {recipe.target_bytes};
  } else {
    select.avg_bits = {recipe.target_avg_bits};
  }
  return {std::move(select), losses.Correction(), std::mt19937_64(index), {recipe}, {losses.ChoiceOf(recipe)}, {}};
}

// Adds up to `wanted` recipes that have not been tried.
absl::Status Propose(const Context& quiet, const Losses& losses, double width, int64_t wanted, Search& search) {
  for (int fruitless = 0; wanted > 0 && fruitless < kFruitlessDraws;) {
    const ScoreTable corrected = losses.Times(search.correction.Draw(width, search.random));
    AUTOSCHEME_ASSIGN_OR_RETURN(std::vector<Recipe> selected, SelectRecipes(corrected, search.select, quiet));
    std::vector<int> choice = losses.ChoiceOf(selected[0]);
    ++fruitless;
    if (std::find(search.choices.begin(), search.choices.end(), choice) != search.choices.end()) continue;
    search.recipes.push_back(std::move(selected[0])), search.choices.push_back(std::move(choice));
    --wanted, fruitless = 0;
  }
  return absl::OkStatus();
}

// Measures what is not measured yet.
absl::Status Measure(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                     const Calibration& held_back, const OfGenerator& of, std::vector<Search>& searches,
                     RunStats& stats) {
  std::vector<NamedRecipe> named;
  for (size_t s = 0; s < searches.size(); ++s) {
    const Search& search = searches[s];
    for (size_t i = search.measured.size(); i < search.recipes.size(); ++i) {
      named.push_back({absl::StrCat("choice ", s, ", ", i), search.recipes[i]});
    }
  }
  if (named.empty()) return absl::OkStatus();
  AUTOSCHEME_ASSIGN_OR_RETURN(Evaluation evaluation, EvaluateFor(context, skeleton, options, held_back, named, {}, of));
  AddCosts(evaluation.run, stats);
  auto next = evaluation.recipes.begin();
  for (Search& search : searches) {
    while (search.measured.size() < search.recipes.size()) {
      search.correction.Add(search.choices[search.measured.size()], next->kl, next->row_kl);
      search.measured.push_back(std::move(*next++));
    }
  }
  return absl::OkStatus();
}

// The best of what was measured, in the place of the choice.
void Conclude(const Losses& losses, const Calibration& held_back, Search& search, Recipe& recipe) {
  const auto best = static_cast<size_t>(search.correction.Best());
  const RecipeEvaluation &before = search.measured[0], &after = search.measured[best];
  Refined refined;
  refined.evaluations = static_cast<int64_t>(search.measured.size());
  refined.nsamples = held_back.nsamples, refined.seqlen = held_back.seqlen;
  refined.tokens_sha256 = Sha256(held_back);
  refined.avg_bits_before = before.avg_bits, refined.kl_before = before.kl, refined.kl_error_before = before.kl_error;
  refined.kl = after.kl, refined.kl_error = after.kl_error, refined.changed = best > 0;
  if (refined.changed) {
    Recipe found = std::move(search.recipes[best]);
    found.loss = recipe.loss - losses.Sum(search.choices[0]) + losses.Sum(search.choices[best]);
    found.gap = std::max(0.0, found.loss - (recipe.loss - recipe.gap));
    recipe = std::move(found);
  }
  recipe.refined = std::move(refined);
}

std::string Cost(const Plan& plan, size_t sweeps, int64_t evaluations, size_t choices) {
  return absl::StrFormat("refinement: up to %s for each of %s, in %s that read %.2f GB and compute %.1f TFLOP",
                         Count(evaluations, "evaluation"), Count(choices, "choice"), Count(sweeps, "forward sweep"),
                         static_cast<double>(plan.read_bytes) / 1e9, plan.flops / 1e12);
}

}  // namespace

absl::StatusOr<Plan> PlanRefinement(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                    const Calibration& held_back, int64_t recipes, int64_t evaluations,
                                    const OfGenerator& of) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckEvaluations(evaluations));
  std::vector<Plan> plans;
  for (const int64_t further : Rounds(evaluations)) {
    const int64_t count = recipes * (further + (plans.empty() ? 1 : 0));
    AUTOSCHEME_ASSIGN_OR_RETURN(Plan plan, PlanEvaluations(context, skeleton, options, held_back, count, of));
    plans.push_back(std::move(plan));
  }
  Plan whole = *std::max_element(plans.begin(), plans.end(),
                                 [](const Plan& a, const Plan& b) { return a.peak_bytes < b.peak_bytes; });
  whole.read_bytes = 0, whole.flops = 0, whole.estimated_s = 0;
  for (const Plan& plan : plans) {
    whole.read_bytes += plan.read_bytes, whole.flops += plan.flops, whole.estimated_s += plan.estimated_s;
    whole.spill_bytes = std::max(whole.spill_bytes, plan.spill_bytes);
    whole.least_bytes = std::max(whole.least_bytes, plan.least_bytes);
  }
  return whole;
}

absl::Status RefineRecipes(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                           const SelectOptions& select, const ScoreTable& table, const Calibration& held_back,
                           int64_t evaluations, const OfGenerator& of, std::vector<Recipe>& recipes, RunStats& stats) {
  stats = {};
  AUTOSCHEME_ASSIGN_OR_RETURN(const Plan plan, PlanRefinement(context, skeleton, options, held_back,
                                                              static_cast<int64_t>(recipes.size()), evaluations, of));
  const std::vector<int64_t> rounds = Rounds(evaluations);
  if (context.log) context.log(LogLevel::kInfo, Cost(plan, rounds.size(), evaluations, recipes.size()));
  Context quiet = context;
  quiet.log = nullptr, quiet.progress = nullptr;

  const Losses losses(table);
  std::vector<Search> searches;
  for (const Recipe& recipe : recipes) searches.push_back(Begin(losses, select, recipe, searches.size()));
  for (size_t round = 0; round < rounds.size(); ++round) {
    for (Search& search : searches) {
      AUTOSCHEME_RETURN_IF_ERROR(Propose(quiet, losses, kWidths[round], rounds[round], search));
    }
    const Context named = NamingStages(context, "refine", {round, rounds.size(), stats});
    AUTOSCHEME_RETURN_IF_ERROR(Measure(named, skeleton, options, held_back, of, searches, stats));
  }
  for (size_t r = 0; r < recipes.size(); ++r) Conclude(losses, held_back, searches[r], recipes[r]);
  return absl::OkStatus();
}

}  // namespace autoscheme
