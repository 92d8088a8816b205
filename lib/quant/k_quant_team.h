// One super-group of a k-quant by a team with a thread for each of its groups; see group_team.h.
#pragma once

#include "quant/group_team.h"
#include "quant/k_quant_math.h"

namespace autoscheme::cpu {
namespace {

// v[thread] of all threads.
template <typename Team>
AUTOSCHEME_INLINE void Gather(const Team& team, typename Team::template PerThread<float>& v, Tile& tile) {
  AUTOSCHEME_UNROLL
  for (int j = 0; j < Team::kThreads; ++j) tile.v[j][0] = team.From(v, j);
}
// Without an index that is not constant, so that a tile can stay in registers.
template <typename Team>
AUTOSCHEME_INLINE F Own(const Tile& tile, int thread) {
  float own = 0;
  AUTOSCHEME_UNROLL
  for (int j = 0; j < Team::kThreads; ++j) own = j == thread ? tile.v[j][0] : own;
  return Set(own);
}

template <int kSize, Number kType>
AUTOSCHEME_INLINE void ReadTile(const void* x, int64_t at, Tile& tile) {
  AUTOSCHEME_UNROLL
  for (int j = 0; j < kSize; ++j) tile.v[j][0] = Read<kType>(x, at + j).p[0];
}
template <int kSize>
AUTOSCHEME_INLINE void ReadTile(const void* x, Number type, int64_t at, Tile& tile) {
  if (type == Number::kF32) return ReadTile<kSize, Number::kF32>(x, at, tile);
  if (type == Number::kBF16) return ReadTile<kSize, Number::kBF16>(x, at, tile);
  ReadTile<kSize, Number::kF16>(x, at, tile);
}

// A group's scale before its super-group rounds it.
template <typename Kind, bool kSearch>
AUTOSCHEME_INLINE KScale ScaleOfGroup(const KFormat& f, int64_t group, const void* x, Number x_type,
                                      const float* importance, int64_t importance_groups) {
  constexpr int kSize = Kind::kSize;
  Tile elements;
  ReadTile<kSize>(x, x_type, group * kSize, elements);
  if (kSearch) {
    Tile weights;
    ReadTile<kSize, Number::kF32>(importance, group % importance_groups * kSize, weights);
    return SearchScale<kSize, Kind::kSym>(f, elements, weights);
  }
  Range range;
  AUTOSCHEME_UNROLL
  for (int j = 0; j < kSize; ++j) range.Add(At(elements, j));
  return RangeScale<Kind::kSym>(f, AsFloat(range.low), AsFloat(range.high));
}

// Sets *overflowed where a result is not finite.
template <typename Kind, bool kSearch, typename Team>
AUTOSCHEME_INLINE void KQuantSuperGroup(const Team& team, const KFormat& f, int64_t super_group, const void* x,
                                        Number x_type, const float* importance, int64_t importance_groups, void* y,
                                        Number y_type, int32_t* overflowed) {
  constexpr int kSize = Kind::kSize;
  const int64_t first = super_group * Kind::kGroups;
  typename Team::template PerThread<float> scales, minima, sums;
  team.Each([&](int thread) {
    const KScale found = ScaleOfGroup<Kind, kSearch>(f, first + thread, x, x_type, importance, importance_groups);
    scales[thread] = found.scale.p[0], minima[thread] = found.minimum.p[0], sums[thread] = found.weight.p[0];
  });
  Tile scale, minimum, weight;
  Gather(team, scales, scale);
  Gather(team, minima, minimum);
  Gather(team, sums, weight);
  RoundSuperGroup<Kind::kGroups, Kind::kSym>(f, kSearch, scale, minimum, weight);
  const KQuantDequant<Kind::kSym> quantize(f, kSearch);
  team.Each([&](int thread) {
    const F s = Own<Team>(scale, thread), m = Own<Team>(minimum, thread), inverse = ReciprocalOrZeroBelowEps(s);
    Magnitude largest;
    for (int j = 0; j < kSize; ++j) {
      const int64_t i = (first + thread) * kSize + j;
      const F r = quantize(Read(x, x_type, i), s, m, inverse);
      largest.Add(r);
      Write(r, y, y_type, i);
    }
    if (MaxOf(largest.high) >= 0x7f800000) *overflowed = 1;
  });
}

}  // namespace
}  // namespace autoscheme::cpu
