// What each option is: the one table behind setting, describing and documenting them.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace autoscheme::capi {

struct OptionSpec {
  int32_t id;
  int32_t type;  // AUTOSCHEME_TYPE_*
  const char* name;
  const char* help;
  const char* since;
  const char* default_value;
  const char* choices;  // null: any text
  int64_t min_i64, max_i64;
  double min_f64, max_f64;
};

// In the order of ids.
absl::Span<const OptionSpec> OptionTable();

// Null if there is none.
const OptionSpec* FindOption(int32_t id);
const OptionSpec* FindOption(absl::string_view name);

}  // namespace autoscheme::capi
