#include "verify.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "autoscheme/pareto.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

struct Uniform {
  std::string scheme;
  Recipe recipe;
};

// Recipes of one scheme, by rising bits. A scheme that cannot serve all layers, or groups of shared layers, has none.
std::vector<Uniform> UniformsOf(const ScoreTable& table, SelectOptions select) {
  std::vector<Uniform> uniforms;
  for (const Scheme& scheme : table.schemes) {
    if (scheme.IsPassThrough()) continue;
    select.schemes = {scheme.name};
    const auto front = FindParetoFront(table, select);
    if (!front.ok()) continue;
    for (const ParetoPoint& point : front->points) select.avg_bits.push_back(point.avg_bits);
    const auto recipes = SelectRecipes(table, select);
    select.avg_bits.clear();
    if (!recipes.ok()) continue;
    for (const Recipe& recipe : *recipes) uniforms.push_back({scheme.name, recipe});
  }
  std::stable_sort(uniforms.begin(), uniforms.end(),
                   [](const Uniform& a, const Uniform& b) { return a.recipe.total_bits < b.recipe.total_bits; });
  return uniforms;
}

bool KeepsTo(const Recipe& target, const Recipe& uniform) {
  if (target.target_bytes > 0) return uniform.model_bytes <= target.target_bytes;
  // As selection rounds a target: what the recipe itself costs is always within it.
  return uniform.total_bits <= target.total_bits || uniform.avg_bits <= target.target_avg_bits;
}

// The uniform recipe in the place of `recipe`, whose target stays.
Recipe InPlaceOf(const Recipe& recipe, Recipe uniform) {
  uniform.gap = std::max(0.0, uniform.loss - (recipe.loss - recipe.gap));
  uniform.target_avg_bits = recipe.target_bytes > 0 ? uniform.avg_bits : recipe.target_avg_bits;
  uniform.target_bytes = recipe.target_bytes;
  return uniform;
}

}  // namespace

absl::StatusOr<Plan> PlanVerification(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                      const Calibration& held_back, int64_t recipes, const OfGenerator& of) {
  const auto uniforms = static_cast<int64_t>(options.schemes.size());
  return PlanEvaluations(context, skeleton, options, held_back, uniforms + recipes, of);
}

absl::Status VerifyRecipes(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                           SelectOptions select, const ScoreTable& table, const Calibration& held_back,
                           const OfGenerator& of, std::vector<Recipe>& recipes, RunStats& stats) {
  std::vector<Uniform> uniforms = UniformsOf(table, std::move(select));
  uniforms.erase(std::remove_if(uniforms.begin(), uniforms.end(),
                                [&](const Uniform& uniform) {
                                  return std::none_of(recipes.begin(), recipes.end(), [&](const Recipe& recipe) {
                                    return KeepsTo(recipe, uniform.recipe);
                                  });
                                }),
                 uniforms.end());
  std::vector<NamedRecipe> measured;
  for (size_t r = 0; r < recipes.size(); ++r) measured.push_back({absl::StrCat("recipe ", r), recipes[r]});
  for (const Uniform& uniform : uniforms) measured.push_back({uniform.scheme, uniform.recipe});
  AUTOSCHEME_ASSIGN_OR_RETURN(const Evaluation evaluation, EvaluateFor(NamingStages(context, "verify"), skeleton,
                                                                       options, held_back, measured, {}, of));
  stats = evaluation.run;
  if (evaluation.searched_unweighed && context.log) {
    context.log(LogLevel::kInfo,
                "verification searched k-quants without an importance matrix: give the one that they are scored with");
  }

  for (size_t r = 0; r < recipes.size(); ++r) {
    Verified verified{held_back.nsamples,
                      held_back.seqlen,
                      evaluation.tokens_sha256,
                      evaluation.recipes[r].avg_bits,
                      evaluation.recipes[r].kl,
                      evaluation.recipes[r].kl_error,
                      {},
                      ""};
    double least = verified.kl;
    const Recipe* better = nullptr;
    for (size_t u = 0; u < uniforms.size(); ++u) {
      if (!KeepsTo(recipes[r], uniforms[u].recipe)) continue;
      const RecipeEvaluation& uniform = evaluation.recipes[recipes.size() + u];
      verified.uniforms.push_back({uniforms[u].scheme, uniforms[u].recipe.avg_bits, uniform.kl, uniform.kl_error});
      if (uniform.kl >= least) continue;
      least = uniform.kl, better = &uniforms[u].recipe, verified.taken = uniforms[u].scheme;
    }
    if (better != nullptr) recipes[r] = InPlaceOf(recipes[r], *better);
    recipes[r].verified = std::move(verified);
  }
  return absl::OkStatus();
}

}  // namespace autoscheme
