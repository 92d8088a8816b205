// Evaluation: recipes and schemes, a model and tokens -> how far each moves the predictions.
#include "absl/strings/str_format.h"
#include "autoscheme/evaluate.h"
#include "calibration.h"
#include "options.h"
#include "results.h"
#include "skeleton.h"

using autoscheme::Evaluation;
using autoscheme::NamedRecipe;
using autoscheme::Recipe;
using autoscheme::RecipeEvaluation;
using autoscheme::capi::CheckIndex;
using autoscheme::capi::Clear;
using autoscheme::capi::FillStruct;
using autoscheme::capi::Guard;
using autoscheme::capi::LongCall;
using autoscheme::capi::MakeContext;
using autoscheme::capi::Outcome;

namespace {

std::string TargetOf(const Recipe& recipe) {
  if (recipe.target_bytes > 0) return absl::StrCat(recipe.target_bytes, " bytes");
  return absl::StrFormat("%.6g bits", recipe.target_avg_bits);
}

// The recipes of all handles, named.
absl::StatusOr<std::vector<NamedRecipe>> Collect(const autoscheme_recipes* const* recipes, const char* const* names,
                                                 int64_t count) {
  if (count < 0 || (recipes == nullptr) != (count == 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("recipes is ", recipes == nullptr ? "NULL" : "not NULL", " with count ", count));
  }
  std::vector<NamedRecipe> named;
  for (int64_t i = 0; i < count; ++i) {
    if (recipes[i] == nullptr) return autoscheme::capi::IsNull(absl::StrCat("recipes[", i, "]").c_str());
    const bool has_name = names != nullptr && names[i] != nullptr;
    const std::string name = has_name ? std::string(names[i]) : absl::StrCat("recipe ", i);
    const std::vector<Recipe>& of_handle = recipes[i]->recipes;
    for (const Recipe& recipe : of_handle) {
      named.push_back({of_handle.size() == 1 ? name : absl::StrCat(name, " (", TargetOf(recipe), ")"), recipe});
    }
  }
  return named;
}

absl::StatusOr<Evaluation> Run(const autoscheme::Context& context, const autoscheme::MetaSkeleton& skeleton,
                               const autoscheme_options& from, const autoscheme::Calibration& tokens,
                               std::vector<NamedRecipe> recipes) {
  const auto options = autoscheme::capi::ToOptionsOfAny(from);
  if (!options.ok()) return options.status();
  for (const autoscheme::Scheme& scheme : options->schemes) {
    auto uniform = autoscheme::UniformRecipe(context, skeleton, scheme, *options);
    if (!uniform.ok()) return uniform.status();
    recipes.push_back({scheme.name, *std::move(uniform)});
  }
  return autoscheme::Evaluate(context, skeleton, *options, tokens, recipes, autoscheme::capi::ToEvaluateOptions(from));
}

absl::Status CheckRecipe(const autoscheme_evaluation* evaluation, int64_t recipe) {
  return CheckIndex(recipe, static_cast<int64_t>(evaluation->evaluation.recipes.size()), "recipe");
}

}  // namespace

extern "C" {

autoscheme_status autoscheme_evaluate(autoscheme_context* context, const autoscheme_skeleton* skeleton,
                                      const autoscheme_options* options, const autoscheme_calibration* tokens,
                                      const autoscheme_recipes* const* recipes, const char* const* names, int64_t count,
                                      autoscheme_evaluation** out, autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> Outcome {
    CAPI_REQUIRE(context);
    CAPI_REQUIRE(skeleton);
    CAPI_REQUIRE(options);
    CAPI_REQUIRE(tokens);
    CAPI_REQUIRE(out);
    auto named = Collect(recipes, names, count);
    if (!named.ok()) return named.status();
    LongCall call(context->state);
    CAPI_RETURN_IF_ERROR(call.status());
    auto evaluation = Run(MakeContext(context->state.get(), /*cancellable=*/true), *skeleton->state->skeleton, *options,
                          tokens->calibration, *std::move(named));
    if (!evaluation.ok()) return call.Finish(evaluation.status());
    auto made = std::make_unique<autoscheme_evaluation>();
    made->context_state = context->state;
    made->evaluation = *std::move(evaluation);
    *out = made.release();
    return absl::OkStatus();
  });
}

void autoscheme_evaluation_free(autoscheme_evaluation* evaluation) {
  if (evaluation != nullptr) autoscheme::capi::FreeHandle(evaluation, *evaluation->context_state);
}

autoscheme_status autoscheme_evaluation_get_info(const autoscheme_evaluation* evaluation,
                                                 autoscheme_evaluation_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(evaluation);
    CAPI_REQUIRE(info);
    const Evaluation& from = evaluation->evaluation;
    autoscheme_evaluation_info filled{};
    filled.recipe_count = static_cast<int64_t>(from.recipes.size());
    filled.note_count = static_cast<int64_t>(from.notes.size());
    filled.nsamples = from.nsamples, filled.seqlen = from.seqlen;
    filled.cross_entropy = from.cross_entropy, filled.perplexity = from.perplexity;
    filled.error_over_rows = from.error_over_rows;
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_evaluation_get_recipe(const autoscheme_evaluation* evaluation, int64_t recipe,
                                                   autoscheme_recipe_evaluation* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(evaluation);
    CAPI_REQUIRE(info);
    CAPI_RETURN_IF_ERROR(CheckRecipe(evaluation, recipe));
    const RecipeEvaluation& from = evaluation->evaluation.recipes[recipe];
    autoscheme_recipe_evaluation filled{};
    filled.name = from.name.c_str();
    filled.avg_bits = from.avg_bits;
    filled.kl = from.kl, filled.kl_error = from.kl_error, filled.top1 = from.top1;
    filled.cross_entropy = from.cross_entropy, filled.perplexity = from.perplexity;
    filled.total_bits = from.total_bits, filled.total_params = from.total_params;
    filled.row_kl = from.row_kl.data();
    filled.position_kl = from.position_kl.empty() ? nullptr : from.position_kl.data();
    filled.worst_count = static_cast<int64_t>(from.worst.size());
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_evaluation_get_worst(const autoscheme_evaluation* evaluation, int64_t recipe,
                                                  int64_t index, int64_t* row, int64_t* position, double* kl,
                                                  autoscheme_error** error) {
  Clear(row, position, kl);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(evaluation);
    CAPI_RETURN_IF_ERROR(CheckRecipe(evaluation, recipe));
    const auto& worst = evaluation->evaluation.recipes[recipe].worst;
    CAPI_RETURN_IF_ERROR(CheckIndex(index, static_cast<int64_t>(worst.size()), "token"));
    if (row != nullptr) *row = worst[index].row;
    if (position != nullptr) *position = worst[index].position;
    if (kl != nullptr) *kl = worst[index].kl;
    return absl::OkStatus();
  });
}

const char* autoscheme_evaluation_note(const autoscheme_evaluation* evaluation, int64_t index) {
  if (evaluation == nullptr || index < 0) return nullptr;
  const std::vector<std::string>& notes = evaluation->evaluation.notes;
  return index < static_cast<int64_t>(notes.size()) ? notes[index].c_str() : nullptr;
}

autoscheme_status autoscheme_evaluation_get_stats(const autoscheme_evaluation* evaluation, autoscheme_stats* stats,
                                                  autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(evaluation);
    CAPI_REQUIRE(stats);
    return autoscheme::capi::FillStats(evaluation->evaluation.run, stats);
  });
}

autoscheme_status autoscheme_evaluation_json(const autoscheme_evaluation* evaluation, const char** json, size_t* length,
                                             autoscheme_error** error) {
  Clear(json, length);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(evaluation);
    CAPI_REQUIRE(json);
    const std::string& text =
        evaluation->json.Get([&] { return autoscheme::EvaluationToJson(evaluation->evaluation); });
    *json = text.c_str();
    if (length != nullptr) *length = text.size();
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_evaluation_save(const autoscheme_evaluation* evaluation, const char* path,
                                             autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(evaluation);
    CAPI_REQUIRE(path);
    const auto context = MakeContext(evaluation->context_state.get(), /*cancellable=*/false);
    return autoscheme::WriteEvaluation(context, evaluation->evaluation, path);
  });
}

}  // extern "C"
