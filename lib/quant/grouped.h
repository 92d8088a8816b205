// Turns a codec of groups into both sides of a quantizer: grouping, padding, slicing, threads (docs/algorithm.md 4.1).
#ifndef AUTOSCHEME_QUANT_GROUPED_H_
#define AUTOSCHEME_QUANT_GROUPED_H_

#include <memory>

#include "quant/codec.h"
#include "quant/quantizer.h"

namespace autoscheme {

// `side`: the one that the codec was made for; its groups, and whether fused loops may run.
std::unique_ptr<WeightQuantizer> MakeGroupedWeight(const Side& side, std::unique_ptr<GroupCodec> codec);
std::unique_ptr<ActivationQuantizer> MakeGroupedActivation(const Side& side, std::unique_ptr<GroupCodec> codec);

}  // namespace autoscheme

#endif  // AUTOSCHEME_QUANT_GROUPED_H_
