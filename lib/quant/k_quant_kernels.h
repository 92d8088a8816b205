// k-quants for kernels_*.cc only (see lanes.h): sixteen groups, then sixteen super-groups, side by side.
#pragma once

#include "quant/group_kernels.h"
#include "quant/k_quant_math.h"
#include "quant/kernels.h"
#include "tensor/lanes.h"

namespace autoscheme::cpu {
namespace {

// Groups' numbers to lanes by super-group, and back. Lanes that are not there repeat the first.
template <int kGroups>
AUTOSCHEME_INLINE void ToLanes(const float* v, int64_t blocks, Tile& tile) {
  for (int l = 0; l < kLanes; ++l) {
    for (int j = 0; j < kGroups; ++j) tile.v[j][l] = v[(l < blocks ? l : 0) * kGroups + j];
  }
}
template <int kGroups>
AUTOSCHEME_INLINE void FromLanes(const Tile& tile, int64_t blocks, float* v) {
  for (int l = 0; l < blocks; ++l) {
    for (int j = 0; j < kGroups; ++j) v[l * kGroups + j] = tile.v[j][l];
  }
}

// What SearchScale and RangeScale give for each group.
struct KScales {
  PerGroup scale = {}, minimum = {}, weight = {};
  AUTOSCHEME_MEMBER void Put(const KScale& s, int64_t g) {
    Store(s.scale, scale.v + g), Store(s.minimum, minimum.v + g), Store(s.weight, weight.v + g);
  }
};

template <int kSize, bool kSym>
void SearchGroups(const KFormat& f, const float* x, int64_t count, const float* importance, int64_t importance_groups,
                  int64_t first, KScales& scales) {
  for (int64_t g = 0; g < count; g += kLanes) {
    Tile xs, ws;
    for (int l = 0; l < kLanes; ++l) {
      const int64_t i = g + l < count ? g + l : g;
      const float* from = x + i * kSize;
      const float* w = importance + (first + i) % importance_groups * kSize;
      for (int j = 0; j < kSize; ++j) xs.v[j][l] = from[j], ws.v[j][l] = w[j];
    }
    scales.Put(SearchScale<kSize, kSym>(f, xs, ws), g);
  }
}

template <bool kSym>
void RangeGroups(const KFormat& f, const float* x, int64_t count, KScales& scales) {
  PerGroup low = {}, high = {};
  const Groups groups{count, f.group, f.group};
  Ranges(x, groups, low, high);
  for (int64_t g = 0; g < count; g += kLanes) {
    scales.Put(RangeScale<kSym>(f, Load(low.v + g), Load(high.v + g)), g);
  }
}

template <typename Kind>
bool KQuantOf(const KFormat& f, const float* x, int64_t count, const float* importance, int64_t importance_groups,
              int64_t first, float* y) {
  constexpr int kSize = Kind::kSize, kGroups = Kind::kGroups;
  KScales scales;
  const bool search = importance != nullptr;
  if (search) {
    SearchGroups<kSize, Kind::kSym>(f, x, count, importance, importance_groups, first, scales);
  } else {
    RangeGroups<Kind::kSym>(f, x, count, scales);
  }
  for (int64_t g = 0; g < count; g += kLanes * kGroups) {
    const int64_t left = (count - g) / kGroups, blocks = left < kLanes ? left : kLanes;
    Tile s, m, w;
    ToLanes<kGroups>(scales.scale.v + g, blocks, s);
    if (!Kind::kSym) ToLanes<kGroups>(scales.minimum.v + g, blocks, m);
    if (!Kind::kSym && search) ToLanes<kGroups>(scales.weight.v + g, blocks, w);
    RoundSuperGroup<kGroups, Kind::kSym>(f, search, s, m, w);
    if (!Kind::kSym) FromLanes<kGroups>(m, blocks, scales.minimum.v + g);
    FromLanes<kGroups>(s, blocks, scales.scale.v + g);
  }
  const KQuantDequant<Kind::kSym> quantize(f, search);
  Magnitude largest;
  for (int64_t g = 0; g < count; ++g) {
    const F s = Set(scales.scale.v[g]), m = Set(scales.minimum.v[g]), inverse = ReciprocalOrZeroBelowEps(s);
    for (int j = 0; j < kSize; j += kLanes) {
      const F r = quantize(Load(x + g * kSize + j), s, m, inverse);
      largest.Add(r);
      Store(r, y + g * kSize + j);
    }
  }
  return MaxOf(largest.high) < 0x7f800000;
}

bool KQuant(const KFormat& f, const float* x, int64_t count, const float* importance, int64_t importance_groups,
            int64_t first, float* y) {
  return WithKKind(
      f, [&](auto kind) { return KQuantOf<decltype(kind)>(f, x, count, importance, importance_groups, first, y); });
}

}  // namespace
}  // namespace autoscheme::cpu
