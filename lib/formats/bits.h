// The cost of storing a weight under a scheme: as the reference counts it (docs/algorithm.md 7.1), and in the files
// that runtimes load (docs/algorithm.md 7.2).
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "autoscheme/scheme.h"

namespace autoscheme {

// Both are of valid schemes and of a weight [out_features, in_features].
//
// Bits by the reference's accounting: weights, scales, zero points. With ignore_scale_zp_bits only bits x weights.
int64_t LayerBits(const Scheme& scheme, int64_t out_features, int64_t in_features, bool ignore_scale_zp_bits);

// Bytes with all that is stored beside the weight, without padding or headers of files. GGUF types take whole blocks of
// each row, at the sizes that ggml gives them; others packed elements and, for each group, what DataType::stored says.
int64_t FileBytes(const Scheme& scheme, int64_t out_features, int64_t in_features);

// True when the weight term counts for a menu: some option has bits <= 8 and act_bits > 8 (docs/algorithm.md 6.4; one
// flag for the whole run).
bool NeedWeightTerm(absl::Span<const Scheme> menu);

}  // namespace autoscheme
