// The catalogue of schemes.
#include "scheme.h"

#include "absl/strings/match.h"
#include "handles.h"

using autoscheme::SchemeCatalogue;
using autoscheme::capi::Guard;
using autoscheme::capi::GuardValue;

extern "C" {

int64_t autoscheme_scheme_count(void) {
  return GuardValue<int64_t>(0, [] { return static_cast<int64_t>(SchemeCatalogue().size()); });
}

autoscheme_status autoscheme_scheme_get(int64_t index, autoscheme_scheme_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(info);
    CAPI_RETURN_IF_ERROR(autoscheme::capi::CheckIndex(index, autoscheme_scheme_count(), "scheme"));
    return autoscheme::capi::FillScheme(SchemeCatalogue()[index], info);
  });
}

autoscheme_status autoscheme_scheme_find(const char* name, autoscheme_scheme_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(name);
    CAPI_REQUIRE(info);
    const auto found = autoscheme::FindScheme(name);
    if (!found.ok()) return found.status();
    // The catalogue's own entry, since it lives for ever.
    for (const autoscheme::Scheme& scheme : SchemeCatalogue()) {
      if (absl::EqualsIgnoreCase(scheme.name, found->name)) return autoscheme::capi::FillScheme(scheme, info);
    }
    return absl::InternalError(absl::StrCat("scheme ", found->name, " is not in the catalogue"));
  });
}

autoscheme_status autoscheme_scheme_why_unsuited(const char* name, int64_t out_features, int64_t in_features,
                                                 const char** why, autoscheme_error** error) {
  autoscheme::capi::Clear(why);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(name);
    CAPI_REQUIRE(why);
    const auto found = autoscheme::FindScheme(name);
    if (!found.ok()) return found.status();
    *why = autoscheme::WhyUnsuited(*found, out_features, in_features);
    return absl::OkStatus();
  });
}

}  // extern "C"

namespace autoscheme::capi {
namespace {

int32_t OrUnset(const std::optional<int>& value) { return value.value_or(AUTOSCHEME_UNSET); }
int32_t OrUnset(const std::optional<bool>& value) { return value.has_value() ? int32_t{*value} : AUTOSCHEME_UNSET; }

}  // namespace

absl::Status FillScheme(const Scheme& scheme, autoscheme_scheme_info* out) {
  autoscheme_scheme_info info{};
  info.name = scheme.name.c_str();
  info.data_type = scheme.data_type.c_str();
  info.bits = scheme.bits;
  info.group_size = scheme.group.size;
  info.group_rows = scheme.group.rows;
  info.sym = scheme.sym;
  info.act_data_type = scheme.act_data_type.has_value() ? scheme.act_data_type->c_str() : nullptr;
  info.act_bits = OrUnset(scheme.act_bits);
  info.act_group_size = scheme.act_group.has_value() ? scheme.act_group->size : AUTOSCHEME_UNSET;
  info.act_group_rows = scheme.act_group.has_value() ? scheme.act_group->rows : AUTOSCHEME_UNSET;
  info.act_sym = OrUnset(scheme.act_sym);
  info.act_dynamic = OrUnset(scheme.act_dynamic);
  info.super_bits = OrUnset(scheme.super_bits);
  info.super_group_size = OrUnset(scheme.super_group_size);
  return FillStruct(info, out);
}

}  // namespace autoscheme::capi
