// Fused loops over groups for the CPU: one pass over each group while it is in the first-level cache, no temporaries.
// Compiled for AVX-512, AVX2 and the baseline from one body (see lanes.h); all three give the same bits.
//
// Everything here is serial and plain memory; fused.h spreads it over rows and threads.
#pragma once

#include <stdint.h>

namespace autoscheme::cpu {

enum class Family { kIntSym, kIntAsym, kMx, kNvfp4, kE5m3, kFp8 };
enum class ScaleType { kFloat, kHalf, kBFloat16 };

// How the groups of one side of a scheme are quantized. Fields that a family has no use for stay as they are.
struct Format {
  Family family = Family::kIntSym;
  // Integers: 2^(bits-1) of them on either side of zero (symmetric), or 0 .. levels.
  int levels = 0;
  ScaleType scale_type = ScaleType::kFloat;
  float least_scale = 0;
  bool float_zero_point = false;
  // Elements of few bits: 2^log2_steps codes per binade from least_exponent up (or, without binades, multiples of
  // 2^-log2_steps), at most `top`.
  bool binades = true;
  int log2_steps = 0;
  int least_exponent = 0;
  float top = 0;
  // MX: exponent of the largest code, and which way the shared exponent is rounded.
  int max_exponent = 0;
  bool ceil_scale = false;
  // Every step rounded to bfloat16 (of asymmetric integers: the steps to the scale), as the reference works where the
  // input is bfloat16.
  bool narrow = false;
};

// `count` groups of `size` elements, one behind the other; the last one may be shorter.
struct Groups {
  int64_t count, size, last;
  int64_t elements() const { return (count - 1) * size + last; }
};
constexpr int64_t kMostGroups = 256;  // in one call

// What the gradients of a tensor's one scale are made of; summed over calls in a fixed order.
struct WholeGradient {
  double sum = 0;
  int64_t holders = 0;        // elements of the largest magnitude
  int64_t first_holder = -1;  // index into the call's elements
};

// A k-quant (docs/algorithm.md 4.7). Groups of 16 or 32; `groups` of them share the factors of their scales and minima.
struct KFormat {
  int bits, group, groups, scale_bits;
  bool sym;
  bool narrow_range;  // ranges are formed in bfloat16 (without importance)
};

struct Kernels {
  void (*widen_bfloat16)(const uint16_t* x, int64_t n, float* y);
  void (*widen_half)(const uint16_t* x, int64_t n, float* y);
  // To nearest even; finite values beyond the largest bfloat16, and infinities, become it.
  void (*narrow_bfloat16)(const float* x, int64_t n, uint16_t* y);

  // The largest magnitude of each group; NaN where there is one.
  void (*amaxes)(const float* x, const Groups& groups, float* amaxes);

  // Quant-dequant. `amaxes`: of each group, where they are known (null: found here). `whole`: the largest magnitude of
  // the tensor (kNvfp4 only). x may be y.
  void (*forward)(const Format& format, const float* x, const Groups& groups, const float* amaxes, float whole,
                  float* y);
  // dx for dL/dy = g; dx may be g. With `amaxes`, groups share one scale, and dx lacks what flows through it, as it
  // does for kNvfp4 with a `whole_gradient`: its terms are added to that. Null: the groups' own scales are all there
  // is.
  void (*backward)(const Format& format, const float* x, const float* g, const Groups& groups, const float* amaxes,
                   float whole, float* dx, WholeGradient* whole_gradient);
  // dx += share * sign(x) where |x| is `whole`.
  void (*add_share)(const float* x, int64_t n, float whole, float share, float* dx);

  // `count` groups, a multiple of format.groups, at most kMostGroups. `importance`: one weight for each element of
  // `importance_groups` groups that repeat; the first group here is number `first` of the tensor. Null: without.
  // False when a result is not finite.
  bool (*k_quant)(const KFormat& format, const float* x, int64_t count, const float* importance,
                  int64_t importance_groups, int64_t first, float* y);
};

extern const Kernels kAvx512Kernels, kAvx2Kernels, kBaselineKernels;

// Those that the processor can run, best first; the result is their number.
int RunnableKernels(const Kernels* kernels[3]);

// Those for the instruction set that LibTorch chose (ATEN_CPU_CAPABILITY overrides it).
const Kernels& BestKernels();

}  // namespace autoscheme::cpu
