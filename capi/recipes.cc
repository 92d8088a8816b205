#include "autoscheme/quoted.h"
#include "results.h"
#include "scheme.h"

using autoscheme::Recipe;
using autoscheme::capi::CheckIndex;
using autoscheme::capi::Clear;
using autoscheme::capi::FillStruct;
using autoscheme::capi::Guard;

namespace {

absl::StatusOr<const autoscheme::Verified*> VerifiedOf(const autoscheme_recipes* recipes, int64_t recipe) {
  CAPI_RETURN_IF_ERROR(CheckIndex(recipe, autoscheme_recipes_count(recipes), "recipe"));
  const auto& verified = recipes->recipes[recipe].verified;
  if (!verified.has_value()) {
    return absl::NotFoundError("the recipes were not verified; autoscheme_generator_verify does that");
  }
  return &*verified;
}

}  // namespace

extern "C" {

autoscheme_status autoscheme_recipes_load(autoscheme_context* context, const char* path, autoscheme_recipes** out,
                                          autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(context);
    CAPI_REQUIRE(path);
    CAPI_REQUIRE(out);
    CAPI_RETURN_IF_ERROR(autoscheme::capi::CheckProcess(*context->state));
    auto recipes =
        autoscheme::ReadRecipes(autoscheme::capi::MakeContext(context->state.get(), /*cancellable=*/false), path);
    if (!recipes.ok()) return recipes.status();
    *out = autoscheme::capi::MakeRecipesHandle(context->state, *std::move(recipes));
    return absl::OkStatus();
  });
}

void autoscheme_recipes_free(autoscheme_recipes* recipes) {
  if (recipes != nullptr) autoscheme::capi::FreeHandle(recipes, *recipes->context_state);
}

int64_t autoscheme_recipes_count(const autoscheme_recipes* recipes) {
  return recipes == nullptr ? 0 : static_cast<int64_t>(recipes->recipes.size());
}

autoscheme_status autoscheme_recipes_get_info(const autoscheme_recipes* recipes, int64_t recipe,
                                              autoscheme_recipe_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(recipes);
    CAPI_REQUIRE(info);
    CAPI_RETURN_IF_ERROR(CheckIndex(recipe, autoscheme_recipes_count(recipes), "recipe"));
    const Recipe& from = recipes->recipes[recipe];
    autoscheme_recipe_info filled{};
    filled.target_avg_bits = from.target_avg_bits;
    filled.avg_bits = from.avg_bits;
    filled.loss = from.loss;
    filled.total_bits = from.total_bits;
    filled.total_params = from.total_params;
    filled.layer_count = static_cast<int64_t>(from.layers.size());
    filled.target_bytes = from.target_bytes;
    filled.layer_bytes = from.layer_bytes;
    filled.model_bytes = from.model_bytes;
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_recipes_get_layer(const autoscheme_recipes* recipes, int64_t recipe, int64_t layer,
                                               const char** name, autoscheme_scheme_info* scheme, int32_t* fixed,
                                               autoscheme_error** error) {
  Clear(name, fixed);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(recipes);
    CAPI_RETURN_IF_ERROR(CheckIndex(recipe, autoscheme_recipes_count(recipes), "recipe"));
    const Recipe& from = recipes->recipes[recipe];
    CAPI_RETURN_IF_ERROR(CheckIndex(layer, static_cast<int64_t>(from.layers.size()), "layer"));
    const autoscheme::LayerChoice& choice = from.layers[layer];
    if (scheme != nullptr) CAPI_RETURN_IF_ERROR(autoscheme::capi::FillScheme(choice.scheme, scheme));
    if (name != nullptr) *name = choice.layer.c_str();
    if (fixed != nullptr) *fixed = choice.fixed;
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_recipes_get_refined(const autoscheme_recipes* recipes, int64_t recipe,
                                                 autoscheme_refined_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(recipes);
    CAPI_REQUIRE(info);
    CAPI_RETURN_IF_ERROR(CheckIndex(recipe, autoscheme_recipes_count(recipes), "recipe"));
    const auto& refined = recipes->recipes[recipe].refined;
    if (!refined.has_value()) {
      return absl::NotFoundError("the recipes were not refined; autoscheme_generator_refine does that");
    }
    autoscheme_refined_info filled{};
    filled.nsamples = refined->nsamples;
    filled.seqlen = refined->seqlen;
    filled.evaluations = refined->evaluations;
    filled.avg_bits_before = refined->avg_bits_before;
    filled.kl_before = refined->kl_before;
    filled.kl_error_before = refined->kl_error_before;
    filled.kl = refined->kl;
    filled.kl_error = refined->kl_error;
    filled.changed = refined->changed;
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_recipes_get_verified(const autoscheme_recipes* recipes, int64_t recipe,
                                                  autoscheme_verified_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(recipes);
    CAPI_REQUIRE(info);
    const auto verified = VerifiedOf(recipes, recipe);
    if (!verified.ok()) return verified.status();
    autoscheme_verified_info filled{};
    filled.nsamples = (*verified)->nsamples;
    filled.seqlen = (*verified)->seqlen;
    filled.avg_bits = (*verified)->avg_bits;
    filled.kl = (*verified)->kl;
    filled.kl_error = (*verified)->kl_error;
    filled.taken = (*verified)->taken.empty() ? nullptr : (*verified)->taken.c_str();
    filled.uniform_count = static_cast<int64_t>((*verified)->uniforms.size());
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_recipes_get_uniform(const autoscheme_recipes* recipes, int64_t recipe, int64_t uniform,
                                                 autoscheme_uniform_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(recipes);
    CAPI_REQUIRE(info);
    const auto verified = VerifiedOf(recipes, recipe);
    if (!verified.ok()) return verified.status();
    CAPI_RETURN_IF_ERROR(CheckIndex(uniform, static_cast<int64_t>((*verified)->uniforms.size()), "uniform recipe"));
    const autoscheme::MeasuredUniform& from = (*verified)->uniforms[uniform];
    autoscheme_uniform_info filled{};
    filled.scheme = from.scheme.c_str();
    filled.avg_bits = from.avg_bits;
    filled.kl = from.kl;
    filled.kl_error = from.kl_error;
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_recipes_find_layer(const autoscheme_recipes* recipes, int64_t recipe, const char* name,
                                                int64_t* layer, autoscheme_error** error) {
  Clear(layer);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(recipes);
    CAPI_REQUIRE(name);
    CAPI_REQUIRE(layer);
    CAPI_RETURN_IF_ERROR(CheckIndex(recipe, autoscheme_recipes_count(recipes), "recipe"));
    const auto& layers = recipes->recipes[recipe].layers;
    for (size_t i = 0; i < layers.size(); ++i) {
      if (layers[i].layer != name) continue;
      *layer = static_cast<int64_t>(i);
      return absl::OkStatus();
    }
    return absl::NotFoundError(
        absl::StrCat("the recipe has no layer ", autoscheme::Quoted(name), " among its ", layers.size(), " layers"));
  });
}

autoscheme_status autoscheme_recipes_json(const autoscheme_recipes* recipes, const char** json, size_t* length,
                                          autoscheme_error** error) {
  Clear(json, length);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(recipes);
    CAPI_REQUIRE(json);
    const std::string& text = recipes->json.Get([&] { return autoscheme::RecipesToJson(recipes->recipes); });
    *json = text.c_str();
    if (length != nullptr) *length = text.size();
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_recipes_save(const autoscheme_recipes* recipes, const char* path,
                                          autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(recipes);
    CAPI_REQUIRE(path);
    const auto context = autoscheme::capi::MakeContext(recipes->context_state.get(), /*cancellable=*/false);
    return autoscheme::WriteRecipes(context, recipes->recipes, path);
  });
}

}  // extern "C"

namespace autoscheme::capi {

autoscheme_recipes* MakeRecipesHandle(std::shared_ptr<ContextState> state, std::vector<Recipe> recipes) {
  auto made = std::make_unique<autoscheme_recipes>();
  made->context_state = std::move(state);
  made->recipes = std::move(recipes);
  return made.release();
}

}  // namespace autoscheme::capi
