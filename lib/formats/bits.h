// What a scheme costs to store, as the reference counts it (docs/algorithm.md 7.1).
#ifndef AUTOSCHEME_FORMATS_BITS_H_
#define AUTOSCHEME_FORMATS_BITS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "autoscheme/scheme.h"

namespace autoscheme {

// Storage bits of a weight [out_features, in_features]: weights, scales, zero points. With ignore_scale_zp_bits only
// bits x weights.
int64_t LayerBits(const Scheme& scheme, int64_t out_features, int64_t in_features, bool ignore_scale_zp_bits);

// True when the weight term counts for a menu: some option has bits <= 8 and act_bits > 8 (docs/algorithm.md 6.4).
bool NeedWeightTerm(absl::Span<const Scheme> menu);

// INVALID_ARGUMENT naming the field and what it may be.
absl::Status ValidateScheme(const Scheme& scheme);

}  // namespace autoscheme

#endif  // AUTOSCHEME_FORMATS_BITS_H_
