// The bodies of Kernels but for the k-quants, for kernels_*.cc only (see lanes.h). docs/algorithm.md 4.2 to 4.6, 5.
//
// Every call goes through the same steps: the range of each group; its scale, sixteen groups side by side; the
// elements. What a step gives is, to the last bit, what the ATen expressions of the codecs give; sums in gradients run
// in an order of their own.
#pragma once

#include "quant/kernels.h"
#include "tensor/lanes.h"

namespace autoscheme::cpu {
namespace {

constexpr float kLargest = 3.402823466e38f, kLargestBFloat16 = 3.3895313892515355e38f;

// One number for each group of a call.
struct PerGroup {
  alignas(64) float v[kMostGroups];
};

// ---- dtypes ----

// To the nearest value of the scale's dtype; where that overflows the value stays as it is, so that a huge group is
// quantized with a float32 scale instead of turning into NaN (docs/algorithm.md 9.2).
AUTOSCHEME_INLINE F ToScale(F v, ScaleType type) {
  if (type == ScaleType::kFloat) return v;
  const F magnitude = Abs(v);
  if (type == ScaleType::kBFloat16) return Select(magnitude < Set(FloatOf(0x7f7f8000)), ToBFloat16(v), v);
  const I bits = Bits(magnitude);
  const F normal = AsFloat((bits + SetBits(0xfff) + (Right<13>(bits) & SetBits(1))) & SetBits(0xffffe000));
  const F subnormal = Round(magnitude * Set(16777216.0f)) * Set(1.0f / 16777216);
  const F rounded = Select(magnitude < Set(1.0f / 16384), subnormal, normal);
  return Select(magnitude < Set(65520.0f), WithSignOf(rounded, v), v);
}

void WidenBFloat16(const uint16_t* x, int64_t n, float* y) {
  Over(n, [&](int64_t i, auto lanes) { Put(Get(x + i, lanes), y + i, lanes); });
}

AUTOSCHEME_INLINE F Widened(I half) {
  const I magnitude = half & SetBits(0x7fff);
  const F finite = AsFloat(Left<13>(magnitude)) * Set(5.192296858534828e33f);  // 2^112, the difference of the biases
  const F special = AsFloat(Left<13>(magnitude) | SetBits(0x7f800000));
  const F wide = Select(magnitude < SetBits(0x7c00), finite, special);
  return AsFloat(Bits(wide) | Left<16>(half & SetBits(0x8000)));
}

void WidenHalf(const uint16_t* x, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(Widened(LoadHalves(x + i)), y + i);
  if (i == n) return;
  uint16_t rest[kLanes] = {};
  for (int64_t k = i; k < n; ++k) rest[k - i] = x[k];
  Store(Widened(LoadHalves(rest)), y + i, static_cast<int>(n - i));
}

void NarrowBFloat16(const float* x, int64_t n, uint16_t* y) {
  const F top = Set(kLargestBFloat16), bottom = Set(-kLargestBFloat16);
  Over(n, [&](int64_t i, auto lanes) { Put(Clamp(Get(x + i, lanes), bottom, top), y + i, lanes); });
}

// ---- the range of a group ----

// Magnitudes order as their bits do, NaN above all.
AUTOSCHEME_INLINE float AmaxOf(const float* x, int64_t n) {
  const I magnitude = SetBits(0x7fffffff);
  I most = SetBits(0);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) most = Max(most, Bits(Load(x + j)) & magnitude);
  if (j < n) most = Max(most, Bits(Load(x + j, static_cast<int>(n - j))) & magnitude);
  return FloatOf(MaxOf(most));
}

// The largest of 0 and the elements (high), and of 0 and the negated elements (low).
AUTOSCHEME_INLINE void RangeOf(const float* x, int64_t n, float* low, float* high) {
  const I sign = SetBits(0x80000000);
  I up = SetBits(0), down = SetBits(0);
  const auto add = [&](F v) {
    up = Max(up, Bits(v));
    down = Max(down, Bits(v) ^ sign);
  };
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) add(Load(x + j));
  if (j < n) add(Load(x + j, static_cast<int>(n - j)));
  *low = FloatOf(MaxOf(down));
  *high = FloatOf(MaxOf(up));
}

template <typename Body>
AUTOSCHEME_INLINE void ForEachGroup(const Groups& groups, const Body& body) {
  for (int64_t g = 0; g < groups.count; ++g)
    body(g, g * groups.size, g + 1 == groups.count ? groups.last : groups.size);
}

void Amaxes(const float* x, const Groups& groups, float* amaxes) {
  if (groups.size == 16) {
    ForEachGroup(groups, [&](int64_t g, int64_t at, int64_t n) {
      amaxes[g] = n == 16 ? AmaxOf(x + at, 16) : AmaxOf(x + at, n);
    });
  } else if (groups.size == 32) {
    ForEachGroup(groups, [&](int64_t g, int64_t at, int64_t n) {
      amaxes[g] = n == 32 ? AmaxOf(x + at, 32) : AmaxOf(x + at, n);
    });
  } else {
    ForEachGroup(groups, [&](int64_t g, int64_t at, int64_t n) { amaxes[g] = AmaxOf(x + at, n); });
  }
}

AUTOSCHEME_INLINE void Ranges(const float* x, const Groups& groups, PerGroup& low, PerGroup& high) {
  ForEachGroup(groups, [&](int64_t g, int64_t at, int64_t n) { RangeOf(x + at, n, &low.v[g], &high.v[g]); });
}

// ---- elements of few bits ----

struct Element {
  explicit Element(const Format& f)
      : least(SetBits(static_cast<uint32_t>(f.least_exponent + 127))),
        up(SetBits(static_cast<uint32_t>(254 + f.log2_steps))),
        steps(SetBits(static_cast<uint32_t>(f.log2_steps))),
        even_up(Set(static_cast<float>(1 << f.log2_steps))),
        even_down(Set(1.0f / static_cast<float>(1 << f.log2_steps))),
        top(Set(f.top)),
        bottom(Set(-f.top)) {}
  I least, up, steps;
  F even_up, even_down, top, bottom;
};

// Half to even. MX formats round by floor(|u| + 0.5), whose float32 sum carries the number just below a half (see
// mx.cc).
template <bool kMx>
AUTOSCHEME_INLINE F RoundCode(F u) {
  return kMx ? Round(Select(Abs(u) == AsFloat(SetBits(0x3effffff)), u + u, u)) : Round(u);
}

// t within the format's range, rounded to its nearest code.
template <bool kBinades, bool kMx>
AUTOSCHEME_INLINE F RoundElement(F t, const Element& e) {
  if (!kBinades) return RoundCode<kMx>(t * e.even_up) * e.even_down;
  const I exponent = Max(Right<23>(Bits(Abs(t))), e.least);
  return RoundCode<kMx>(t * AsFloat(Left<23>(e.up - exponent))) * AsFloat(Left<23>(exponent - e.steps));
}

AUTOSCHEME_INLINE F ToE4m3(F t) {
  Format e4m3;
  e4m3.log2_steps = 3, e4m3.least_exponent = -6, e4m3.top = 448;
  const Element e(e4m3);
  return RoundElement<true, false>(Clamp(t, e.bottom, e.top), e);
}

AUTOSCHEME_INLINE F ReciprocalOrZero(F v) { return Select(v == Set(0), Set(0), Set(1) / v); }

// ---- scales ----

// 2^e for -127 <= e <= 127.
AUTOSCHEME_INLINE F PowerOfTwo(I e) {
  return Select(e < SetBits(static_cast<uint32_t>(-126)), Set(FloatOf(0x00400000)),
                AsFloat(Left<23>(e + SetBits(127))));
}

// floor or ceil of log2(v) as float32 rounds it: a logarithm within half a unit of an integer is that integer. v > 0.
AUTOSCHEME_INLINE I Log2(F v, bool ceil) {
  const M small = v < Set(1.17549435e-38f);
  const I bits = Bits(Select(small, v * Set(4294967296.0f), v));
  const I zero = SetBits(0), one = SetBits(1);
  const I bias = Bits(Select(small, AsFloat(SetBits(127 + 32)), AsFloat(SetBits(127))));
  const I e = Right<23>(bits) - bias, mantissa = bits & SetBits(0x7fffff);
  // Integers around which float32 has a spacing of 2^(k-23), k the exponent of `size`.
  const auto half_unit = [&](I size) { return AsFloat(Bits(ToFloat(size)) & SetBits(0x7f800000)); };
  const auto pick = [&](M m, I a, I b) { return Bits(Select(m, AsFloat(a), AsFloat(b))); };
  if (ceil) {
    const M near = ToFloat(mantissa) < half_unit(pick(e < zero, zero - e - one, e)) * Set(0.34657359f);
    return e + pick(near, zero, pick(zero < mantissa, one, zero));
  }
  const I next = e + one;
  const M near =
      ToFloat(SetBits(0x800000) - mantissa) < half_unit(pick(zero < next, e, zero - next)) * Set(0.69314718f);
  return e + pick(near, one, zero);
}

// The shared exponent of an MX group before it is clamped to what E8M0 holds.
AUTOSCHEME_INLINE I MxExponent(const Format& f, F amax) {
  const auto pick = [&](M m, I a, I b) { return Bits(Select(m, AsFloat(a), AsFloat(b))); };
  const F v = f.ceil_scale ? amax / Set(f.top) : amax;
  const I offset = SetBits(static_cast<uint32_t>(f.ceil_scale ? 0 : f.max_exponent));
  const I e = pick(IsFinite(v), Log2(v, f.ceil_scale), SetBits(1000));
  return pick(amax == Set(0), SetBits(1), e) - offset;
}

// What elements are multiplied with or divided by, and what codes are multiplied with.
struct Scales {
  PerGroup by, back;
};

// kMx, kNvfp4: by = 1 / back. kE5m3, kFp8: divide by `by`.
AUTOSCHEME_INLINE void ScalesOf(const Format& f, F amax, float whole, F* by, F* back) {
  switch (f.family) {
    case Family::kMx: {
      const I limit = SetBits(static_cast<uint32_t>(-127));
      I e = Max(MxExponent(f, amax), limit);
      e = SetBits(0) - Max(SetBits(0) - e, limit);
      *by = Select(amax == amax, PowerOfTwo(SetBits(0) - e), amax);
      *back = Select(amax == amax, PowerOfTwo(e), amax);
      return;
    }
    case Family::kNvfp4: {
      const float global = (whole == 0 ? 0.0f : 1.0f / whole) * 2688.0f, inverse = global == 0 ? 0.0f : 1.0f / global;
      const F unrounded = amax * Set(1.0f / 6) * Set(global);
      const F finite = Select(unrounded == unrounded, unrounded, Set(0));
      *by = ReciprocalOrZero(ToE4m3(finite) * Set(inverse));
      *back = ReciprocalOrZero(*by);
      return;
    }
    case Family::kE5m3: {
      // A mantissa that would carry stays at 7/8, and nothing above zero becomes zero.
      const F v = Clamp(amax * Set(1.0f / 6), Set(0), Set(114688));
      const F fraction = AsFloat((Bits(v) & SetBits(0x7fffff)) | SetBits(0x3f800000)) - Set(1);
      const F mantissa = Min(Set(7), Round(fraction * Set(8))) * Set(0.125f) + Set(1);
      const F normal = mantissa * AsFloat(Bits(v) & SetBits(0x7f800000));
      const F subnormal = Clamp(Round(v * Set(131072)), Set(1), Set(7)) * Set(1.0f / 131072);
      const F scale = Select(v == Set(0), v, Select(Set(1.0f / 16384) <= v, normal, subnormal));
      *back = scale;
      *by = Select(scale == Set(0), Set(1), scale);
      return;
    }
    default: {
      const F unfloored = amax / Set(f.top);
      *by = *back = Max(Set(f.least_scale), f.narrow ? ToBFloat16(unfloored) : unfloored);
      return;
    }
  }
}

// Scale of symmetric integers before it is kept away from zero, and after. The side with the larger magnitude maps to
// -levels, hence the sign; a tie counts as positive maximum.
AUTOSCHEME_INLINE F SymScale(const Format& f, F low, F high) {
  const F side = Select(high < low, low, Negated(high));
  return ToScale(Select(low == low, side, low) / Set(static_cast<float>(f.levels)), f.scale_type);
}
AUTOSCHEME_INLINE F AwayFromZero(const Format& f, F scale) {
  return Select(scale < Set(0), Min(Set(-f.least_scale), scale), Max(Set(f.least_scale), scale));
}

// Scale and zero point of asymmetric integers.
AUTOSCHEME_INLINE void AsymScale(const Format& f, F low, F high, F* scale, F* zero) {
  const F top = Set(static_cast<float>(f.levels));
  const auto step = [&](F v) { return f.narrow ? ToBFloat16(v) : v; };
  F quotient = step(step(high + low) / top);
  quotient = Select(IsFinite(quotient), quotient, step(step(high / top) + step(low / top)));
  *scale = Max(Set(f.least_scale), ToScale(quotient, f.scale_type));
  *zero = low / *scale;
  if (!f.float_zero_point) *zero = Round(*zero);
}

// ---- forward ----

template <typename Op>
AUTOSCHEME_INLINE void Map(const float* x, int64_t n, float* y, const Op& op) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) Store(op(Load(x + j)), y + j);
  if (j < n) Store(op(Load(x + j, static_cast<int>(n - j))), y + j, static_cast<int>(n - j));
}

AUTOSCHEME_INLINE F Saturated(F v) { return Clamp(v, Set(-kLargest), Set(kLargest)); }

template <bool kBinades, bool kMx, bool kDivide, bool kNarrow>
void MapElements(const Format& f, const float* x, const Groups& groups, const Scales& s, float* y) {
  const Element e(f);
  ForEachGroup(groups, [&](int64_t g, int64_t at, int64_t n) {
    const F by = Set(s.by.v[g]), back = Set(s.back.v[g]);
    Map(x + at, n, y + at, [&](F v) {
      F u = kDivide ? v / by : v * by;
      if (kNarrow) u = ToBFloat16(u);
      return Saturated(RoundElement<kBinades, kMx>(Clamp(u, e.bottom, e.top), e) * back);
    });
  });
}

template <bool kNarrow>
void MapSym(const Format& f, const float* x, const Groups& groups, const PerGroup& scale, float* y) {
  const F bottom = Set(static_cast<float>(-f.levels)), top = Set(static_cast<float>(f.levels - 1));
  ForEachGroup(groups, [&](int64_t g, int64_t at, int64_t n) {
    const F s = Set(scale.v[g]);
    Map(x + at, n, y + at, [&](F v) {
      F u = v / s;
      if (kNarrow) u = ToBFloat16(u);
      return Saturated(Clamp(Round(u), bottom, top) * s);
    });
  });
}

void MapAsym(const Format& f, const float* x, const Groups& groups, const PerGroup& scale, const PerGroup& zero,
             float* y) {
  const F top = Set(static_cast<float>(f.levels));
  ForEachGroup(groups, [&](int64_t g, int64_t at, int64_t n) {
    const F s = Set(scale.v[g]), z = Set(zero.v[g]);
    Map(x + at, n, y + at, [&](F v) { return Saturated((Clamp(Round(v / s) + z, Set(0), top) - z) * s); });
  });
}

void Forward(const Format& f, const float* x, const Groups& groups, const float* given_amaxes, float whole, float* y) {
  if (f.family == Family::kIntSym || f.family == Family::kIntAsym) {
    PerGroup low = {}, high = {};
    Ranges(x, groups, low, high);
    for (int64_t g = 0; g < groups.count; g += kLanes) {
      const F a = Load(low.v + g), b = Load(high.v + g);
      if (f.family == Family::kIntSym) {
        Store(AwayFromZero(f, SymScale(f, a, b)), low.v + g);
      } else {
        F scale, zero;
        AsymScale(f, a, b, &scale, &zero);
        Store(scale, low.v + g), Store(zero, high.v + g);
      }
    }
    if (f.family == Family::kIntAsym) return MapAsym(f, x, groups, low, high, y);
    return f.narrow ? MapSym<true>(f, x, groups, low, y) : MapSym<false>(f, x, groups, low, y);
  }
  Scales s = {};
  if (given_amaxes == nullptr) {
    Amaxes(x, groups, s.by.v);
  } else {
    for (int64_t g = 0; g < groups.count; ++g) s.by.v[g] = given_amaxes[g];
  }
  for (int64_t g = 0; g < groups.count; g += kLanes) {
    F by, back;
    ScalesOf(f, Load(s.by.v + g), whole, &by, &back);
    Store(by, s.by.v + g), Store(back, s.back.v + g);
  }
  if (f.family == Family::kMx) {
    return f.binades ? MapElements<true, true, false, false>(f, x, groups, s, y)
                     : MapElements<false, true, false, false>(f, x, groups, s, y);
  }
  if (f.family == Family::kNvfp4) return MapElements<true, false, false, false>(f, x, groups, s, y);
  return f.narrow ? MapElements<true, false, true, true>(f, x, groups, s, y)
                  : MapElements<true, false, true, false>(f, x, groups, s, y);
}

// ---- backward ----

// Index of the lowest set bit at `at`, unless one was found before.
AUTOSCHEME_INLINE void Note(M m, int64_t at, int64_t* first) {
  const unsigned mask = Mask(m);
  if (mask != 0 && *first < 0) *first = at + __builtin_ctz(mask);
}

AUTOSCHEME_INLINE float SignOf(float v) { return v > 0 ? 1.0f : v < 0 ? -1.0f : 0.0f; }

// op(x, g, index of the first) -> dx, sixteen at a time.
template <typename Op>
AUTOSCHEME_INLINE void MapGradient(const float* x, const float* g, int64_t n, float* dx, const Op& op) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) Store(op(Load(x + j), Load(g + j), j), dx + j);
  if (j == n) return;
  const int rest = static_cast<int>(n - j);
  Store(op(Load(x + j, rest), Load(g + j, rest), j), dx + j, rest);
}

// The element's slope dq/du at u, and its code q.
template <Family kFamily, bool kBinades>
AUTOSCHEME_INLINE void SlopeAndCode(const Element& e, F least_normal, F u, F* slope, F* code) {
  const F t = Clamp(u, e.bottom, e.top);
  *code = RoundElement<kBinades, kFamily == Family::kMx>(t, e);
  M live = Abs(u) <= e.top;
  if (kFamily != Family::kFp8) live = live & !(t == Set(0));
  F ones = Set(1);
  // An MX element's own exponent is differentiable, so normal elements are scaled by q / t instead of 1.
  if (kFamily == Family::kMx && kBinades) ones = Select(least_normal <= Abs(t), *code / t, ones);
  *slope = Where(live, ones);
}

// Per group the sum of g (q - slope u), and the first element of the largest magnitude.
template <Family kFamily, bool kBinades>
void MapElementGradient(const Format& f, const float* x, const float* g, const Groups& groups, const Scales& s,
                        const float* amaxes, float whole, float* dx, PerGroup& sums, int64_t* firsts,
                        WholeGradient* w) {
  constexpr bool kDivide = kFamily == Family::kE5m3 || kFamily == Family::kFp8;
  const Element e(f);
  // Since float32 rounds logarithms, E4M3's binade -6 begins two units early.
  const float normal = FloatOf((f.least_exponent + 127) << 23);
  const F least_normal = Set(f.least_exponent == -6 ? FloatOf(((f.least_exponent + 127) << 23) - 2) : normal);
  const F largest = Set(whole);
  int64_t holders = 0;
  ForEachGroup(groups, [&](int64_t i, int64_t at, int64_t n) {
    const F by = Set(s.by.v[i]), amax = Set(amaxes[i]);
    F sum = Set(0);
    int64_t first = -1;
    MapGradient(x + at, g + at, n, dx + at, [&](F v, F grad, int64_t j) {
      const F u = kDivide ? v / by : v * by;
      F slope, code;
      SlopeAndCode<kFamily, kBinades>(e, least_normal, u, &slope, &code);
      const F passed = grad * slope;
      // Where the slope is 0 so is the product, whatever u.
      sum = sum + (kFamily == Family::kMx ? grad * (code - Where(!(slope == Set(0)), slope * u))
                                          : grad * code - Where(!(slope == Set(0)), passed * u));
      Note(Abs(v) == amax, j, &first);
      if (kFamily == Family::kNvfp4 && w != nullptr) holders += __builtin_popcount(Mask(Abs(v) == largest));
      return passed;
    });
    sums.v[i] = Sum(sum);
    firsts[i] = first < 0 ? -1 : at + first;
  });
  if (w != nullptr) w->holders += holders;
}

template <Family kFamily, bool kBinades>
void ElementBackward(const Format& f, const float* x, const float* g, const Groups& groups, const float* given_amaxes,
                     float whole, float* dx, WholeGradient* w) {
  PerGroup amaxes = {}, sums = {};
  Scales s = {};
  int64_t firsts[kMostGroups];
  if (given_amaxes == nullptr) {
    Amaxes(x, groups, amaxes.v);
  } else {
    for (int64_t i = 0; i < groups.count; ++i) amaxes.v[i] = given_amaxes[i];
  }
  for (int64_t i = 0; i < groups.count; i += kLanes) {
    F by, back;
    ScalesOf(f, Load(amaxes.v + i), whole, &by, &back);
    Store(by, s.by.v + i), Store(back, s.back.v + i);
  }
  MapElementGradient<kFamily, kBinades>(f, x, g, groups, s, amaxes.v, whole, dx, sums, firsts, w);
  if (given_amaxes != nullptr) {
    for (int64_t i = 0; i < groups.count; ++i) {
      w->sum += sums.v[i];
      if (w->first_holder < 0) w->first_holder = firsts[i];
    }
    return;
  }
  PerGroup damax;
  for (int64_t i = 0; i < groups.count; i += kLanes) {
    const F amax = Load(amaxes.v + i), sum = Load(sums.v + i);
    F d;
    if (kFamily == Family::kMx) {
      // A group of zeros cannot move its scale: 0, where autograd gives 0 * inf (docs/algorithm.md 5.1).
      const I e = MxExponent(f, amax), limit = SetBits(127);
      const M inside = !(limit < e) & !(e < SetBits(0) - limit) & !(amax == Set(0));
      d = Where(inside, sum * (Load(s.back.v + i) / amax));
    } else if (kFamily == Family::kNvfp4) {
      const float global = (whole == 0 ? 0.0f : 1.0f / whole) * 2688.0f;
      const F unrounded = amax * Set(1.0f / 6) * Set(global);
      // A group whose scale is 0 is all zeros and stays so: no gradient.
      const F dd = Where(!(Load(s.by.v + i) == Set(0)), sum);
      const M inside = !((Set(448) < unrounded) & (unrounded < Set(__builtin_inff())));  // infinity counts as 448
      d = Where(inside, dd / Set(6));
      if (w != nullptr) {
        PerGroup terms;
        const F finite = Select(unrounded == unrounded, unrounded, Set(0));
        Store(dd, terms.v), Store(ToE4m3(finite), terms.v + 16), Store(Where(inside, amax), terms.v + 32);
        for (int k = 0; k < kLanes && i + k < groups.count; ++k) {
          const double of_global =
              static_cast<double>(terms.v[32 + k]) / 6 - static_cast<double>(terms.v[16 + k]) / global;
          w->sum += global == 0 ? 0 : static_cast<double>(terms.v[k]) * of_global / global;
        }
      }
    } else if (kFamily == Family::kE5m3) {
      d = Where(amax * Set(1.0f / 6) <= Set(114688), sum / Set(6));
    } else {
      d = Where(Set(f.least_scale) <= amax / Set(f.top), sum / Set(f.top));
    }
    Store(d, damax.v + i);
  }
  for (int64_t i = 0; i < groups.count; ++i) {
    if (firsts[i] >= 0) dx[firsts[i]] += damax.v[i] * SignOf(x[firsts[i]]);
  }
}

template <bool kNarrow>
void SymBackward(const Format& f, const float* x, const float* g, const Groups& groups, float* dx) {
  PerGroup low = {}, high = {}, rounded = {}, scale = {}, of_product = {}, of_quotient = {};
  int64_t lowest[kMostGroups], highest[kMostGroups];
  Ranges(x, groups, low, high);
  for (int64_t i = 0; i < groups.count; i += kLanes) {
    const F r = SymScale(f, Load(low.v + i), Load(high.v + i));
    Store(r, rounded.v + i), Store(AwayFromZero(f, r), scale.v + i);
  }
  const F bottom = Set(static_cast<float>(-f.levels)), top = Set(static_cast<float>(f.levels - 1));
  ForEachGroup(groups, [&](int64_t i, int64_t at, int64_t n) {
    const F s = Set(scale.v[i]), least = Set(-low.v[i]), most = Set(high.v[i]);
    F product = Set(0), quotient = Set(0);
    int64_t first_low = -1, first_high = -1;
    MapGradient(x + at, g + at, n, dx + at, [&](F v, F grad, int64_t j) {
      const F u = kNarrow ? ToBFloat16(v / s) : v / s, r = Round(u), q = Clamp(r, bottom, top);
      const F passed = Where(r == q, grad);
      Note(v == least, j, &first_low);
      Note(v == most, j, &first_high);
      if (kNarrow) {
        // Every product is rounded, but one beyond the range of bfloat16 stays exact (docs/algorithm.md 5.2).
        const F dq = ToBFloat16(passed * s);
        const M in_range = IsFinite(dq);
        product = product + ToBFloat16(grad * q);
        quotient = quotient + ToBFloat16(Select(in_range, dq * ToBFloat16(u / s), Where(r == q, passed * u)));
        return Select(in_range, ToBFloat16(dq / s), passed);
      }
      product = product + grad * q;
      quotient = quotient + Where(r == q, passed * u);
      return passed;
    });
    of_product.v[i] = Sum(product), of_quotient.v[i] = -Sum(quotient);
    lowest[i] = at + first_low, highest[i] = at + first_high;
  });
  // y = s q and u = x / s each use the scale: two sums, both rounded to its dtype (docs/algorithm.md 5.2).
  for (int64_t i = 0; i < groups.count; i += kLanes) {
    const F a = ToScale(Load(of_product.v + i), f.scale_type), b = ToScale(Load(of_quotient.v + i), f.scale_type);
    const F d = Where(Set(f.least_scale) <= Abs(Load(rounded.v + i)), ToScale(a + b, f.scale_type));
    const F one = Select(Load(high.v + i) < Load(low.v + i), Set(1), Set(-1));
    Store(d * one / Set(static_cast<float>(f.levels)), of_product.v + i);
  }
  // To the element that sets the range; half to each end where they tie.
  for (int64_t i = 0; i < groups.count; ++i) {
    const float a = low.v[i], b = high.v[i], d = of_product.v[i];
    if (!(a > 0) && !(b > 0)) continue;
    if (b >= a) dx[highest[i]] += a == b ? d * 0.5f : d;
    if (a >= b) dx[lowest[i]] -= a == b ? d * 0.5f : d;
  }
}

void Backward(const Format& f, const float* x, const float* g, const Groups& groups, const float* amaxes, float whole,
              float* dx, WholeGradient* w) {
  switch (f.family) {
    case Family::kMx:
      return f.binades ? ElementBackward<Family::kMx, true>(f, x, g, groups, amaxes, whole, dx, w)
                       : ElementBackward<Family::kMx, false>(f, x, g, groups, amaxes, whole, dx, w);
    case Family::kNvfp4: return ElementBackward<Family::kNvfp4, true>(f, x, g, groups, amaxes, whole, dx, w);
    case Family::kE5m3: return ElementBackward<Family::kE5m3, true>(f, x, g, groups, amaxes, whole, dx, w);
    case Family::kFp8: return ElementBackward<Family::kFp8, true>(f, x, g, groups, amaxes, whole, dx, w);
    default: return f.narrow ? SymBackward<true>(f, x, g, groups, dx) : SymBackward<false>(f, x, g, groups, dx);
  }
}

void AddShare(const float* x, int64_t n, float whole, float share, float* dx) {
  const F largest = Set(whole), change = Set(share);
  MapGradient(x, dx, n, dx, [&](F v, F d, int64_t) {
    return Select(Abs(v) == largest, d + WithSignOf(Abs(change), AsFloat(Bits(v) ^ Bits(change))), d);
  });
}

}  // namespace
}  // namespace autoscheme::cpu
