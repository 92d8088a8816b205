// The parts that k-quants with and without an importance matrix share (docs/algorithm.md 4.7).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "quant/codec.h"
#include "quant/quantizer.h"

namespace autoscheme {

// The layout of a k-quant's groups, for an input of `dtype`.
cpu::KFormat KFormatOf(const DataType& type, at::ScalarType dtype);

// t [blocks, groups] >= 0 -> integers of `bits` times one factor per row, the largest kept.
at::Tensor QuantizeScales(const at::Tensor& t, int bits);
// The same for scales of either sign, -2^(bits-1) for the largest magnitude.
at::Tensor QuantizeSignedScales(const at::Tensor& t, int bits);

// quantize(w), but what is not finite there, because sums or differences of large values leave float32, is what comes
// from w at 2^-100 of its size, kept finite. w: float32 [groups, size].
at::Tensor WithoutOverflow(const at::Tensor& w, const std::function<at::Tensor(const at::Tensor&)>& quantize);

// The importance matrix is float32 [in_features], not negative. Shapes that the search cannot take are quantized
// without it. Without Side::fused the tensor expressions run alone, as for a codec.
std::unique_ptr<WeightQuantizer> MakeKQuantSearch(const Side& side, const at::Tensor& imatrix);

}  // namespace autoscheme
