// Fused loops over groups for the CPU. Each gives, bit for bit, what the ATen expression beside its call gives.
#ifndef AUTOSCHEME_QUANT_CPU_KERNELS_H_
#define AUTOSCHEME_QUANT_CPU_KERNELS_H_

#include <ATen/core/Tensor.h>

#include <utility>

namespace autoscheme::cpu {

// All take x: [groups, size] on the CPU, contiguous, float32 or bfloat16; they run on the calling thread.

// What a call is worth its overhead for, and a core's cache still holds.
constexpr int64_t kSliceElements = 1 << 16;

// True when x is such a tensor.
bool Takes(const at::Tensor& x);

// Smallest and largest of each group, [groups, 1] in x's dtype.
std::pair<at::Tensor, at::Tensor> MinMax(const at::Tensor& x);
// Largest magnitude of each group, [groups, 1] float32.
at::Tensor AbsMax(const at::Tensor& x);

// y = clamp(round(x / scale), -levels, levels - 1) * scale, saturated to y's dtype, which is x's. scale: float32
// [groups, 1]. With `narrow` quotient and product are rounded to bfloat16. |x / scale| must stay below 2^22.
void RoundToLevels(const at::Tensor& x, const at::Tensor& scale, int levels, bool narrow, at::Tensor& y);

// y = elements of x / scale rounded to `steps` codes per binade from exponent `least_exponent` up (or, without binades,
// to multiples of 1 / steps), at most `top`, times scale. scale: powers of two, float32 [groups, 1].
struct ElementFormat {
  bool binades;
  int steps;
  int least_exponent;
  float top;
};
void RoundToFormat(const at::Tensor& x, const at::Tensor& scale, const ElementFormat& format, at::Tensor& y);

}  // namespace autoscheme::cpu

#endif  // AUTOSCHEME_QUANT_CPU_KERNELS_H_
