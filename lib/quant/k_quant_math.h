// The searches and roundings of k-quants (docs/algorithm.md 4.7, 4.8), whatever the number of lanes: for the files that
// lanes.h is for. Each lane has a group, then a super-group, of its own while all trials of its search run.
//
// Sums run as LibTorch's do with eight lanes (every eighth element first, then the eight partial sums): results are
// those of the plain tensor expressions, which matters because the searches are decided by last bits.
#pragma once

#include "quant/kernels.h"
#include "tensor/lanes.h"

namespace autoscheme::cpu {
namespace {

constexpr int kMostElements = 32;  // in a group
constexpr int kPartials = 8;       // in a sum

// Element j of the group in lane l is v[j][l].
struct Tile {
  alignas(sizeof(float) * kLanes) float v[kMostElements][kLanes];
};

AUTOSCHEME_INLINE F At(const Tile& t, int j) { return Load(t.v[j]); }
AUTOSCHEME_INLINE F ReciprocalOrZeroBelowEps(F v) { return Select(Abs(v) < Set(1e-30f), Set(0), Set(1) / v); }
AUTOSCHEME_INLINE F ZeroBelowEps(F v) { return Select(Abs(v) < Set(1e-30f), Set(0), v); }

// Sum of term(j) over the elements.
template <int kSize, typename Term>
AUTOSCHEME_INLINE F SumOf(const Term& term) {
  F sum = Set(0);
  for (int p = 0; p < kPartials; ++p) {
    F partial = term(p);
    for (int j = p + kPartials; j < kSize; j += kPartials) partial = partial + term(j);
    sum = sum + partial;
  }
  return sum;
}

// ---- a group's scale and minimum ----

// docs/algorithm.md 4.8: 36 trials around (max - min) / top, least weighted error. The minimum may be of either sign.
template <int kSize>
AUTOSCHEME_INLINE void SearchRange(const Tile& x, const Tile& w, int levels, F* scale_out, F* low_out) {
  const F top = Set(static_cast<float>(levels)), zero = Set(0);
  F low = At(x, 0), high = At(x, 0);
  for (int j = 1; j < kSize; ++j) low = Min(At(x, j), low), high = Max(At(x, j), high);
  const F sum_w = SumOf<kSize>([&](int j) { return At(w, j); });
  const F sum_x = SumOf<kSize>([&](int j) { return At(w, j) * At(x, j); });
  const auto code = [&](int j, F minimum, F inverse) {
    return Clamp(Round((At(x, j) - minimum) * inverse), zero, top);
  };
  const auto error = [&](F scale, F minimum) {
    const F inverse = ReciprocalOrZeroBelowEps(scale);
    return SumOf<kSize>([&](int j) {
      const F difference = (scale * code(j, minimum, inverse) + minimum) - At(x, j);
      return At(w, j) * (difference * difference);
    });
  };
  F scale = (high - low) / top;
  F best = error(scale, low);
  for (int i = 0; i < 36; ++i) {
    const F divisor = Set(static_cast<float>(-0.9 + 0.05 * i + levels));
    const F inverse = ReciprocalOrZeroBelowEps((high - low) / divisor);
    F sum_l = zero, sum_l2 = zero, sum_xl = zero;
    for (int p = 0; p < kPartials; ++p) {  // SumOf, thrice at once
      F part_l = zero, part_l2 = zero, part_xl = zero;
      for (int j = p; j < kSize; j += kPartials) {
        const F q = code(j, low, inverse), wq = At(w, j) * q;
        part_l = part_l + wq, part_l2 = part_l2 + wq * q, part_xl = part_xl + wq * At(x, j);
      }
      sum_l = sum_l + part_l, sum_l2 = sum_l2 + part_l2, sum_xl = sum_xl + part_xl;
    }
    const F det = sum_w * sum_l2 - sum_l * sum_l;
    F new_scale = (sum_w * sum_xl - sum_x * sum_l) / det;
    F new_low = (sum_l2 * sum_x - sum_l * sum_xl) / det;
    const M positive = zero < new_low;
    new_scale = Select(positive, sum_xl / sum_l2, new_scale);
    new_low = Select(positive, zero, new_low);
    const F e = error(new_scale, new_low);
    const M better = (e < best) & (zero < det);
    best = Select(better, e, best), scale = Select(better, new_scale, scale), low = Select(better, new_low, low);
  }
  *scale_out = scale, *low_out = low;
}

// docs/algorithm.md 4.8: 19 trials around the largest magnitude for integers -half .. half - 1.
template <int kSize>
AUTOSCHEME_INLINE F SearchSigned(const Tile& x, const Tile& w, int half) {
  const F bottom = Set(static_cast<float>(-half)), top = Set(static_cast<float>(half - 1));
  F peak = At(x, 0);
  for (int j = 1; j < kSize; ++j) peak = Select(Abs(peak) < Abs(At(x, j)), At(x, j), peak);
  F a, b;
  const auto sums = [&](F inverse) {
    a = Set(0), b = Set(0);
    for (int p = 0; p < kPartials; ++p) {
      F part_a = Set(0), part_b = Set(0);
      for (int j = p; j < kSize; j += kPartials) {
        const F q = Clamp(Round(inverse * At(x, j)), bottom, top);
        part_a = part_a + (At(w, j) * At(x, j)) * q, part_b = part_b + (At(w, j) * q) * q;
      }
      a = a + part_a, b = b + part_b;
    }
  };
  sums(ReciprocalOrZeroBelowEps(peak) * bottom);
  F scale = a * ReciprocalOrZeroBelowEps(b), best = scale * a;
  for (int k = -9; k <= 9; ++k) {
    if (k == 0) continue;
    sums(Set(static_cast<float>(-(half - 0.1 * k))) / peak);
    const M better = (Set(0) < b) & (best * b < a * a);
    const F s = a / b;
    scale = Select(better, s, scale), best = Select(better, s * a, best);
  }
  return scale;
}

// ---- the scales of a super-group ----

// docs/algorithm.md 4.8, fit: fits d by one factor times integers up to `levels`; the products take its place.
template <int kSize>
AUTOSCHEME_INLINE void FitFactors(Tile& d, const Tile& w, int levels) {
  const F top = Set(static_cast<float>(levels));
  F peak = At(d, 0);
  for (int j = 1; j < kSize; ++j) peak = Max(At(d, j), peak);
  const F plain = peak / top;
  F inverse = ReciprocalOrZeroBelowEps(plain);
  const auto squared = [](F v) { return v * v; };
  F best = SumOf<kSize>([&](int j) { return At(w, j) * squared(At(d, j) - plain * Round(inverse * At(d, j))); });
  for (int k = -4; k <= 4; ++k) {
    if (k == 0) continue;
    const F trial = peak / Set(static_cast<float>(0.1 * k + levels)), trial_inverse = ReciprocalOrZeroBelowEps(trial);
    const F e = SumOf<kSize>(
        [&](int j) { return At(w, j) * squared(At(d, j) - trial * Min(top, Round(trial_inverse * At(d, j)))); });
    const M better = e < best;
    best = Select(better, e, best), inverse = Select(better, trial_inverse, inverse);
  }
  const auto code = [&](int j) { return Min(top, Round(inverse * At(d, j))); };
  const F weight = SumOf<kSize>([&](int j) { return (At(w, j) * code(j)) * code(j); });
  const F product = SumOf<kSize>([&](int j) { return (At(w, j) * At(d, j)) * code(j); });
  const F factor = Select(Set(0) < weight, product / weight, plain);
  for (int j = 0; j < kSize; ++j) Store(factor * code(j), d.v[j]);
}

// docs/algorithm.md 4.7, DQ: integers up to `levels` times one factor, the largest kept.
template <int kSize>
AUTOSCHEME_INLINE void RoundScales(Tile& d, int levels) {
  const F top = Set(static_cast<float>(levels)), zero = Set(0);
  F peak = At(d, 0);
  for (int j = 1; j < kSize; ++j) peak = Max(At(d, j), peak);
  peak = Max(zero, peak);
  const F inverse = Max(zero, ReciprocalOrZeroBelowEps(peak) * top), factor = peak / top;
  for (int j = 0; j < kSize; ++j) Store(Min(top, Round(At(d, j) * inverse)) * factor, d.v[j]);
}

// docs/algorithm.md 4.7, DQs: the same for scales of either sign, -half for the largest magnitude.
template <int kSize>
AUTOSCHEME_INLINE void RoundSignedScales(Tile& d, int half) {
  const F bottom = Set(static_cast<float>(-half)), top = Set(static_cast<float>(half - 1));
  F peak = At(d, 0);
  for (int j = 1; j < kSize; ++j) peak = Select(Abs(peak) < Abs(At(d, j)), At(d, j), peak);
  const F factor = peak / bottom, inverse = ReciprocalOrZeroBelowEps(factor);
  for (int j = 0; j < kSize; ++j) Store(Clamp(Round(At(d, j) * inverse), bottom, top) * factor, d.v[j]);
}

// ---- the steps ----

// A group's scale (and minimum, below zero) before its super-group rounds them, and the sum of its weights.
struct KScale {
  F scale, minimum, weight;
};

// `x` and `w`: elements and their importance.
template <int kSize, bool kSym>
AUTOSCHEME_INLINE KScale SearchScale(const KFormat& f, const Tile& x, const Tile& w) {
  KScale found = {Set(0), Set(0), Set(0)};
  if (kSym) {
    found.scale = ZeroBelowEps(SearchSigned<kSize>(x, w, 1 << (f.bits - 1)));
    return found;
  }
  F low;
  SearchRange<kSize>(x, w, (1 << f.bits) - 1, &found.scale, &low);
  found.scale = ZeroBelowEps(found.scale), found.minimum = Negated(low);
  found.weight = SumOf<kSize>([&](int j) { return At(w, j); });
  return found;
}

// Without importance, from the range of the elements.
template <bool kSym>
AUTOSCHEME_INLINE KScale RangeScale(const KFormat& f, F low, F high) {
  if (kSym)
    return {Select(high < low, low, Negated(high)) / Set(static_cast<float>(1 << (f.bits - 1))), Set(0), Set(0)};
  const auto step = [&](F v) { return f.narrow_range ? ToBFloat16(v) : v; };
  return {Max(Set(1e-8f), step(step(high + low) / Set(static_cast<float>((1 << f.bits) - 1)))), low, Set(0)};
}

// The scales (and minima) of a super-group, by its groups.
template <int kGroups, bool kSym>
AUTOSCHEME_INLINE void RoundSuperGroup(const KFormat& f, bool search, Tile& scale, Tile& minimum, const Tile& weight) {
  const int levels = (1 << f.scale_bits) - 1;
  if (kSym) {
    RoundSignedScales<kGroups>(scale, 1 << (f.scale_bits - 1));
  } else if (search) {
    FitFactors<kGroups>(scale, weight, levels);
    FitFactors<kGroups>(minimum, weight, levels);
  } else {
    RoundScales<kGroups>(scale, levels);
    RoundScales<kGroups>(minimum, levels);
    for (int j = 0; j < kGroups; ++j) Store(Max(Set(1e-8f), At(scale, j)), scale.v[j]);
  }
}

// Quant-dequant of elements; `inverse`: ReciprocalOrZeroBelowEps(scale).
template <bool kSym>
struct KQuantDequant {
  F bottom, top;
  bool search;
  AUTOSCHEME_MEMBER KQuantDequant(const KFormat& f, bool searched)
      : bottom(Set(kSym ? static_cast<float>(-(1 << (f.bits - 1))) : 0.0f)),
        top(Set(static_cast<float>((1 << (kSym ? f.bits - 1 : f.bits)) - 1))),
        search(searched) {}
  AUTOSCHEME_MEMBER F operator()(F v, F scale, F minimum, F inverse) const {
    if (kSym) return Clamp(Round(inverse * v), bottom, top) * scale;
    const F u = search ? (v + minimum) * inverse : (v + minimum) / scale;
    return Clamp(Round(u), bottom, top) * scale - minimum;
  }
};

// What loops are compiled for, and body(KKind) for the format's.
template <int size, int groups, bool sym>
struct KKind {
  static constexpr int kSize = size, kGroups = groups;
  static constexpr bool kSym = sym;
};
template <typename Body>
auto WithKKind(const KFormat& f, const Body& body) {
  if (f.sym) return body(KKind<16, 16, true>());
  return f.group == 16 ? body(KKind<16, 16, false>()) : body(KKind<32, 8, false>());
}

}  // namespace
}  // namespace autoscheme::cpu
