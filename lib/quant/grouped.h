// The two sides of a quantizer from a codec of groups: grouping, padding, slicing, threads (docs/algorithm.md 4.1).
#pragma once

#include <memory>

#include "quant/codec.h"
#include "quant/quantizer.h"

namespace autoscheme {

std::unique_ptr<WeightQuantizer> MakeGroupedWeight(const Side& side);
std::unique_ptr<ActivationQuantizer> MakeGroupedActivation(const Side& side);

}  // namespace autoscheme
