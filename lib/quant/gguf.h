// What the plain and the imatrix-weighted K types share (docs/algorithm.md 4.7).
#ifndef AUTOSCHEME_QUANT_GGUF_H_
#define AUTOSCHEME_QUANT_GGUF_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "quant/codec.h"
#include "quant/quantizer.h"

namespace autoscheme {

struct KLayout {
  int bits;
  int group;       // elements that share a scale
  int groups;      // groups that share the factors of their scales and minima
  int scale_bits;  // of those scales and minima
  bool sym;
};
// bits: 2, 3, 4, 5 or 6.
KLayout KLayoutOf(int bits);

// For an input of `dtype`.
cpu::KFormat FusedKFormat(const KLayout& layout, at::ScalarType dtype);

// t [blocks, groups] >= 0 -> integers of `bits` times one factor per row, the largest kept.
at::Tensor QuantizeScales(const at::Tensor& t, int bits);
// The same for scales of either sign, -2^(bits-1) for the largest magnitude.
at::Tensor QuantizeSignedScales(const at::Tensor& t, int bits);

// quantize(w), but what is not finite there, because sums or differences of large values leave float32, is what comes
// from w at 2^-100 of its size, kept finite. w: float32 [groups, size].
at::Tensor WithoutOverflow(const at::Tensor& w, const std::function<at::Tensor(const at::Tensor&)>& quantize);

// Without an imatrix. The gradient is the identity: a K type's result is a constant for scoring.
std::unique_ptr<GroupCodec> MakeKCodec(const Side& side);
// With one: float32 [in_features], not negative. Shapes that the search cannot take are quantized without it.
// Without Side::fused the tensor expressions run alone, as for a K codec.
std::unique_ptr<WeightQuantizer> MakeKSearchWeight(const Side& side, const at::Tensor& imatrix);

}  // namespace autoscheme

#endif  // AUTOSCHEME_QUANT_GGUF_H_
