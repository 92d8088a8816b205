// Sixteen lanes of float32 or int32, in the registers that the including file is compiled for: AVX-512, AVX2, or plain
// C++ for the rest. With AUTOSCHEME_ONE_LANE, one lane in plain C++: what one thread of a GPU has. All four give the
// same bits: nothing is fused or reordered.
//
// For the files that Room.cmake compiles once for each of them (autoscheme_kernels), those of one lane, and no others.
// Everything here is local to the including file, and no header with inline functions may be included beside it: the
// linker would merge copies that were compiled for different processors.
#pragma once

#include <stdint.h>
#if defined(__AVX2__) && !defined(AUTOSCHEME_ONE_LANE)
#define AUTOSCHEME_AVX2
#include <immintrin.h>
#if defined(__AVX512F__)
#define AUTOSCHEME_AVX512
#endif
#endif

// AUTOSCHEME_INLINE: before a function that is inlined into its callers, on a device where the file is CUDA's.
// AUTOSCHEME_MEMBER: the same for a member. AUTOSCHEME_UNROLL: before a loop whose arrays are to be a thread's
// registers.
#if defined(__CUDACC__)
#define AUTOSCHEME_UNROLL _Pragma("unroll")
#define AUTOSCHEME_INLINE static __device__ __forceinline__
#define AUTOSCHEME_MEMBER __device__ __forceinline__
#else
#define AUTOSCHEME_UNROLL
#define AUTOSCHEME_INLINE static inline __attribute__((always_inline))
#define AUTOSCHEME_MEMBER inline __attribute__((always_inline))
#endif

namespace autoscheme::cpu {
namespace {

#if defined(AUTOSCHEME_ONE_LANE)
constexpr int kLanes = 1;
#else
constexpr int kLanes = 16;
#endif

// F: floats, I: signed integers, M: the result of a comparison. LANES_n: a function of n arguments a, b, c, part by
// part.
#if defined(AUTOSCHEME_AVX512)
struct F {
  __m512 p;
};
struct I {
  __m512i p;
};
struct M {
  __mmask16 p;
};
#define LANES_1(R, f) \
  { return R{f(a.p)}; }
#define LANES_2(R, f) \
  { return R{f(a.p, b.p)}; }
#define LANES_3(R, f) \
  { return R{f(a.p, b.p, c.p)}; }
#define LANES(name) _mm512_##name
#elif defined(AUTOSCHEME_AVX2)
struct F {
  __m256 p, q;
};
struct I {
  __m256i p, q;
};
struct M {
  __m256 p, q;
};
#define LANES_1(R, f) \
  { return R{f(a.p), f(a.q)}; }
#define LANES_2(R, f) \
  { return R{f(a.p, b.p), f(a.q, b.q)}; }
#define LANES_3(R, f) \
  { return R{f(a.p, b.p, c.p), f(a.q, b.q, c.q)}; }
#define LANES(name) _mm256_##name
#else
struct F {
  float p[kLanes];
};
struct I {
  int32_t p[kLanes];
};
struct M {
  int32_t p[kLanes];
};  // 0 or -1
#define LANES_1(R, f)                                    \
  {                                                      \
    R r;                                                 \
    for (int i = 0; i < kLanes; ++i) r.p[i] = f(a.p[i]); \
    return r;                                            \
  }
#define LANES_2(R, f)                                            \
  {                                                              \
    R r;                                                         \
    for (int i = 0; i < kLanes; ++i) r.p[i] = f(a.p[i], b.p[i]); \
    return r;                                                    \
  }
#define LANES_3(R, f)                                                    \
  {                                                                      \
    R r;                                                                 \
    for (int i = 0; i < kLanes; ++i) r.p[i] = f(a.p[i], b.p[i], c.p[i]); \
    return r;                                                            \
  }
#define LANES(name) plain_##name
AUTOSCHEME_INLINE uint32_t plain_bits(float v) {
  uint32_t u;
  __builtin_memcpy(&u, &v, 4);
  return u;
}
AUTOSCHEME_INLINE float plain_float(uint32_t v) {
  float f;
  __builtin_memcpy(&f, &v, 4);
  return f;
}
AUTOSCHEME_INLINE float plain_add_ps(float a, float b) { return a + b; }
AUTOSCHEME_INLINE float plain_sub_ps(float a, float b) { return a - b; }
AUTOSCHEME_INLINE float plain_mul_ps(float a, float b) { return a * b; }
AUTOSCHEME_INLINE float plain_div_ps(float a, float b) { return a / b; }
AUTOSCHEME_INLINE float plain_min_ps(float a, float b) { return a < b ? a : b; }
AUTOSCHEME_INLINE float plain_max_ps(float a, float b) { return a > b ? a : b; }
AUTOSCHEME_INLINE int32_t plain_add_epi32(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
AUTOSCHEME_INLINE int32_t plain_sub_epi32(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}
AUTOSCHEME_INLINE int32_t plain_max_epi32(int32_t a, int32_t b) { return a > b ? a : b; }
AUTOSCHEME_INLINE int32_t plain_and(int32_t a, int32_t b) { return a & b; }
AUTOSCHEME_INLINE int32_t plain_or(int32_t a, int32_t b) { return a | b; }
AUTOSCHEME_INLINE int32_t plain_xor(int32_t a, int32_t b) { return a ^ b; }
AUTOSCHEME_INLINE float plain_cvtepi32_ps(int32_t a) { return static_cast<float>(a); }
AUTOSCHEME_INLINE float plain_castsi(int32_t a) { return plain_float(static_cast<uint32_t>(a)); }
AUTOSCHEME_INLINE int32_t plain_castps(float a) { return static_cast<int32_t>(plain_bits(a)); }
#endif

AUTOSCHEME_INLINE F operator+(F a, F b) LANES_2(F, LANES(add_ps)) AUTOSCHEME_INLINE F operator-(F a, F b)
    LANES_2(F, LANES(sub_ps)) AUTOSCHEME_INLINE F
    operator*(F a, F b) LANES_2(F, LANES(mul_ps)) AUTOSCHEME_INLINE F
    operator/(F a, F b) LANES_2(F, LANES(div_ps)) AUTOSCHEME_INLINE I
    operator+(I a, I b) LANES_2(I, LANES(add_epi32)) AUTOSCHEME_INLINE I
    operator-(I a, I b) LANES_2(I, LANES(sub_epi32)) AUTOSCHEME_INLINE F ToFloat(I a)
        LANES_1(F, LANES(cvtepi32_ps)) AUTOSCHEME_INLINE I Max(I a, I b) LANES_2(I, LANES(max_epi32))
    // b where either is NaN.
    AUTOSCHEME_INLINE F Min(F a, F b) LANES_2(F, LANES(min_ps)) AUTOSCHEME_INLINE F Max(F a, F b)
        LANES_2(F, LANES(max_ps))
#if defined(AUTOSCHEME_AVX512)
            AUTOSCHEME_INLINE F Set(float v) {
  return {_mm512_set1_ps(v)};
}
AUTOSCHEME_INLINE I SetBits(uint32_t v) { return {_mm512_set1_epi32(static_cast<int>(v))}; }
AUTOSCHEME_INLINE I operator&(I a, I b) { return {_mm512_and_si512(a.p, b.p)}; }
AUTOSCHEME_INLINE I operator|(I a, I b) { return {_mm512_or_si512(a.p, b.p)}; }
AUTOSCHEME_INLINE I operator^(I a, I b) { return {_mm512_xor_si512(a.p, b.p)}; }
template <int n>
AUTOSCHEME_INLINE I Left(I a) {
  return {_mm512_slli_epi32(a.p, n)};
}
template <int n>
AUTOSCHEME_INLINE I Right(I a) {
  return {_mm512_srli_epi32(a.p, n)};
}  // zeros come in
AUTOSCHEME_INLINE I Bits(F a) { return {_mm512_castps_si512(a.p)}; }
AUTOSCHEME_INLINE F AsFloat(I a) { return {_mm512_castsi512_ps(a.p)}; }
AUTOSCHEME_INLINE M operator<(F a, F b) { return {_mm512_cmp_ps_mask(a.p, b.p, _CMP_LT_OQ)}; }
AUTOSCHEME_INLINE M operator<=(F a, F b) { return {_mm512_cmp_ps_mask(a.p, b.p, _CMP_LE_OQ)}; }
AUTOSCHEME_INLINE M operator==(F a, F b) { return {_mm512_cmp_ps_mask(a.p, b.p, _CMP_EQ_OQ)}; }
AUTOSCHEME_INLINE M operator<(I a, I b) { return {_mm512_cmplt_epi32_mask(a.p, b.p)}; }
AUTOSCHEME_INLINE M operator&(M a, M b) { return {static_cast<__mmask16>(a.p & b.p)}; }
AUTOSCHEME_INLINE M operator!(M a) { return {static_cast<__mmask16>(~a.p)}; }
AUTOSCHEME_INLINE F Select(M m, F a, F b) { return {_mm512_mask_blend_ps(m.p, b.p, a.p)}; }
AUTOSCHEME_INLINE unsigned Mask(M m) { return m.p; }
// To nearest, half to even; keeps the sign of zero.
AUTOSCHEME_INLINE F Round(F a) { return {_mm512_roundscale_ps(a.p, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
AUTOSCHEME_INLINE F Load(const float* x) { return {_mm512_loadu_ps(x)}; }
AUTOSCHEME_INLINE void Store(F a, float* y) { _mm512_storeu_ps(y, a.p); }
// The first n < 16 of them; the other lanes are 0.
AUTOSCHEME_INLINE F Load(const float* x, int n) {
  return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), x)};
}
AUTOSCHEME_INLINE void Store(F a, float* y, int n) {
  _mm512_mask_storeu_ps(y, static_cast<__mmask16>((1u << n) - 1), a.p);
}
AUTOSCHEME_INLINE I LoadHalves(const uint16_t* x) {
  return {_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)))};
}
// The lower sixteen bits of each.
AUTOSCHEME_INLINE void StoreHalves(I a, uint16_t* y) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), _mm512_cvtepi32_epi16(a.p));
}
AUTOSCHEME_INLINE __m256 Fold(F a) {
  return _mm256_add_ps(_mm512_castps512_ps256(a.p), _mm512_extractf32x8_ps(a.p, 1));
}
AUTOSCHEME_INLINE __m256i Fold(I a) {
  return _mm256_max_epi32(_mm512_castsi512_si256(a.p), _mm512_extracti32x8_epi32(a.p, 1));
}
#elif defined(AUTOSCHEME_AVX2)
            AUTOSCHEME_INLINE F Set(float v) {
  return {_mm256_set1_ps(v), _mm256_set1_ps(v)};
}
AUTOSCHEME_INLINE I SetBits(uint32_t v) {
  return {_mm256_set1_epi32(static_cast<int>(v)), _mm256_set1_epi32(static_cast<int>(v))};
}
AUTOSCHEME_INLINE I operator&(I a, I b) LANES_2(I, _mm256_and_si256) AUTOSCHEME_INLINE I operator|(I a, I b)
    LANES_2(I, _mm256_or_si256) AUTOSCHEME_INLINE I
    operator^(I a, I b) LANES_2(I, _mm256_xor_si256) template <int n>
    AUTOSCHEME_INLINE I Left(I a) {
  return {_mm256_slli_epi32(a.p, n), _mm256_slli_epi32(a.q, n)};
}
template <int n>
AUTOSCHEME_INLINE I Right(I a) {
  return {_mm256_srli_epi32(a.p, n), _mm256_srli_epi32(a.q, n)};
}
AUTOSCHEME_INLINE I Bits(F a) LANES_1(I, _mm256_castps_si256) AUTOSCHEME_INLINE F AsFloat(I a)
    LANES_1(F, _mm256_castsi256_ps) AUTOSCHEME_INLINE M
    operator<(F a, F b) {
  return {_mm256_cmp_ps(a.p, b.p, _CMP_LT_OQ), _mm256_cmp_ps(a.q, b.q, _CMP_LT_OQ)};
}
AUTOSCHEME_INLINE M operator<=(F a, F b) {
  return {_mm256_cmp_ps(a.p, b.p, _CMP_LE_OQ), _mm256_cmp_ps(a.q, b.q, _CMP_LE_OQ)};
}
AUTOSCHEME_INLINE M operator==(F a, F b) {
  return {_mm256_cmp_ps(a.p, b.p, _CMP_EQ_OQ), _mm256_cmp_ps(a.q, b.q, _CMP_EQ_OQ)};
}
AUTOSCHEME_INLINE M operator<(I a, I b) {
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.p, a.p)), _mm256_castsi256_ps(_mm256_cmpgt_epi32(b.q, a.q))};
}
AUTOSCHEME_INLINE M operator&(M a, M b) LANES_2(M, _mm256_and_ps) AUTOSCHEME_INLINE M operator!(M a) {
  const __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
  return {_mm256_xor_ps(a.p, ones), _mm256_xor_ps(a.q, ones)};
}
AUTOSCHEME_INLINE F Select(M m, F a, F b) { return {_mm256_blendv_ps(b.p, a.p, m.p), _mm256_blendv_ps(b.q, a.q, m.q)}; }
AUTOSCHEME_INLINE unsigned Mask(M m) {
  return static_cast<unsigned>(_mm256_movemask_ps(m.p)) | static_cast<unsigned>(_mm256_movemask_ps(m.q)) << 8;
}
AUTOSCHEME_INLINE F Round(F a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.p, kNearest), _mm256_round_ps(a.q, kNearest)};
}
AUTOSCHEME_INLINE F Load(const float* x) { return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
AUTOSCHEME_INLINE void Store(F a, float* y) { _mm256_storeu_ps(y, a.p), _mm256_storeu_ps(y + 8, a.q); }
AUTOSCHEME_INLINE I FirstLanes(int n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane), _mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lane)};
}
AUTOSCHEME_INLINE F Load(const float* x, int n) {
  const I mask = FirstLanes(n);
  return {_mm256_maskload_ps(x, mask.p), _mm256_maskload_ps(x + 8, mask.q)};
}
AUTOSCHEME_INLINE void Store(F a, float* y, int n) {
  const I mask = FirstLanes(n);
  _mm256_maskstore_ps(y, mask.p, a.p);
  _mm256_maskstore_ps(y + 8, mask.q, a.q);
}
AUTOSCHEME_INLINE I LoadHalves(const uint16_t* x) {
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))),
          _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + 8)))};
}
AUTOSCHEME_INLINE void StoreHalves(I a, uint16_t* y) {
  const __m256i low = _mm256_set1_epi32(0xffff);
  const __m256i packed = _mm256_packus_epi32(_mm256_and_si256(a.p, low), _mm256_and_si256(a.q, low));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), _mm256_permute4x64_epi64(packed, 0xd8));
}
AUTOSCHEME_INLINE __m256 Fold(F a) { return _mm256_add_ps(a.p, a.q); }
AUTOSCHEME_INLINE __m256i Fold(I a) { return _mm256_max_epi32(a.p, a.q); }
#else
            AUTOSCHEME_INLINE F Set(float v) {
  F r;
  for (int i = 0; i < kLanes; ++i) r.p[i] = v;
  return r;
}
AUTOSCHEME_INLINE I SetBits(uint32_t v) {
  I r;
  for (int i = 0; i < kLanes; ++i) r.p[i] = static_cast<int32_t>(v);
  return r;
}
AUTOSCHEME_INLINE I operator&(I a, I b) LANES_2(I, plain_and) AUTOSCHEME_INLINE I operator|(I a, I b)
    LANES_2(I, plain_or) AUTOSCHEME_INLINE I
    operator^(I a, I b) LANES_2(I, plain_xor) template <int n>
    AUTOSCHEME_INLINE int32_t plain_left(int32_t a) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) << n);
}
template <int n>
AUTOSCHEME_INLINE int32_t plain_right(int32_t a) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) >> n);
}
template <int n>
AUTOSCHEME_INLINE I Left(I a) LANES_1(I, plain_left<n>) template <int n>
AUTOSCHEME_INLINE I Right(I a) LANES_1(I, plain_right<n>) AUTOSCHEME_INLINE I Bits(F a)
    LANES_1(I, plain_castps) AUTOSCHEME_INLINE F AsFloat(I a) LANES_1(F, plain_castsi) AUTOSCHEME_INLINE int32_t
    plain_lt(float a, float b) {
  return a < b ? -1 : 0;
}
AUTOSCHEME_INLINE int32_t plain_le(float a, float b) { return a <= b ? -1 : 0; }
AUTOSCHEME_INLINE int32_t plain_eq(float a, float b) { return a == b ? -1 : 0; }
AUTOSCHEME_INLINE int32_t plain_less(int32_t a, int32_t b) { return a < b ? -1 : 0; }
AUTOSCHEME_INLINE int32_t plain_not(int32_t a) { return ~a; }
AUTOSCHEME_INLINE float plain_select(int32_t m, float a, float b) { return m != 0 ? a : b; }
AUTOSCHEME_INLINE M operator<(F a, F b) LANES_2(M, plain_lt) AUTOSCHEME_INLINE M operator<=(F a, F b)
    LANES_2(M, plain_le) AUTOSCHEME_INLINE M
    operator==(F a, F b) LANES_2(M, plain_eq) AUTOSCHEME_INLINE M
    operator<(I a, I b) LANES_2(M, plain_less) AUTOSCHEME_INLINE M
    operator&(M a, M b) LANES_2(M, plain_and) AUTOSCHEME_INLINE M
    operator!(M a) LANES_1(M, plain_not) AUTOSCHEME_INLINE F Select(M a, F b, F c)
        LANES_3(F, plain_select) AUTOSCHEME_INLINE unsigned Mask(M m) {
  unsigned r = 0;
  for (int i = 0; i < kLanes; ++i) r |= (m.p[i] != 0 ? 1u : 0u) << i;
  return r;
}
// Adding 2^23 leaves no bits for a fraction, and larger values have none.
AUTOSCHEME_INLINE float plain_round(float a) {
  const float magnitude = plain_float(plain_bits(a) & 0x7fffffff), magic = 8388608.0f;
  const float rounded = magnitude < magic ? (magnitude + magic) - magic : magnitude;
  return plain_float(plain_bits(rounded) | (plain_bits(a) & 0x80000000));
}
AUTOSCHEME_INLINE F Round(F a) LANES_1(F, plain_round) AUTOSCHEME_INLINE F Load(const float* x) {
  F r;
  for (int i = 0; i < kLanes; ++i) r.p[i] = x[i];
  return r;
}
AUTOSCHEME_INLINE void Store(F a, float* y) {
  for (int i = 0; i < kLanes; ++i) y[i] = a.p[i];
}
AUTOSCHEME_INLINE F Load(const float* x, int n) {
  F r;
  for (int i = 0; i < kLanes; ++i) r.p[i] = i < n ? x[i] : 0.0f;
  return r;
}
AUTOSCHEME_INLINE void Store(F a, float* y, int n) {
  for (int i = 0; i < n; ++i) y[i] = a.p[i];
}
AUTOSCHEME_INLINE I LoadHalves(const uint16_t* x) {
  I r;
  for (int i = 0; i < kLanes; ++i) r.p[i] = x[i];
  return r;
}
AUTOSCHEME_INLINE void StoreHalves(I a, uint16_t* y) {
  for (int i = 0; i < kLanes; ++i) y[i] = static_cast<uint16_t>(a.p[i]);
}
#endif

// The sum of the lanes, by halves: lane i takes lane i + 8, then i + 4, i + 2, i + 1.
AUTOSCHEME_INLINE float Sum(F a) {
#if defined(AUTOSCHEME_AVX2)
  const __m256 eight = Fold(a);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
#else
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.p[i] += a.p[i + half];
  }
  return a.p[0];
#endif
}

AUTOSCHEME_INLINE int32_t MaxOf(I a) {
#if defined(AUTOSCHEME_AVX2)
  const __m256i eight = Fold(a);
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
#else
  int32_t most = a.p[0];
  for (int i = 1; i < kLanes; ++i) most = a.p[i] > most ? a.p[i] : most;
  return most;
#endif
}

AUTOSCHEME_INLINE float FloatOf(int32_t bits) {
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}

AUTOSCHEME_INLINE F Abs(F a) { return AsFloat(Bits(a) & SetBits(0x7fffffff)); }
AUTOSCHEME_INLINE F Negated(F a) { return AsFloat(Bits(a) ^ SetBits(0x80000000)); }
AUTOSCHEME_INLINE F WithSignOf(F magnitude, F sign) {
  return AsFloat(Bits(magnitude) | (Bits(sign) & SetBits(0x80000000)));
}
// NaN stays NaN.
AUTOSCHEME_INLINE F Clamp(F v, F low, F high) { return Min(high, Max(low, v)); }
AUTOSCHEME_INLINE M IsFinite(F a) { return Abs(a) <= Set(3.402823466e38f); }
// 0 where m is not.
AUTOSCHEME_INLINE F Where(M m, F a) { return Select(m, a, Set(0)); }
// To the nearest bfloat16, half to even; overflows to infinity; NaN stays NaN.
AUTOSCHEME_INLINE F ToBFloat16(F v) {
  const I bits = Bits(v);
  const F rounded = AsFloat((bits + SetBits(0x7fff) + (Right<16>(bits) & SetBits(1))) & SetBits(0xffff0000));
  return Select(v == v, rounded, AsFloat(bits | SetBits(0x7fc00000)));
}

// Reading and writing float32, or the bits of bfloat16: all lanes, or the first few.
struct Full {};
struct Part {
  int n;
};

AUTOSCHEME_INLINE F Get(const float* x, Full) { return Load(x); }
AUTOSCHEME_INLINE F Get(const float* x, Part part) { return Load(x, part.n); }
AUTOSCHEME_INLINE F Get(const uint16_t* x, Full) { return AsFloat(Left<16>(LoadHalves(x))); }
AUTOSCHEME_INLINE F Get(const uint16_t* x, Part part) {
  uint16_t some[kLanes] = {};
  for (int i = 0; i < part.n; ++i) some[i] = x[i];
  return Get(some, Full());
}
AUTOSCHEME_INLINE void Put(F v, float* y, Full) { Store(v, y); }
AUTOSCHEME_INLINE void Put(F v, float* y, Part part) { Store(v, y, part.n); }
AUTOSCHEME_INLINE void Put(F v, uint16_t* y, Full) { StoreHalves(Right<16>(Bits(ToBFloat16(v))), y); }
AUTOSCHEME_INLINE void Put(F v, uint16_t* y, Part part) {
  uint16_t some[kLanes];
  Put(v, some, Full());
  for (int i = 0; i < part.n; ++i) y[i] = some[i];
}

// body(i, lanes) over [0, n).
template <typename Body>
AUTOSCHEME_INLINE void Over(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Full());
  if (i < n) body(i, Part{static_cast<int>(n - i)});
}

}  // namespace
}  // namespace autoscheme::cpu
