#include "options.h"
#include "results.h"

using autoscheme::capi::CheckIndex;
using autoscheme::capi::Clear;
using autoscheme::capi::FillStruct;
using autoscheme::capi::Guard;

extern "C" {

autoscheme_status autoscheme_scores_pareto(const autoscheme_scores* scores, const autoscheme_options* options,
                                           autoscheme_pareto** out, autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> autoscheme::capi::Outcome {
    CAPI_REQUIRE(scores);
    CAPI_REQUIRE(out);
    auto select = autoscheme::capi::ToSelectOptions(options);
    if (!select.ok()) return select.status();
    autoscheme::capi::LongCall call(scores->context_state);
    CAPI_RETURN_IF_ERROR(call.status());
    const auto context = autoscheme::capi::MakeContext(scores->context_state.get(), /*cancellable=*/true);
    auto front = autoscheme::FindParetoFront(scores->table, *select, /*max_points=*/20000, context);
    if (!front.ok()) return call.Finish(front.status());
    auto made = std::make_unique<autoscheme_pareto>();
    made->context_state = scores->context_state;
    made->front = *std::move(front);
    *out = made.release();
    return absl::OkStatus();
  });
}

void autoscheme_pareto_free(autoscheme_pareto* pareto) {
  if (pareto != nullptr) autoscheme::capi::FreeHandle(pareto, *pareto->context_state);
}

autoscheme_status autoscheme_pareto_get_info(const autoscheme_pareto* pareto, autoscheme_pareto_info* info,
                                             autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(pareto);
    CAPI_REQUIRE(info);
    autoscheme_pareto_info filled{};
    filled.point_count = static_cast<int64_t>(pareto->front.points.size());
    filled.total_params = pareto->front.total_params;
    filled.complete = pareto->front.complete;
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_pareto_get_point(const autoscheme_pareto* pareto, int64_t index,
                                              autoscheme_pareto_point* point, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(pareto);
    CAPI_REQUIRE(point);
    CAPI_RETURN_IF_ERROR(CheckIndex(index, static_cast<int64_t>(pareto->front.points.size()), "point"));
    const autoscheme::ParetoPoint& from = pareto->front.points[index];
    autoscheme_pareto_point filled{};
    filled.total_bits = from.total_bits, filled.avg_bits = from.avg_bits;
    filled.loss = from.loss, filled.marginal_value = from.marginal_value;
    return FillStruct(filled, point);
  });
}

autoscheme_status autoscheme_pareto_json(const autoscheme_pareto* pareto, const char** json, size_t* length,
                                         autoscheme_error** error) {
  Clear(json, length);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(pareto);
    CAPI_REQUIRE(json);
    const std::string& text = pareto->json.Get([&] { return autoscheme::ParetoToJson(pareto->front); });
    *json = text.c_str();
    if (length != nullptr) *length = text.size();
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_pareto_save(const autoscheme_pareto* pareto, const char* path, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(pareto);
    CAPI_REQUIRE(path);
    const auto context = autoscheme::capi::MakeContext(pareto->context_state.get(), /*cancellable=*/false);
    return autoscheme::WritePareto(context, pareto->front, path);
  });
}

}  // extern "C"
