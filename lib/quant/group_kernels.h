// The bodies of Kernels but for the k-quants, for kernels_*.cc only (see lanes.h).
//
// Every call goes through the same steps: the range of each group; its scale, sixteen groups side by side; the
// elements. Sums in gradients run in an order of their own.
#pragma once

#include "quant/group_math.h"
#include "quant/kernels.h"
#include "tensor/lanes.h"

namespace autoscheme::cpu {
namespace {

// One number for each group of a call.
struct PerGroup {
  alignas(64) float v[kMostGroups];
};

// ---- dtypes ----

void WidenBFloat16(const uint16_t* x, int64_t n, float* y) {
  Over(n, [&](int64_t i, auto lanes) { Put(Get(x + i, lanes), y + i, lanes); });
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
  Over(n, [&](int64_t i, auto lanes) { Put(SaturatedBFloat16(Get(x + i, lanes)), y + i, lanes); });
}

// ---- the range of a group ----

template <typename Seen>
AUTOSCHEME_INLINE Seen See(const float* x, int64_t n) {
  Seen seen;
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) seen.Add(Load(x + j));
  if (j < n) seen.Add(Load(x + j, static_cast<int>(n - j)));
  return seen;
}

AUTOSCHEME_INLINE float AmaxOf(const float* x, int64_t n) { return FloatOf(MaxOf(See<Magnitude>(x, n).high)); }

AUTOSCHEME_INLINE void RangeOf(const float* x, int64_t n, float* low, float* high) {
  const Range range = See<Range>(x, n);
  *low = FloatOf(MaxOf(range.low));
  *high = FloatOf(MaxOf(range.high));
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

// Of integers the range, of other families the amax (in `high`), which may be known.
template <typename Kind>
AUTOSCHEME_INLINE void FindRanges(const float* x, const Groups& groups, const float* amaxes, PerGroup& low,
                                  PerGroup& high) {
  if (Kind::kFamily == Family::kIntSym || Kind::kFamily == Family::kIntAsym) {
    Ranges(x, groups, low, high);
  } else if (amaxes == nullptr) {
    Amaxes(x, groups, high.v);
  } else {
    for (int64_t g = 0; g < groups.count; ++g) high.v[g] = amaxes[g];
  }
}

// ---- forward ----

template <typename Op>
AUTOSCHEME_INLINE void Map(const float* x, int64_t n, float* y, const Op& op) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) Store(op(Load(x + j)), y + j);
  if (j < n) Store(op(Load(x + j, static_cast<int>(n - j))), y + j, static_cast<int>(n - j));
}

template <typename Kind>
void ForwardOf(const Format& f, const float* x, const Groups& groups, const float* amaxes, float whole, float* y) {
  PerGroup by = {}, back = {};
  FindRanges<Kind>(x, groups, amaxes, by, back);
  for (int64_t g = 0; g < groups.count; g += kLanes) {
    F a = Set(0), b = Set(0);
    GroupScale<Kind>(f, Load(by.v + g), Load(back.v + g), whole, &a, &b);
    Store(a, by.v + g), Store(b, back.v + g);
  }
  const QuantDequant<Kind> quantize(f);
  ForEachGroup(groups, [&](int64_t g, int64_t at, int64_t n) {
    const F a = Set(by.v[g]), b = Set(back.v[g]);
    Map(x + at, n, y + at, [&](F v) { return quantize(v, a, b); });
  });
}

void Forward(const Format& f, const float* x, const Groups& groups, const float* amaxes, float whole, float* y) {
  WithKind(f, [&](auto kind) { ForwardOf<decltype(kind)>(f, x, groups, amaxes, whole, y); });
}

// ---- backward ----

// Index of the lowest set bit at `at`, unless one was found before.
AUTOSCHEME_INLINE void Note(M m, int64_t at, int64_t* first) {
  const unsigned mask = Mask(m);
  if (mask != 0 && *first < 0) *first = at + __builtin_ctz(mask);
}

// op(x, g, index of the first) -> dx, sixteen at a time.
template <typename Op>
AUTOSCHEME_INLINE void MapGradient(const float* x, const float* g, int64_t n, float* dx, const Op& op) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) Store(op(Load(x + j), Load(g + j), j), dx + j);
  if (j == n) return;
  const int rest = static_cast<int>(n - j);
  Store(op(Load(x + j, rest), Load(g + j, rest), j), dx + j, rest);
}

struct Scales {
  PerGroup by, back;
};

// Per group the sum of its elements' terms, and the first element of the largest magnitude.
template <typename Kind>
void MapElementGradient(const Format& f, const float* x, const float* g, const Groups& groups, const Scales& s,
                        const float* amaxes, float whole, float* dx, PerGroup& sums, int64_t* firsts,
                        WholeGradient* w) {
  const Gradient<Kind> differentiate(f);
  const F largest = Set(whole);
  int64_t holders = 0;
  ForEachGroup(groups, [&](int64_t i, int64_t at, int64_t n) {
    const F by = Set(s.by.v[i]), amax = Set(amaxes[i]);
    F sum = Set(0);
    int64_t first = -1;
    MapGradient(x + at, g + at, n, dx + at, [&](F v, F grad, int64_t j) {
      F term;
      const F passed = differentiate(v, grad, by, &term);
      sum = sum + term;
      Note(Abs(v) == amax, j, &first);
      if (Kind::kFamily == Family::kNvfp4 && w != nullptr) holders += __builtin_popcount(Mask(Abs(v) == largest));
      return passed;
    });
    sums.v[i] = Sum(sum);
    firsts[i] = first < 0 ? -1 : at + first;
  });
  if (w != nullptr) w->holders += holders;
}

template <typename Kind>
void ElementBackward(const Format& f, const float* x, const float* g, const Groups& groups, const float* given_amaxes,
                     float whole, float* dx, WholeGradient* w) {
  PerGroup amaxes = {}, sums = {};
  Scales s = {};
  int64_t firsts[kMostGroups];
  FindRanges<Kind>(x, groups, given_amaxes, amaxes, amaxes);
  for (int64_t i = 0; i < groups.count; i += kLanes) {
    F by, back;
    ScalesOf<Kind::kFamily>(f, Load(amaxes.v + i), whole, &by, &back);
    Store(by, s.by.v + i), Store(back, s.back.v + i);
  }
  MapElementGradient<Kind>(f, x, g, groups, s, amaxes.v, whole, dx, sums, firsts, w);
  if (given_amaxes != nullptr) {
    for (int64_t i = 0; i < groups.count; ++i) {
      w->sum += sums.v[i];
      if (w->first_holder < 0) w->first_holder = firsts[i];
    }
    return;
  }
  PerGroup damax;
  for (int64_t i = 0; i < groups.count; i += kLanes) {
    const F amax = Load(amaxes.v + i), by = Load(s.by.v + i), sum = Load(sums.v + i);
    Store(AmaxGradient<Kind::kFamily>(f, amax, by, Load(s.back.v + i), whole, sum), damax.v + i);
    if (Kind::kFamily != Family::kNvfp4 || w == nullptr) continue;
    const Nvfp4Terms terms(amax, by, whole, sum);
    float dscale[kLanes], rounded[kLanes], live_amax[kLanes];
    Store(terms.dscale, dscale), Store(terms.rounded, rounded), Store(terms.live_amax, live_amax);
    for (int k = 0; k < kLanes && i + k < groups.count; ++k) {
      w->sum += Nvfp4WholeTerm(dscale[k], rounded[k], live_amax[k], whole);
    }
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
  const SymGradient<kNarrow> differentiate(f);
  ForEachGroup(groups, [&](int64_t i, int64_t at, int64_t n) {
    const F s = Set(scale.v[i]), least = Set(-low.v[i]), most = Set(high.v[i]);
    F products = Set(0), quotients = Set(0);
    int64_t first_low = -1, first_high = -1;
    MapGradient(x + at, g + at, n, dx + at, [&](F v, F grad, int64_t j) {
      F product, quotient;
      const F passed = differentiate(v, grad, s, &product, &quotient);
      products = products + product, quotients = quotients + quotient;
      Note(v == least, j, &first_low);
      Note(v == most, j, &first_high);
      return passed;
    });
    of_product.v[i] = Sum(products), of_quotient.v[i] = -Sum(quotients);
    lowest[i] = at + first_low, highest[i] = at + first_high;
  });
  for (int64_t i = 0; i < groups.count; i += kLanes) {
    Store(SymRangeGradient(f, Load(low.v + i), Load(high.v + i), Load(rounded.v + i), Load(of_product.v + i),
                           Load(of_quotient.v + i)),
          of_product.v + i);
  }
  for (int64_t i = 0; i < groups.count; ++i) {
    ToEnds(low.v[i], high.v[i], of_product.v[i],
           [&](bool to_highest, float d) { dx[to_highest ? highest[i] : lowest[i]] += d; });
  }
}

void Backward(const Format& f, const float* x, const float* g, const Groups& groups, const float* amaxes, float whole,
              float* dx, WholeGradient* w) {
  WithKind(f, [&](auto kind) {
    using Of = decltype(kind);
    if constexpr (Of::kFamily == Family::kIntSym) {
      SymBackward<Of::kNarrow>(f, x, g, groups, dx);
    } else if constexpr (HasGradient(Of::kFamily, Of::kNarrow)) {
      ElementBackward<Of>(f, x, g, groups, amaxes, whole, dx, w);
    }
  });
}

void AddShare(const float* x, int64_t n, float whole, float share, float* dx) {
  const F largest = Set(whole), change = Set(share);
  MapGradient(x, dx, n, dx, [&](F v, F d, int64_t) { return WithShare(v, d, largest, change); });
}

}  // namespace
}  // namespace autoscheme::cpu
