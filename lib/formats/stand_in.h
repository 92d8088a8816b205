// The scheme that takes the place of a k-quant in a layer whose rows its super-groups of 256 elements do not divide.
#pragma once

#include <optional>

#include "autoscheme/scheme.h"
#include "autoscheme/score_table.h"

namespace autoscheme {

// The type that files hold instead of `scheme` in this layer, as the reference and llama.cpp choose it: for rows that
// are multiples of 32 a type of 32 elements a block with as many bits or more (SuperGroup::stand_in), else 16 bits.
// Empty where the scheme itself can stay: it is no k-quant, or its super-groups divide the rows.
std::optional<Scheme> StandIn(const Scheme& scheme, const LayerInfo& layer);

// What the layer really gets under `scheme`: the stand-in, or the scheme itself.
Scheme StoredScheme(const Scheme& scheme, const LayerInfo& layer);

}  // namespace autoscheme
