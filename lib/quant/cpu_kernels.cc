#include "quant/cpu_kernels.h"

#include <ATen/ATen.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

// The loops below are written for the compiler's vectorizer and compiled twice: for the baseline of the build and for
// AVX2. No fused multiply-add: results must not depend on the machine (see CMakeLists.txt).
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define AUTOSCHEME_AVX2 __attribute__((target("avx2")))
#endif
#define AUTOSCHEME_INLINE inline __attribute__((always_inline))

namespace autoscheme::cpu {
namespace {

AUTOSCHEME_INLINE uint32_t Bits(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}
AUTOSCHEME_INLINE float FromBits(uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

// Loads and stores of the two dtypes; bfloat16 travels as its bits.
AUTOSCHEME_INLINE float Load(float v) { return v; }
AUTOSCHEME_INLINE float Load(uint16_t v) { return FromBits(static_cast<uint32_t>(v) << 16); }

// The bits of v rounded to bfloat16, to nearest even, in the upper half; NaN stays NaN.
AUTOSCHEME_INLINE uint32_t Bf16Bits(float v) {
  const uint32_t bits = Bits(v);
  const uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const uint32_t nan = 0u - static_cast<uint32_t>((bits & 0x7fffffff) > 0x7f800000);  // no branch: it must vectorize
  return ((rounded & ~nan) | (0x7fc00000 & nan)) & 0xffff0000;
}
AUTOSCHEME_INLINE void Store(float v, float* out) { *out = v; }
AUTOSCHEME_INLINE void Store(float v, uint16_t* out) { *out = static_cast<uint16_t>(Bf16Bits(v) >> 16); }

AUTOSCHEME_INLINE float Clamp(float v, float low, float high) {
  v = v < low ? low : v;
  return v > high ? high : v;
}

// Half to even, for |v| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
AUTOSCHEME_INLINE float Round(float v) {
  const float magic = 12582912.0f;
  return (v + magic) - magic;
}

// The same, but the number just below a half goes to 1, as floor(|v| + 0.5) makes it in float32 (see mx.cc).
AUTOSCHEME_INLINE float RoundUpAtHalf(float v) {
  const float rounded = Round(v), one = FromBits((Bits(v) & 0x80000000) | 0x3f800000);
  return (Bits(v) & 0x7fffffff) == 0x3effffff ? one : rounded;
}

template <typename T>
float Largest() {
  return sizeof(T) == 2 ? FromBits(0x7f7f0000) : std::numeric_limits<float>::max();
}

// Integers that order as the floats do, and back.
AUTOSCHEME_INLINE int32_t Order(float v) {
  const int32_t bits = static_cast<int32_t>(Bits(v));
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
AUTOSCHEME_INLINE float FromOrder(int32_t order) {
  return FromBits(static_cast<uint32_t>(order ^ ((order >> 31) & 0x7fffffff)));
}

// Reductions over integers: the vectorizer may reorder those, but not minima and maxima of floats.
template <typename T>
AUTOSCHEME_INLINE void MinMaxBody(const T* x, int64_t groups, int64_t size, float* low, float* high) {
  for (int64_t g = 0; g < groups; ++g, x += size) {
    int32_t lo = std::numeric_limits<int32_t>::max(), hi = std::numeric_limits<int32_t>::min();
    for (int64_t j = 0; j < size; ++j) {
      const int32_t order = Order(Load(x[j]));
      lo = order < lo ? order : lo;
      hi = order > hi ? order : hi;
    }
    low[g] = FromOrder(lo);
    high[g] = FromOrder(hi);
  }
}

template <typename T>
AUTOSCHEME_INLINE void AbsMaxBody(const T* x, int64_t groups, int64_t size, float* out) {
  for (int64_t g = 0; g < groups; ++g, x += size) {
    // Magnitudes order as their bits do.
    int32_t most = 0;
    for (int64_t j = 0; j < size; ++j) {
      const int32_t bits = static_cast<int32_t>(Bits(Load(x[j])) & 0x7fffffff);
      most = bits > most ? bits : most;
    }
    out[g] = FromBits(static_cast<uint32_t>(most));
  }
}

template <typename T, bool kNarrow>
AUTOSCHEME_INLINE void LevelsBody(const T* x, int64_t groups, int64_t size, const float* scale, int levels, T* y) {
  const float low = static_cast<float>(-levels), high = static_cast<float>(levels - 1), top = Largest<T>();
  for (int64_t g = 0; g < groups; ++g, x += size, y += size) {
    const float s = scale[g];
    for (int64_t j = 0; j < size; ++j) {
      float u = Load(x[j]) / s;
      if (kNarrow) u = FromBits(Bf16Bits(u));
      const float q = Clamp(Round(u), low, high);
      Store(Clamp(q * s, -top, top), &y[j]);
    }
  }
}

template <typename T, bool kBinades>
AUTOSCHEME_INLINE void FormatBody(const T* x, int64_t groups, int64_t size, const float* scale,
                                  const ElementFormat& format, T* y) {
  const float limit = format.top, top = Largest<T>(), steps = static_cast<float>(format.steps), step = 1.0f / steps;
  const int32_t least = format.least_exponent + 127;
  for (int64_t g = 0; g < groups; ++g, x += size, y += size) {
    const float s = scale[g];
    for (int64_t j = 0; j < size; ++j) {
      const float t = Clamp(Load(x[j]) / s, -limit, limit);
      float o;
      if (kBinades) {
        const int32_t own = static_cast<int32_t>((Bits(t) & 0x7fffffff) >> 23);
        const int32_t exponent = own < least ? least : own;
        const float up = FromBits(static_cast<uint32_t>(254 - exponent) << 23);  // 2^-exponent
        const float down = FromBits(static_cast<uint32_t>(exponent) << 23);
        o = RoundUpAtHalf(t * up * steps) * step * down;
      } else {
        o = RoundUpAtHalf(t * steps) * step;
      }
      Store(Clamp(Clamp(o, -limit, limit) * s, -top, top), &y[j]);
    }
  }
}

// Runs the body compiled for what the processor has.
#ifdef AUTOSCHEME_AVX2
#define AUTOSCHEME_DISPATCH(name, params, args)                   \
  template <typename T>                                           \
  AUTOSCHEME_AVX2 void name##Avx2 params {                        \
    name##Body<T> args;                                           \
  }                                                               \
  template <typename T>                                           \
  void name##Baseline params {                                    \
    name##Body<T> args;                                           \
  }                                                               \
  template <typename T>                                           \
  void name##Run params {                                         \
    static const bool avx2 = __builtin_cpu_supports("avx2") != 0; \
    avx2 ? name##Avx2<T> args : name##Baseline<T> args;           \
  }
#else
#define AUTOSCHEME_DISPATCH(name, params, args) \
  template <typename T>                         \
  void name##Run params {                       \
    name##Body<T> args;                         \
  }
#endif

template <typename T>
AUTOSCHEME_INLINE void LevelsWideBody(const T* x, int64_t groups, int64_t size, const float* scale, int levels, T* y) {
  LevelsBody<T, false>(x, groups, size, scale, levels, y);
}
template <typename T>
AUTOSCHEME_INLINE void LevelsNarrowBody(const T* x, int64_t groups, int64_t size, const float* scale, int levels,
                                        T* y) {
  LevelsBody<T, true>(x, groups, size, scale, levels, y);
}
template <typename T>
AUTOSCHEME_INLINE void BinadesBody(const T* x, int64_t groups, int64_t size, const float* scale,
                                   const ElementFormat& format, T* y) {
  FormatBody<T, true>(x, groups, size, scale, format, y);
}
template <typename T>
AUTOSCHEME_INLINE void EvenStepsBody(const T* x, int64_t groups, int64_t size, const float* scale,
                                     const ElementFormat& format, T* y) {
  FormatBody<T, false>(x, groups, size, scale, format, y);
}

AUTOSCHEME_DISPATCH(MinMax, (const T* x, int64_t groups, int64_t size, float* low, float* high),
                    (x, groups, size, low, high))
AUTOSCHEME_DISPATCH(AbsMax, (const T* x, int64_t groups, int64_t size, float* out), (x, groups, size, out))
AUTOSCHEME_DISPATCH(LevelsWide, (const T* x, int64_t groups, int64_t size, const float* scale, int levels, T* y),
                    (x, groups, size, scale, levels, y))
AUTOSCHEME_DISPATCH(LevelsNarrow, (const T* x, int64_t groups, int64_t size, const float* scale, int levels, T* y),
                    (x, groups, size, scale, levels, y))
AUTOSCHEME_DISPATCH(Binades,
                    (const T* x, int64_t groups, int64_t size, const float* scale, const ElementFormat& format, T* y),
                    (x, groups, size, scale, format, y))
AUTOSCHEME_DISPATCH(EvenSteps,
                    (const T* x, int64_t groups, int64_t size, const float* scale, const ElementFormat& format, T* y),
                    (x, groups, size, scale, format, y))

// Calls with the data as float or as the bits of bfloat16.
template <typename Call>
void ByDtype(const at::Tensor& x, const Call& call) {
  if (x.scalar_type() == at::kFloat) {
    call(static_cast<const float*>(x.const_data_ptr()));
  } else {
    call(static_cast<const uint16_t*>(x.const_data_ptr()));
  }
}

template <typename T>
T* Out(const at::Tensor& y) {
  return static_cast<T*>(y.mutable_data_ptr());
}

const float* Scales(const at::Tensor& scale) { return scale.const_data_ptr<float>(); }

}  // namespace

bool Takes(const at::Tensor& x) {
  return x.is_cpu() && x.is_contiguous() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

std::pair<at::Tensor, at::Tensor> MinMax(const at::Tensor& x) {
  const at::Tensor low = at::empty({x.size(0), 1}, at::kFloat), high = at::empty_like(low);
  ByDtype(x, [&](const auto* data) { MinMaxRun(data, x.size(0), x.size(1), Out<float>(low), Out<float>(high)); });
  return {low.to(x.scalar_type()), high.to(x.scalar_type())};
}

at::Tensor AbsMax(const at::Tensor& x) {
  const at::Tensor out = at::empty({x.size(0), 1}, at::kFloat);
  ByDtype(x, [&](const auto* data) { AbsMaxRun(data, x.size(0), x.size(1), Out<float>(out)); });
  return out;
}

void RoundToLevels(const at::Tensor& x, const at::Tensor& scale, int levels, bool narrow, at::Tensor& y) {
  const at::Tensor s = scale.contiguous();
  ByDtype(x, [&](const auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    if (narrow) {
      LevelsNarrowRun(data, x.size(0), x.size(1), Scales(s), levels, Out<T>(y));
    } else {
      LevelsWideRun(data, x.size(0), x.size(1), Scales(s), levels, Out<T>(y));
    }
  });
}

void RoundToFormat(const at::Tensor& x, const at::Tensor& scale, const ElementFormat& format, at::Tensor& y) {
  const at::Tensor s = scale.contiguous();
  ByDtype(x, [&](const auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    if (format.binades) {
      BinadesRun(data, x.size(0), x.size(1), Scales(s), format, Out<T>(y));
    } else {
      EvenStepsRun(data, x.size(0), x.size(1), Scales(s), format, Out<T>(y));
    }
  });
}

}  // namespace autoscheme::cpu
