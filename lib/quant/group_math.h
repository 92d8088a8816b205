// What the loops over groups do to a group's range, scale and elements, and the way back, whatever the number of lanes:
// for the files that lanes.h is for. docs/algorithm.md 4.2 to 4.6, 5.
//
// What a step gives is, to the last bit, what the ATen expressions of the codecs give. Functions of a scale take one
// group in each lane, those of an element one element.
#pragma once

#include "quant/kernels.h"
#include "tensor/lanes.h"

namespace autoscheme::cpu {
namespace {

constexpr float kLargest = 3.402823466e38f, kLargestBFloat16 = 3.3895313892515355e38f;

// A family and those of its options that loops are compiled for.
template <Family family, bool binades, bool narrow>
struct Kind {
  static constexpr Family kFamily = family;
  static constexpr bool kBinades = binades, kNarrow = narrow, kMx = family == Family::kMx,
                        kDivide = family == Family::kE5m3 || family == Family::kFp8;
};

// body(Kind) for the format's.
template <typename Body>
auto WithKind(const Format& f, const Body& body) {
  switch (f.family) {
    case Family::kIntSym:
      return f.narrow ? body(Kind<Family::kIntSym, false, true>()) : body(Kind<Family::kIntSym, false, false>());
    case Family::kIntAsym: return body(Kind<Family::kIntAsym, false, false>());
    case Family::kMx:
      return f.binades ? body(Kind<Family::kMx, true, false>()) : body(Kind<Family::kMx, false, false>());
    case Family::kNvfp4: return body(Kind<Family::kNvfp4, true, false>());
    case Family::kE5m3: return body(Kind<Family::kE5m3, true, false>());
    default: return f.narrow ? body(Kind<Family::kFp8, true, true>()) : body(Kind<Family::kFp8, true, false>());
  }
}
// Whether loops lead back: the codecs have tensor expressions alone for the others.
constexpr bool HasGradient(Family family, bool narrow) {
  return family != Family::kIntAsym && !(family == Family::kFp8 && narrow);
}

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

AUTOSCHEME_INLINE F Widened(I half) {
  const I magnitude = half & SetBits(0x7fff);
  const F finite = AsFloat(Left<13>(magnitude)) * Set(5.192296858534828e33f);  // 2^112, the difference of the biases
  const F special = AsFloat(Left<13>(magnitude) | SetBits(0x7f800000));
  const F wide = Select(magnitude < SetBits(0x7c00), finite, special);
  return AsFloat(Bits(wide) | Left<16>(half & SetBits(0x8000)));
}

AUTOSCHEME_INLINE F Saturated(F v) { return Clamp(v, Set(-kLargest), Set(kLargest)); }
// To bfloat16, finite values and infinities no further than its largest.
AUTOSCHEME_INLINE F SaturatedBFloat16(F v) { return Clamp(v, Set(-kLargestBFloat16), Set(kLargestBFloat16)); }

// ---- the range of a group ----

// Bits of what each lane has seen. Magnitudes order as their bits do, NaN above all.
struct Range {
  I high = SetBits(0), low = SetBits(0);  // the largest of 0 and the elements; of 0 and the negated elements
  AUTOSCHEME_MEMBER void Add(F v) {
    high = Max(high, Bits(v));
    low = Max(low, Bits(v) ^ SetBits(0x80000000));
  }
};
struct Magnitude {
  I high = SetBits(0);
  AUTOSCHEME_MEMBER void Add(F v) { high = Max(high, Bits(v) & SetBits(0x7fffffff)); }
};

// ---- elements of few bits ----

struct Element {
  AUTOSCHEME_MEMBER explicit Element(const Format& f)
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

// kMx, kNvfp4: by = 1 / back. kE5m3, kFp8: divide by `by`.
template <Family kFamily>
AUTOSCHEME_INLINE void ScalesOf(const Format& f, F amax, float whole, F* by, F* back) {
  switch (kFamily) {
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

// What elements are multiplied with or divided by, and what codes are multiplied with. kIntSym: the scale, no `back`;
// kIntAsym: the scale and the zero point. `low`: for integers alone; `high` is the amax of the other families.
template <typename Kind>
AUTOSCHEME_INLINE void GroupScale(const Format& f, F low, F high, float whole, F* by, F* back) {
  if (Kind::kFamily == Family::kIntSym) {
    *by = AwayFromZero(f, SymScale(f, low, high));
  } else if (Kind::kFamily == Family::kIntAsym) {
    AsymScale(f, low, high, by, back);
  } else {
    ScalesOf<Kind::kFamily>(f, high, whole, by, back);
  }
}

// ---- forward ----

// Quant-dequant of elements, by what GroupScale gave.
template <typename Kind>
struct QuantDequant {
  Element e;
  AUTOSCHEME_MEMBER explicit QuantDequant(const Format& f) : e(f) {}
  AUTOSCHEME_MEMBER F operator()(F v, F by, F back) const {
    F u = Kind::kDivide ? v / by : v * by;
    if (Kind::kNarrow) u = ToBFloat16(u);
    return Saturated(RoundElement<Kind::kBinades, Kind::kMx>(Clamp(u, e.bottom, e.top), e) * back);
  }
};

template <bool kBinades, bool kNarrow>
struct QuantDequant<Kind<Family::kIntSym, kBinades, kNarrow>> {
  F bottom, top;
  AUTOSCHEME_MEMBER explicit QuantDequant(const Format& f)
      : bottom(Set(static_cast<float>(-f.levels))), top(Set(static_cast<float>(f.levels - 1))) {}
  AUTOSCHEME_MEMBER F operator()(F v, F scale, F) const {
    F u = v / scale;
    if (kNarrow) u = ToBFloat16(u);
    return Saturated(Clamp(Round(u), bottom, top) * scale);
  }
};

template <bool kBinades, bool kNarrow>
struct QuantDequant<Kind<Family::kIntAsym, kBinades, kNarrow>> {
  F top;
  AUTOSCHEME_MEMBER explicit QuantDequant(const Format& f) : top(Set(static_cast<float>(f.levels))) {}
  AUTOSCHEME_MEMBER F operator()(F v, F scale, F zero) const {
    return Saturated((Clamp(Round(v / scale) + zero, Set(0), top) - zero) * scale);
  }
};

// ---- backward ----

AUTOSCHEME_INLINE float SignOf(float v) { return v > 0 ? 1.0f : v < 0 ? -1.0f : 0.0f; }

// The element's slope dq/du at u, and its code q.
template <typename Kind>
AUTOSCHEME_INLINE void SlopeAndCode(const Element& e, F least_normal, F u, F* slope, F* code) {
  const F t = Clamp(u, e.bottom, e.top);
  *code = RoundElement<Kind::kBinades, Kind::kMx>(t, e);
  M live = Abs(u) <= e.top;
  if (Kind::kFamily != Family::kFp8) live = live & !(t == Set(0));
  F ones = Set(1);
  // An MX element's own exponent is differentiable, so normal elements are scaled by q / t instead of 1.
  if (Kind::kMx && Kind::kBinades) ones = Select(least_normal <= Abs(t), *code / t, ones);
  *slope = Where(live, ones);
}

// What flows through the scale of an NVFP4 group.
struct Nvfp4Terms {
  F dscale, rounded, live_amax, damax;  // live_amax: 0 where the scale is clamped
  AUTOSCHEME_MEMBER Nvfp4Terms(F amax, F by, float whole, F sum) {
    const float global = (whole == 0 ? 0.0f : 1.0f / whole) * 2688.0f;
    const F unrounded = amax * Set(1.0f / 6) * Set(global);
    // A group whose scale is 0 is all zeros and stays so: no gradient.
    dscale = Where(!(by == Set(0)), sum);
    // Infinity counts as 448.
    const M inside = !((Set(448) < unrounded) & (unrounded < Set(FloatOf(0x7f800000))));
    rounded = ToE4m3(Select(unrounded == unrounded, unrounded, Set(0)));
    live_amax = Where(inside, amax);
    damax = Where(inside, dscale / Set(6));
  }
};
// What such a group adds to the gradient of the tensor's scale.
AUTOSCHEME_INLINE double Nvfp4WholeTerm(float dscale, float rounded, float live_amax, float whole) {
  const float global = (whole == 0 ? 0.0f : 1.0f / whole) * 2688.0f;
  const double of_global = static_cast<double>(live_amax) / 6 - static_cast<double>(rounded) / global;
  return global == 0 ? 0 : static_cast<double>(dscale) * of_global / global;
}
// The share of each of `holders` elements of the largest magnitude, from the sum of all groups' terms. In float64, as
// its factors span the square of the tensor's range. Not finite: there is none.
AUTOSCHEME_INLINE double Nvfp4Share(double sum, double whole, int64_t holders) {
  return sum * -2688 / (whole * whole) / static_cast<double>(holders);
}

// What elements pass on: dx but for what flows through the scale. `term`: what an element adds to the gradient of the
// scale's codes, g (q - slope u).
template <typename Kind>
struct Gradient {
  Element e;
  F least_normal;
  AUTOSCHEME_MEMBER explicit Gradient(const Format& f)
      : e(f),
        // Since float32 rounds logarithms, E4M3's binade -6 begins two units early.
        least_normal(Set(FloatOf(((f.least_exponent + 127) << 23) - (f.least_exponent == -6 ? 2 : 0)))) {}
  AUTOSCHEME_MEMBER F operator()(F v, F grad, F by, F* term) const {
    const F u = Kind::kDivide ? v / by : v * by;
    F slope, code;
    SlopeAndCode<Kind>(e, least_normal, u, &slope, &code);
    const F passed = grad * slope;
    // Where the slope is 0 so is the product, whatever u.
    *term = Kind::kMx ? grad * (code - Where(!(slope == Set(0)), slope * u))
                      : grad * code - Where(!(slope == Set(0)), passed * u);
    return passed;
  }
};

// dL/damax of a group from the sum of its elements' terms.
template <Family kFamily>
AUTOSCHEME_INLINE F AmaxGradient(const Format& f, F amax, F by, F back, float whole, F sum) {
  if (kFamily == Family::kMx) {
    // A group of zeros cannot move its scale: 0, where autograd gives 0 * inf (docs/algorithm.md 5.1).
    const I e = MxExponent(f, amax), limit = SetBits(127);
    const M inside = !(limit < e) & !(e < SetBits(0) - limit) & !(amax == Set(0));
    return Where(inside, sum * (back / amax));
  }
  if (kFamily == Family::kNvfp4) return Nvfp4Terms(amax, by, whole, sum).damax;
  if (kFamily == Family::kE5m3) return Where(amax * Set(1.0f / 6) <= Set(114688), sum / Set(6));
  return Where(Set(f.least_scale) <= amax / Set(f.top), sum / Set(f.top));
}

// dx where a share of the gradient of the tensor's largest magnitude reaches the elements that have it.
AUTOSCHEME_INLINE F WithShare(F v, F dx, F largest, F share) {
  return Select(Abs(v) == largest, dx + WithSignOf(Abs(share), AsFloat(Bits(v) ^ Bits(share))), dx);
}

// The same for symmetric integers. y = s q and u = x / s each use the scale, so there are two terms: `product` and
// `quotient`, which counts negatively (docs/algorithm.md 5.2).
template <bool kNarrow>
struct SymGradient {
  F bottom, top;
  AUTOSCHEME_MEMBER explicit SymGradient(const Format& f)
      : bottom(Set(static_cast<float>(-f.levels))), top(Set(static_cast<float>(f.levels - 1))) {}
  AUTOSCHEME_MEMBER F operator()(F v, F grad, F s, F* product, F* quotient) const {
    const F u = kNarrow ? ToBFloat16(v / s) : v / s, r = Round(u), q = Clamp(r, bottom, top);
    const F passed = Where(r == q, grad);
    if (kNarrow) {
      // Every product is rounded, but one beyond the range of bfloat16 stays exact (docs/algorithm.md 5.2).
      const F dq = ToBFloat16(passed * s);
      const M in_range = IsFinite(dq);
      *product = ToBFloat16(grad * q);
      *quotient = ToBFloat16(Select(in_range, dq * ToBFloat16(u / s), Where(r == q, passed * u)));
      return Select(in_range, ToBFloat16(dq / s), passed);
    }
    *product = grad * q;
    *quotient = Where(r == q, passed * u);
    return passed;
  }
};

// The gradient of a group's range from both sums, which are rounded to the scale's dtype. `rounded`: SymScale.
AUTOSCHEME_INLINE F SymRangeGradient(const Format& f, F low, F high, F rounded, F product, F minus_quotient) {
  const F a = ToScale(product, f.scale_type), b = ToScale(minus_quotient, f.scale_type);
  const F d = Where(Set(f.least_scale) <= Abs(rounded), ToScale(a + b, f.scale_type));
  return d * Select(high < low, Set(1), Set(-1)) / Set(static_cast<float>(f.levels));
}

// To the elements that set the range, add(to the highest, gradient): half to each end where they tie.
template <typename Add>
AUTOSCHEME_INLINE void ToEnds(float low, float high, float d, const Add& add) {
  if (!(low > 0) && !(high > 0)) return;
  if (high >= low) add(true, low == high ? d * 0.5f : d);
  if (low >= high) add(false, -(low == high ? d * 0.5f : d));
}

}  // namespace
}  // namespace autoscheme::cpu
