// Sixteen lanes of float64, beside those of lanes.h and by the same rules: for the files that Room.cmake compiles once
// for each instruction set, with the same bits from all of them.
#pragma once

#include "tensor/lanes.h"

namespace autoscheme::cpu {
namespace {

// WIDE_2: a function of two arguments, part by part.
#if defined(AUTOSCHEME_AVX512)
struct D {
  __m512d p, q;
};
#define WIDE_2(name, f) \
  AUTOSCHEME_INLINE D name(D a, D b) { return {f(a.p, b.p), f(a.q, b.q)}; }
#define WIDE(name) _mm512_##name
#elif defined(AUTOSCHEME_AVX2)
struct D {
  __m256d p, q, r, s;
};
#define WIDE_2(name, f) \
  AUTOSCHEME_INLINE D name(D a, D b) { return {f(a.p, b.p), f(a.q, b.q), f(a.r, b.r), f(a.s, b.s)}; }
#define WIDE(name) _mm256_##name
#else
struct D {
  double p[kLanes];
};
#define WIDE_2(name, f)                                          \
  AUTOSCHEME_INLINE D name(D a, D b) {                           \
    D r;                                                         \
    for (int i = 0; i < kLanes; ++i) r.p[i] = f(a.p[i], b.p[i]); \
    return r;                                                    \
  }
#define WIDE(name) plain_##name
AUTOSCHEME_INLINE double plain_add_pd(double a, double b) { return a + b; }
AUTOSCHEME_INLINE double plain_sub_pd(double a, double b) { return a - b; }
AUTOSCHEME_INLINE double plain_mul_pd(double a, double b) { return a * b; }
AUTOSCHEME_INLINE double plain_max_pd(double a, double b) { return a > b ? a : b; }
#endif

WIDE_2(operator+, WIDE(add_pd))
WIDE_2(operator-, WIDE(sub_pd))
WIDE_2(operator*, WIDE(mul_pd))
// b where either is NaN.
WIDE_2(Max, WIDE(max_pd))

// PowerOfTwo: 2^k for an integer k from -1022 to 1023, of which `shifted` is kShifted + k: its low bits hold k.
constexpr double kShifted = 6755399441055744.0;  // 1.5 * 2^52
#if defined(AUTOSCHEME_AVX512)
AUTOSCHEME_INLINE D SetWide(double v) { return {_mm512_set1_pd(v), _mm512_set1_pd(v)}; }
AUTOSCHEME_INLINE D Load(const double* x) { return {_mm512_loadu_pd(x), _mm512_loadu_pd(x + 8)}; }
AUTOSCHEME_INLINE void Store(D a, double* y) { _mm512_storeu_pd(y, a.p), _mm512_storeu_pd(y + 8, a.q); }
AUTOSCHEME_INLINE D ToWide(F a) {
  return {_mm512_cvtps_pd(_mm512_castps512_ps256(a.p)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(a.p, 1))};
}
AUTOSCHEME_INLINE __m512d PowerOfTwo(__m512d shifted) {
  const __m512i exponent = _mm512_add_epi64(_mm512_castpd_si512(shifted), _mm512_set1_epi64(1023));
  return _mm512_castsi512_pd(_mm512_slli_epi64(exponent, 52));
}
AUTOSCHEME_INLINE D PowerOfTwo(D shifted) { return {PowerOfTwo(shifted.p), PowerOfTwo(shifted.q)}; }
#elif defined(AUTOSCHEME_AVX2)
AUTOSCHEME_INLINE D SetWide(double v) {
  const __m256d all = _mm256_set1_pd(v);
  return {all, all, all, all};
}
AUTOSCHEME_INLINE D Load(const double* x) {
  return {_mm256_loadu_pd(x), _mm256_loadu_pd(x + 4), _mm256_loadu_pd(x + 8), _mm256_loadu_pd(x + 12)};
}
AUTOSCHEME_INLINE void Store(D a, double* y) {
  _mm256_storeu_pd(y, a.p), _mm256_storeu_pd(y + 4, a.q), _mm256_storeu_pd(y + 8, a.r), _mm256_storeu_pd(y + 12, a.s);
}
AUTOSCHEME_INLINE D ToWide(F a) {
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(a.p)), _mm256_cvtps_pd(_mm256_extractf128_ps(a.p, 1)),
          _mm256_cvtps_pd(_mm256_castps256_ps128(a.q)), _mm256_cvtps_pd(_mm256_extractf128_ps(a.q, 1))};
}
AUTOSCHEME_INLINE __m256d PowerOfTwo(__m256d shifted) {
  const __m256i exponent = _mm256_add_epi64(_mm256_castpd_si256(shifted), _mm256_set1_epi64x(1023));
  return _mm256_castsi256_pd(_mm256_slli_epi64(exponent, 52));
}
AUTOSCHEME_INLINE D PowerOfTwo(D shifted) {
  return {PowerOfTwo(shifted.p), PowerOfTwo(shifted.q), PowerOfTwo(shifted.r), PowerOfTwo(shifted.s)};
}
#else
AUTOSCHEME_INLINE D SetWide(double v) {
  D r;
  for (int i = 0; i < kLanes; ++i) r.p[i] = v;
  return r;
}
AUTOSCHEME_INLINE D Load(const double* x) {
  D r;
  for (int i = 0; i < kLanes; ++i) r.p[i] = x[i];
  return r;
}
AUTOSCHEME_INLINE void Store(D a, double* y) {
  for (int i = 0; i < kLanes; ++i) y[i] = a.p[i];
}
AUTOSCHEME_INLINE D ToWide(F a) {
  D r;
  for (int i = 0; i < kLanes; ++i) r.p[i] = static_cast<double>(a.p[i]);
  return r;
}
AUTOSCHEME_INLINE D PowerOfTwo(D shifted) {
  for (int i = 0; i < kLanes; ++i) {
    uint64_t bits;
    __builtin_memcpy(&bits, &shifted.p[i], 8);
    bits = (bits + 1023) << 52;
    __builtin_memcpy(&shifted.p[i], &bits, 8);
  }
  return shifted;
}
#endif

AUTOSCHEME_INLINE double FirstOf(D a) {
  double all[kLanes];
  Store(a, all);
  return all[0];
}

// The sum of the lanes, by halves: lane i takes lane i + 8, then i + 4, i + 2, i + 1.
AUTOSCHEME_INLINE double Sum(D a) {
  double all[kLanes];
  Store(a, all);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) all[i] += all[i + half];
  }
  return all[0];
}

// e^v for v <= 0, to a few last bits; below -600, where it is 1e-261, it stays what it is there, and NaN stays NaN.
// 2^k e^r with |r| <= ln(2) / 2, e^r by its series.
AUTOSCHEME_INLINE D ExpOfNegative(D v) {
  v = Max(SetWide(-600), v);
  const D shifted = v * SetWide(1.4426950408889634) + SetWide(kShifted), k = shifted - SetWide(kShifted);
  // ln(2) in two parts, the first of which has zeros enough for an exact product.
  const D r = v - k * SetWide(6.93147180369123816490e-01) - k * SetWide(1.90821492927058770002e-10);
  D p = SetWide(1.0 / 39916800);
  p = p * r + SetWide(1.0 / 3628800);
  p = p * r + SetWide(1.0 / 362880);
  p = p * r + SetWide(1.0 / 40320);
  p = p * r + SetWide(1.0 / 5040);
  p = p * r + SetWide(1.0 / 720);
  p = p * r + SetWide(1.0 / 120);
  p = p * r + SetWide(1.0 / 24);
  p = p * r + SetWide(1.0 / 6);
  p = p * r + SetWide(1.0 / 2);
  return (p * (r * r) + r + SetWide(1)) * PowerOfTwo(shifted);
}

AUTOSCHEME_INLINE D Get(const double* x, Full) { return Load(x); }
// The other lanes are 0.
AUTOSCHEME_INLINE D Get(const double* x, Part part) {
  double some[kLanes] = {};
  for (int i = 0; i < part.n; ++i) some[i] = x[i];
  return Load(some);
}
AUTOSCHEME_INLINE void Put(D v, double* y, Full) { Store(v, y); }
AUTOSCHEME_INLINE void Put(D v, double* y, Part part) {
  double some[kLanes];
  Store(v, some);
  for (int i = 0; i < part.n; ++i) y[i] = some[i];
}

}  // namespace
}  // namespace autoscheme::cpu
