#include "options.h"
#include "results.h"
#include "scheme.h"

using autoscheme::ScoreTable;
using autoscheme::capi::CheckIndex;
using autoscheme::capi::Clear;
using autoscheme::capi::FillStruct;
using autoscheme::capi::Guard;
using autoscheme::capi::MakeContext;
using autoscheme::capi::Outcome;

extern "C" {

autoscheme_status autoscheme_scores_load(autoscheme_context* context, const char* path, autoscheme_scores** out,
                                         autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(context);
    CAPI_REQUIRE(path);
    CAPI_REQUIRE(out);
    CAPI_RETURN_IF_ERROR(autoscheme::capi::CheckProcess(*context->state));
    auto table = autoscheme::ReadScores(MakeContext(context->state.get(), /*cancellable=*/false), path);
    if (!table.ok()) return table.status();
    *out = autoscheme::capi::MakeScoresHandle(context->state, *std::move(table));
    return absl::OkStatus();
  });
}

void autoscheme_scores_free(autoscheme_scores* scores) {
  if (scores != nullptr) autoscheme::capi::FreeHandle(scores, *scores->context_state);
}

autoscheme_status autoscheme_scores_save(const autoscheme_scores* scores, const char* path, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(scores);
    CAPI_REQUIRE(path);
    return autoscheme::WriteScores(MakeContext(scores->context_state.get(), /*cancellable=*/false), scores->table,
                                   path);
  });
}

autoscheme_status autoscheme_scores_json(const autoscheme_scores* scores, const char** json, size_t* length,
                                         autoscheme_error** error) {
  Clear(json, length);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(scores);
    CAPI_REQUIRE(json);
    const std::string& text = scores->json.Get([&] { return autoscheme::ScoresToJson(scores->table); });
    *json = text.c_str();
    if (length != nullptr) *length = text.size();
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_scores_get_info(const autoscheme_scores* scores, autoscheme_scores_info* info,
                                             autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(scores);
    CAPI_REQUIRE(info);
    const ScoreTable& table = scores->table;
    autoscheme_scores_info filled{};
    filled.model = table.model.c_str();
    filled.model_type = table.model_type.c_str();
    filled.fingerprint = table.fingerprint.c_str();
    filled.calibration_sha256 = table.calibration_sha256.c_str();
    filled.dtype = table.dtype.c_str();
    filled.nsamples = table.nsamples;
    filled.seqlen = table.seqlen;
    filled.batch_size = table.batch_size;
    filled.scheme_count = static_cast<int64_t>(table.schemes.size());
    filled.layer_count = static_cast<int64_t>(table.layers.size());
    filled.tied_head = table.tied_head;
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_scores_get_scheme(const autoscheme_scores* scores, int64_t scheme,
                                               autoscheme_scheme_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(scores);
    CAPI_REQUIRE(info);
    CAPI_RETURN_IF_ERROR(CheckIndex(scheme, static_cast<int64_t>(scores->table.schemes.size()), "scheme"));
    return autoscheme::capi::FillScheme(scores->table.schemes[scheme], info);
  });
}

autoscheme_status autoscheme_scores_get_layer(const autoscheme_scores* scores, int64_t layer,
                                              autoscheme_layer_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(scores);
    CAPI_REQUIRE(info);
    CAPI_RETURN_IF_ERROR(CheckIndex(layer, static_cast<int64_t>(scores->table.layers.size()), "layer"));
    const autoscheme::LayerInfo& from = scores->table.layers[layer];
    autoscheme_layer_info filled{};
    filled.name = from.name.c_str();
    filled.out_features = from.out_features;
    filled.in_features = from.in_features;
    filled.block = from.block;
    filled.is_head = from.is_head;
    filled.has_bias = -1;
    filled.fixed_scheme = from.fixed.has_value() ? from.fixed->name.c_str() : nullptr;
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_scores_get_loss(const autoscheme_scores* scores, int64_t scheme, int64_t layer,
                                             double* weight, double* activation, autoscheme_error** error) {
  Clear(weight, activation);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(scores);
    CAPI_RETURN_IF_ERROR(CheckIndex(scheme, static_cast<int64_t>(scores->table.schemes.size()), "scheme"));
    CAPI_RETURN_IF_ERROR(CheckIndex(layer, static_cast<int64_t>(scores->table.layers.size()), "layer"));
    const autoscheme::LayerScore& score = scores->table.scores[scheme][layer];
    if (weight != nullptr) *weight = score.weight;
    if (activation != nullptr) *activation = score.activation;
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_scores_select(const autoscheme_scores* scores, const autoscheme_options* options,
                                           const double* avg_bits, int64_t count, autoscheme_recipes** out,
                                           autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> Outcome {
    CAPI_REQUIRE(scores);
    CAPI_REQUIRE(out);
    auto targets = autoscheme::capi::GetTargets(options, avg_bits, count);
    if (!targets.ok()) return targets.status();
    auto select = autoscheme::capi::ToSelectOptions(options);
    if (!select.ok()) return select.status();
    select->avg_bits = std::move(targets->avg_bits);
    select->target_bytes = std::move(targets->bytes);
    autoscheme::capi::LongCall call(scores->context_state);
    CAPI_RETURN_IF_ERROR(call.status());
    auto recipes = autoscheme::SelectRecipes(scores->table, *select,
                                             MakeContext(scores->context_state.get(), /*cancellable=*/true));
    if (!recipes.ok()) return call.Finish(recipes.status());
    *out = autoscheme::capi::MakeRecipesHandle(scores->context_state, *std::move(recipes));
    return absl::OkStatus();
  });
}

}  // extern "C"

namespace autoscheme::capi {

autoscheme_scores* MakeScoresHandle(std::shared_ptr<ContextState> state, ScoreTable table) {
  auto made = std::make_unique<autoscheme_scores>();
  made->context_state = std::move(state);
  made->table = std::move(table);
  return made.release();
}

}  // namespace autoscheme::capi
