// The value of every option, checked and parsed when it is set.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme.h"
#include "autoscheme/evaluate.h"
#include "autoscheme/recipe.h"
#include "autoscheme/scheme_generator.h"

namespace autoscheme::capi {

struct OptionValue {
  std::string text;  // canonical: set_str of it gives the same value
  int64_t i64 = 0;
  double f64 = 0;
  std::vector<double> list;
};

}  // namespace autoscheme::capi

struct autoscheme_options {
  // What was set; all others have their default.
  std::map<int32_t, autoscheme::capi::OptionValue> values;
};

namespace autoscheme::capi {

// `id` must be one of the table. `options` may be null: defaults.
OptionValue GetOption(const autoscheme_options* options, int32_t id);

// INVALID_ARGUMENT if no scheme is set.
absl::StatusOr<Options> ToOptions(const autoscheme_options& options);
// The same without schemes, where none is set.
absl::StatusOr<Options> ToOptionsOfAny(const autoscheme_options& options);
EvaluateOptions ToEvaluateOptions(const autoscheme_options& options);
absl::StatusOr<SelectOptions> ToSelectOptions(const autoscheme_options* options);

// `count` numbers, or those of AUTOSCHEME_OPTION_AVG_BITS if `values` is null and `count` is 0. INVALID_ARGUMENT if
// there are none, or one is not finite or not positive.
struct Targets {
  std::vector<double> avg_bits;
  std::vector<int64_t> bytes;
};
absl::StatusOr<Targets> GetTargets(const autoscheme_options* options, const double* values, int64_t count);

}  // namespace autoscheme::capi
