// Schemes as the C interface shows them.
#pragma once

#include "absl/status/status.h"
#include "autoscheme.h"
#include "autoscheme/scheme.h"

namespace autoscheme::capi {

// The strings in `out` are those of `scheme`.
absl::Status FillScheme(const Scheme& scheme, autoscheme_scheme_info* out);

}  // namespace autoscheme::capi
