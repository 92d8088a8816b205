// The quantizer of one layer's weight, by the importance matrix where there is one.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "absl/status/statusor.h"
#include "autoscheme/score_table.h"
#include "quant/quantizer.h"

namespace autoscheme {

// `imatrix` may be null, and is left aside where the weighted search cannot hold the shape. INVALID_ARGUMENT, naming
// the layer, for a scheme that cannot hold it.
absl::StatusOr<std::shared_ptr<const WeightQuantizer>> QuantizerOfLayer(const Scheme& scheme, const LayerInfo& layer,
                                                                        const at::Tensor* imatrix);

}  // namespace autoscheme
