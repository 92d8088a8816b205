// One group by a team of sixteen threads with one lane each: thread t takes the elements t, t + 16, .., as lane t of
// the CPU's loops does, so that all sums are made of the same partial sums in the same order. For files with
// AUTOSCHEME_ONE_LANE (see lanes.h): kernels of a GPU, and the host's stand-in for them.
//
// A Team has
//   kThreads
//   PerThread<T>        a T for each thread, where v[thread] is its own
//   Each(body)          body(thread)
//   Max, Min, Sum       of a PerThread, known to all threads; Sum by halves, as lanes.h has it
// What stands outside of Each is the same in all threads.
#pragma once

#include "device/device_api.h"
#include "quant/device_quant_api.h"
#include "quant/group_math.h"
#include "tensor/lanes.h"

namespace autoscheme::cpu {
namespace {

static_assert(kLanes == 1, "a thread has one lane");
constexpr int kTeamThreads = 16;
constexpr int64_t kNone = INT64_MAX;  // an index that is not there

// ---- memory ----

// Element i, read as float32.
template <Number kType>
AUTOSCHEME_INLINE F Read(const void* data, int64_t i) {
  if (kType == Number::kF32) return Load(static_cast<const float*>(data) + i);
  const auto* halves = static_cast<const uint16_t*>(data) + i;
  return kType == Number::kBF16 ? Get(halves, Full()) : Widened(LoadHalves(halves));
}
AUTOSCHEME_INLINE F Read(const void* data, Number type, int64_t i) {
  if (type == Number::kF32) return Read<Number::kF32>(data, i);
  return type == Number::kBF16 ? Read<Number::kBF16>(data, i) : Read<Number::kF16>(data, i);
}
// float32 or bfloat16.
AUTOSCHEME_INLINE void Write(F v, void* data, Number type, int64_t i) {
  if (type == Number::kF32) return Put(v, static_cast<float*>(data) + i, Full());
  Put(SaturatedBFloat16(v), static_cast<uint16_t*>(data) + i, Full());
}

// ---- where groups lie ----

struct Layout {
  int64_t run, per_run, count, height;  // groups of a run, of all; height: rows of a matrix of tiles
  int size, tile_rows;
  bool one;  // the tensor's only group, in parts
};

// False where kernels do not take such groups, or need a `whole` that is not there.
inline bool LayOut(const Format& f, const DeviceGroups& g, const float* whole, Layout* layout) {
  constexpr int64_t kPart = 2048;  // what fused.cc hands to the CPU's loops at once
  const int64_t size = g.size == 0 ? (g.elements < kPart ? g.elements : kPart) : g.size;
  if (g.elements <= 0 || g.run <= 0 || g.elements % g.run != 0 || size <= 0 || g.tile_rows < 0) return false;
  if (size > INT32_MAX / 2 || g.tile_rows > INT32_MAX / 2) return false;
  if (g.size == 0 && (f.family != Family::kFp8 || g.tile_rows > 0)) return false;
  if (whole == nullptr && (g.size == 0 || f.family == Family::kNvfp4)) return false;
  const int64_t per_run = (g.run + size - 1) / size, height = g.elements / g.run;
  const int64_t strips = g.tile_rows == 0 ? height : (height + g.tile_rows - 1) / g.tile_rows;
  *layout = {g.run,      per_run, strips * per_run, height, static_cast<int>(size), static_cast<int>(g.tile_rows),
             g.size == 0};
  return true;
}

// `rows` rows of `width` elements.
struct Place {
  int64_t at, stride;
  int rows, width;
};

AUTOSCHEME_INLINE Place PlaceOf(const Layout& l, int64_t group) {
  int64_t row = 0, left = group * l.size;
  if (l.height > 1) row = group / l.per_run, left = (group - row * l.per_run) * l.size;
  int rows = 1;
  if (l.tile_rows > 0) {
    row *= l.tile_rows;
    rows = l.height - row < l.tile_rows ? static_cast<int>(l.height - row) : l.tile_rows;
  }
  return {row * l.run + left, l.run, rows, l.run - left < l.size ? static_cast<int>(l.run - left) : l.size};
}

// body(index) for a thread's elements.
template <typename Team, typename Body>
AUTOSCHEME_INLINE void ForElements(const Place& p, int thread, const Body& body) {
  for (int row = 0; row < p.rows; ++row) {
    for (int j = thread; j < p.width; j += Team::kThreads) body(p.at + row * p.stride + j);
  }
}

// ---- forward ----

// Of integers the range, of other families the amax (in `high`).
template <typename Kind, Number kX, typename Team>
AUTOSCHEME_INLINE void FindRange(const Team& team, const Place& p, const void* x, float* low, float* high) {
  constexpr bool kInt = Kind::kFamily == Family::kIntSym || Kind::kFamily == Family::kIntAsym;
  typename Team::template PerThread<int32_t> lows, highs;
  team.Each([&](int thread) {
    Range range;
    Magnitude magnitude;
    ForElements<Team>(p, thread, [&](int64_t i) {
      const F v = Read<kX>(x, i);
      kInt ? range.Add(v) : magnitude.Add(v);
    });
    lows[thread] = MaxOf(range.low), highs[thread] = MaxOf(kInt ? range.high : magnitude.high);
  });
  *low = kInt ? FloatOf(team.Max(lows)) : 0.0f;
  *high = FloatOf(team.Max(highs));
}

// `known`: `whole` is the group's largest magnitude.
template <typename Kind, Number kX, typename Team>
AUTOSCHEME_INLINE void ForwardGroup(const Team& team, const Format& f, const Place& p, bool known, const void* x,
                                    float whole, void* y, Number y_type) {
  float low = 0, high = whole;
  if (!known) FindRange<Kind, kX>(team, p, x, &low, &high);
  F by = Set(0), back = Set(0);
  GroupScale<Kind>(f, Set(low), Set(high), whole, &by, &back);
  const QuantDequant<Kind> quantize(f);
  team.Each([&](int thread) {
    ForElements<Team>(p, thread, [&](int64_t i) { Write(quantize(Read<kX>(x, i), by, back), y, y_type, i); });
  });
}

// ---- backward, but for integers ----

// Whether there is a gradient of such groups, from and to numbers of `type`.
inline bool Differentiable(const Format& f, const DeviceGroups& groups, Number type) {
  return type != Number::kF16 && groups.tile_rows == 0 && HasGradient(f.family, f.narrow && f.family == Family::kFp8);
}
// Whether some of it flows through the scale of the tensor.
template <typename Kind>
bool ThroughWhole(const Layout& layout, bool constant_whole) {
  return layout.one || (Kind::kFamily == Family::kNvfp4 && !constant_whole);
}

// What reaches the elements of the tensor's largest magnitude: `holder` alone, or all of them (kNone). Nothing where it
// is not `given`.
struct WholeShare {
  float share;
  int32_t given;
  int64_t holder;
};

template <typename Kind>
AUTOSCHEME_INLINE F Shared(const WholeShare& share, float whole, F v, F dx, int64_t i) {
  if (!share.given) return dx;
  if (Kind::kFamily == Family::kNvfp4) return WithShare(v, dx, Set(whole), Set(share.share));
  return i == share.holder ? dx + Set(SignOf(v.p[0]) * share.share) : dx;
}

// What a group's scale is made of, and the sum and the first of its elements of the largest magnitude.
struct GroupTerms {
  F amax, by, back;
  float sum;
  int64_t first;
};

// visit(thread, index, x, dx but for what flows through scales, whether this is the thread's first element of the
// group's largest magnitude).
template <typename Kind, Number kX, typename Team, typename Visit>
AUTOSCHEME_INLINE GroupTerms Differentiate(const Team& team, const Format& f, const Place& p, bool known, const void* x,
                                           const void* grad, Number type, float whole, const Visit& visit) {
  GroupTerms terms;
  float low = 0, high = whole;
  if (!known) FindRange<Kind, kX>(team, p, x, &low, &high);
  terms.amax = Set(high);
  ScalesOf<Kind::kFamily>(f, terms.amax, whole, &terms.by, &terms.back);
  const Gradient<Kind> differentiate(f);
  typename Team::template PerThread<float> sums;
  typename Team::template PerThread<int64_t> firsts;
  team.Each([&](int thread) {
    F sum = Set(0);
    int64_t first = kNone;
    ForElements<Team>(p, thread, [&](int64_t i) {
      const F v = Read<kX>(x, i);
      F term;
      const F passed = differentiate(v, Read(grad, type, i), terms.by, &term);
      sum = sum + term;
      const bool is_first = first == kNone && Mask(Abs(v) == terms.amax) != 0;
      if (is_first) first = i;
      visit(thread, i, v, passed, is_first);
    });
    sums[thread] = sum.p[0], firsts[thread] = first;
  });
  terms.sum = team.Sum(sums);
  terms.first = team.Min(firsts);
  return terms;
}

// The group's part in the gradient of the tensor's scale, added to that of the team's earlier groups.
template <typename Kind, Number kX, typename Team>
AUTOSCHEME_INLINE void AddWholeTerms(const Team& team, const Format& f, const Place& p, bool known, const void* x,
                                     const void* grad, Number type, float whole, WholeGradient* total) {
  typename Team::template PerThread<int32_t> holders;
  team.Each([&](int thread) { holders[thread] = 0; });
  const auto visit = [&](int thread, int64_t, F v, F, bool) { holders[thread] += Mask(Abs(v) == Set(whole)) != 0; };
  const GroupTerms terms = Differentiate<Kind, kX>(team, f, p, known, x, grad, type, whole, visit);
  total->holders += team.Sum(holders);
  if (terms.first != kNone && (total->first_holder < 0 || terms.first < total->first_holder)) {
    total->first_holder = terms.first;
  }
  if (Kind::kFamily == Family::kNvfp4) {
    const Nvfp4Terms n(terms.amax, terms.by, whole, Set(terms.sum));
    total->sum += Nvfp4WholeTerm(n.dscale.p[0], n.rounded.p[0], n.live_amax.p[0], whole);
  } else {
    total->sum += terms.sum;
  }
}

AUTOSCHEME_INLINE WholeGradient Joined(const WholeGradient& a, const WholeGradient& b) {
  const bool of_a = b.first_holder < 0 || (a.first_holder >= 0 && a.first_holder < b.first_holder);
  WholeGradient both;
  both.sum = a.sum + b.sum, both.holders = a.holders + b.holders;
  both.first_holder = of_a ? a.first_holder : b.first_holder;
  return both;
}

AUTOSCHEME_INLINE WholeShare ShareOf(const Format& f, const WholeGradient& total, float whole) {
  if (f.family == Family::kNvfp4) {
    const double share = Nvfp4Share(total.sum, whole, total.holders);
    const bool finite = share >= -1.7976931348623157e308 && share <= 1.7976931348623157e308;
    return {finite ? static_cast<float>(share) : 0.0f, finite, kNone};
  }
  const bool moves = total.first_holder >= 0 && whole / f.top >= f.least_scale;
  return {static_cast<float>(total.sum) / f.top, moves, total.first_holder};
}

// dx may be grad.
template <typename Kind, Number kX, typename Team>
AUTOSCHEME_INLINE void BackwardGroup(const Team& team, const Format& f, const Place& p, bool known, const void* x,
                                     const void* grad, float whole, const WholeShare& share, void* dx, Number type) {
  typename Team::template PerThread<F> kept_x, kept;
  typename Team::template PerThread<int64_t> firsts;
  team.Each([&](int thread) { firsts[thread] = kNone; });
  const auto visit = [&](int thread, int64_t i, F v, F passed, bool is_first) {
    if (is_first) firsts[thread] = i, kept_x[thread] = v, kept[thread] = passed;
    Write(Shared<Kind>(share, whole, v, passed, i), dx, type, i);
  };
  const GroupTerms terms = Differentiate<Kind, kX>(team, f, p, known, x, grad, type, whole, visit);
  if (known || terms.first == kNone) return;
  const F damax = AmaxGradient<Kind::kFamily>(f, terms.amax, terms.by, terms.back, whole, Set(terms.sum));
  team.Each([&](int thread) {
    if (firsts[thread] != terms.first) return;
    const F v = kept_x[thread], moved = kept[thread] + damax * Set(SignOf(v.p[0]));
    Write(Shared<Kind>(share, whole, v, moved, terms.first), dx, type, terms.first);
  });
}

// ---- backward, symmetric integers ----

template <typename Kind, Number kX, typename Team>
AUTOSCHEME_INLINE void SymBackwardGroup(const Team& team, const Format& f, const Place& p, const void* x,
                                        const void* grad, void* dx, Number type) {
  float low, high;
  FindRange<Kind, kX>(team, p, x, &low, &high);
  const F rounded = SymScale(f, Set(low), Set(high)), scale = AwayFromZero(f, rounded);
  const SymGradient<Kind::kNarrow> differentiate(f);
  typename Team::template PerThread<float> products, quotients;
  typename Team::template PerThread<int64_t> lowest, highest;
  typename Team::template PerThread<F> kept_low, kept_high;
  team.Each([&](int thread) {
    F product_sum = Set(0), quotient_sum = Set(0);
    int64_t first_low = kNone, first_high = kNone;
    ForElements<Team>(p, thread, [&](int64_t i) {
      const F v = Read<kX>(x, i);
      F product, quotient;
      const F passed = differentiate(v, Read(grad, type, i), scale, &product, &quotient);
      product_sum = product_sum + product, quotient_sum = quotient_sum + quotient;
      if (first_low == kNone && v.p[0] == -low) first_low = i, kept_low[thread] = passed;
      if (first_high == kNone && v.p[0] == high) first_high = i, kept_high[thread] = passed;
      Write(passed, dx, type, i);
    });
    products[thread] = product_sum.p[0], quotients[thread] = quotient_sum.p[0];
    lowest[thread] = first_low, highest[thread] = first_high;
  });
  const F product = Set(team.Sum(products)), minus_quotient = Set(-team.Sum(quotients));
  const F d = SymRangeGradient(f, Set(low), Set(high), rounded, product, minus_quotient);
  const int64_t at_low = team.Min(lowest), at_high = team.Min(highest);
  ToEnds(low, high, d.p[0], [&](bool to_highest, float change) {
    const int64_t at = to_highest ? at_high : at_low;
    team.Each([&](int thread) {
      if (at == kNone || (to_highest ? highest : lowest)[thread] != at) return;
      Write((to_highest ? kept_high : kept_low)[thread] + Set(change), dx, type, at);
    });
  });
}

}  // namespace
}  // namespace autoscheme::cpu
