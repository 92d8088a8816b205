#include "quant/k_search.h"

#include <algorithm>
#include <cmath>

// Compiled twice from one body, as cpu_kernels.cc is; without fused multiply-add (see CMakeLists.txt).
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define AUTOSCHEME_AVX2 __attribute__((target("avx2")))
#endif
#define AUTOSCHEME_INLINE inline __attribute__((always_inline))

namespace autoscheme::cpu {
namespace {

constexpr int kLanes = 16;    // groups that are searched side by side
constexpr int kMostSize = 32;
constexpr int kPartials = 8;  // of a sum

// One number of each group.
struct Lanes {
  alignas(64) float v[kLanes];
};

// Element j of group l is at [j][l].
struct Tile {
  alignas(64) float v[kMostSize][kLanes];
};

// Half to even for |v| < 2^22; larger values stay large, which is all that the clamp behind needs. NaN stays NaN.
AUTOSCHEME_INLINE float Round(float v) {
  const float magic = 12582912.0f;
  return (v + magic) - magic;
}
AUTOSCHEME_INLINE float Clamp(float v, float low, float high) {
  v = v < low ? low : v;
  return v > high ? high : v;
}
AUTOSCHEME_INLINE float ReciprocalOrZero(float v) {
  const float inverse = 1.0f / v;
  return std::fabs(v) < 1e-30f ? 0.0f : inverse;
}

// A full tile from the groups at `x`; a short last one repeats its first group.
AUTOSCHEME_INLINE void Gather(const float* x, int64_t groups, int size, Tile& tile) {
  for (int l = 0; l < kLanes; ++l) {
    const float* group = x + (l < groups ? l : 0) * static_cast<int64_t>(size);
    for (int j = 0; j < size; ++j) tile.v[j][l] = group[j];
  }
}

// sum[l] of term(j, l) over the elements, as LibTorch adds them up.
template <typename Term>
AUTOSCHEME_INLINE void Sum(int size, const Term& term, Lanes& sum) {
  for (int l = 0; l < kLanes; ++l) sum.v[l] = 0;
  for (int p = 0; p < kPartials; ++p) {
    Lanes partial;
    for (int l = 0; l < kLanes; ++l) partial.v[l] = 0;
    for (int j = p; j < size; j += kPartials) {
      for (int l = 0; l < kLanes; ++l) partial.v[l] += term(j, l);
    }
    for (int l = 0; l < kLanes; ++l) sum.v[l] += partial.v[l];
  }
}

AUTOSCHEME_INLINE void FitRangeTile(const Tile& x, const Tile& w, int size, int levels, Lanes& scale, Lanes& low) {
  const float top = static_cast<float>(levels);
  Lanes range, sum_w, sum_x, best, inverse;
  for (int l = 0; l < kLanes; ++l) {
    float lo = x.v[0][l], hi = x.v[0][l];
    for (int j = 1; j < size; ++j) {
      lo = x.v[j][l] < lo ? x.v[j][l] : lo;
      hi = x.v[j][l] > hi ? x.v[j][l] : hi;
    }
    low.v[l] = lo;
    range.v[l] = hi;  // the largest, until the current minimum is taken from it
  }
  Lanes& high = range;
  Sum(size, [&](int j, int l) { return w.v[j][l]; }, sum_w);
  Sum(size, [&](int j, int l) { return w.v[j][l] * x.v[j][l]; }, sum_x);
  for (int l = 0; l < kLanes; ++l) {
    scale.v[l] = (high.v[l] - low.v[l]) / top;
    inverse.v[l] = ReciprocalOrZero(scale.v[l]);
  }
  const auto squared_error = [&](const Lanes& s, const Lanes& m, const Lanes& inv, int j, int l) {
    const float q = Clamp(Round((x.v[j][l] - m.v[l]) * inv.v[l]), 0.0f, top);
    const float difference = (s.v[l] * q + m.v[l]) - x.v[j][l];
    return w.v[j][l] * (difference * difference);
  };
  Sum(size, [&](int j, int l) { return squared_error(scale, low, inverse, j, l); }, best);

  for (int i = 0; i < 36; ++i) {
    const float divisor = static_cast<float>(-0.9 + 0.05 * i + levels);
    for (int l = 0; l < kLanes; ++l) inverse.v[l] = ReciprocalOrZero((high.v[l] - low.v[l]) / divisor);
    Lanes sum_l, sum_l2, sum_xl;
    for (int l = 0; l < kLanes; ++l) sum_l.v[l] = 0, sum_l2.v[l] = 0, sum_xl.v[l] = 0;
    for (int p = 0; p < kPartials; ++p) {  // Sum, thrice at once
      Lanes part_l, part_l2, part_xl;
      for (int l = 0; l < kLanes; ++l) part_l.v[l] = 0, part_l2.v[l] = 0, part_xl.v[l] = 0;
      for (int j = p; j < size; j += kPartials) {
        for (int l = 0; l < kLanes; ++l) {
          const float q = Clamp(Round((x.v[j][l] - low.v[l]) * inverse.v[l]), 0.0f, top);
          const float wq = w.v[j][l] * q;
          part_l.v[l] += wq;
          part_l2.v[l] += wq * q;
          part_xl.v[l] += wq * x.v[j][l];
        }
      }
      for (int l = 0; l < kLanes; ++l) {
        sum_l.v[l] += part_l.v[l];
        sum_l2.v[l] += part_l2.v[l];
        sum_xl.v[l] += part_xl.v[l];
      }
    }
    Lanes det, new_scale, new_low, error;
    for (int l = 0; l < kLanes; ++l) {
      det.v[l] = sum_w.v[l] * sum_l2.v[l] - sum_l.v[l] * sum_l.v[l];
      const float s = (sum_w.v[l] * sum_xl.v[l] - sum_x.v[l] * sum_l.v[l]) / det.v[l];
      const float m = (sum_l2.v[l] * sum_x.v[l] - sum_l.v[l] * sum_xl.v[l]) / det.v[l];
      const float from_zero = sum_xl.v[l] / sum_l2.v[l];
      new_scale.v[l] = m > 0 ? from_zero : s;
      new_low.v[l] = m > 0 ? 0.0f : m;
      inverse.v[l] = ReciprocalOrZero(new_scale.v[l]);
    }
    Sum(size, [&](int j, int l) { return squared_error(new_scale, new_low, inverse, j, l); }, error);
    for (int l = 0; l < kLanes; ++l) {
      const bool better = (error.v[l] < best.v[l]) & (det.v[l] > 0);
      best.v[l] = better ? error.v[l] : best.v[l];
      scale.v[l] = better ? new_scale.v[l] : scale.v[l];
      low.v[l] = better ? new_low.v[l] : low.v[l];
    }
  }
}

AUTOSCHEME_INLINE void FitSignedTile(const Tile& x, const Tile& w, int size, int half, Lanes& scale) {
  const float bottom = static_cast<float>(-half), top = static_cast<float>(half - 1);
  Lanes peak, inverse, best;
  for (int l = 0; l < kLanes; ++l) {
    float value = x.v[0][l];
    for (int j = 1; j < size; ++j) value = std::fabs(x.v[j][l]) > std::fabs(value) ? x.v[j][l] : value;
    peak.v[l] = value;
    inverse.v[l] = ReciprocalOrZero(value) * bottom;
  }
  const auto sums = [&](Lanes& a, Lanes& b) {
    for (int l = 0; l < kLanes; ++l) a.v[l] = 0, b.v[l] = 0;
    for (int p = 0; p < kPartials; ++p) {
      Lanes part_a, part_b;
      for (int l = 0; l < kLanes; ++l) part_a.v[l] = 0, part_b.v[l] = 0;
      for (int j = p; j < size; j += kPartials) {
        for (int l = 0; l < kLanes; ++l) {
          const float q = Clamp(Round(inverse.v[l] * x.v[j][l]), bottom, top);
          part_a.v[l] += (w.v[j][l] * x.v[j][l]) * q;
          part_b.v[l] += (w.v[j][l] * q) * q;
        }
      }
      for (int l = 0; l < kLanes; ++l) a.v[l] += part_a.v[l], b.v[l] += part_b.v[l];
    }
  };
  Lanes a, b;
  sums(a, b);
  for (int l = 0; l < kLanes; ++l) {
    scale.v[l] = a.v[l] * ReciprocalOrZero(b.v[l]);
    best.v[l] = scale.v[l] * a.v[l];
  }
  for (int k = -9; k <= 9; ++k) {
    if (k == 0) continue;
    const float divided = static_cast<float>(-(half - 0.1 * k));
    for (int l = 0; l < kLanes; ++l) inverse.v[l] = divided / peak.v[l];
    sums(a, b);
    for (int l = 0; l < kLanes; ++l) {
      const bool better = (b.v[l] > 0) & (a.v[l] * a.v[l] > best.v[l] * b.v[l]);
      const float s = a.v[l] / b.v[l];
      scale.v[l] = better ? s : scale.v[l];
      best.v[l] = better ? s * a.v[l] : best.v[l];
    }
  }
}

AUTOSCHEME_INLINE void FitRangeBody(const float* x, const float* w, int64_t groups, int size, int top, float* scale, float* minimum) {
  for (int64_t g = 0; g < groups; g += kLanes) {
    Tile xs, ws;
    Gather(x + g * size, groups - g, size, xs);
    Gather(w + g * size, groups - g, size, ws);
    Lanes s, m;
    FitRangeTile(xs, ws, size, top, s, m);
    const int64_t count = std::min<int64_t>(kLanes, groups - g);
    for (int64_t l = 0; l < count; ++l) scale[g + l] = s.v[l], minimum[g + l] = m.v[l];
  }
}

AUTOSCHEME_INLINE void FitSignedBody(const float* x, const float* w, int64_t groups, int size, int half, float* scale) {
  for (int64_t g = 0; g < groups; g += kLanes) {
    Tile xs, ws;
    Gather(x + g * size, groups - g, size, xs);
    Gather(w + g * size, groups - g, size, ws);
    Lanes s;
    FitSignedTile(xs, ws, size, half, s);
    const int64_t count = std::min<int64_t>(kLanes, groups - g);
    for (int64_t l = 0; l < count; ++l) scale[g + l] = s.v[l];
  }
}

#ifdef AUTOSCHEME_AVX2
AUTOSCHEME_AVX2 void FitRangeAvx2(const float* x, const float* w, int64_t groups, int size, int top, float* scale, float* minimum) {
  // A size known at compile time unrolls the sums.
  if (size == 32) return FitRangeBody(x, w, groups, 32, top, scale, minimum);
  if (size == 16) return FitRangeBody(x, w, groups, 16, top, scale, minimum);
  FitRangeBody(x, w, groups, size, top, scale, minimum);
}
AUTOSCHEME_AVX2 void FitSignedAvx2(const float* x, const float* w, int64_t groups, int size, int half, float* scale) {
  if (size == 16) return FitSignedBody(x, w, groups, 16, half, scale);
  FitSignedBody(x, w, groups, size, half, scale);
}
#endif

}  // namespace

void FitRange(const float* x, const float* w, int64_t groups, int size, int top, float* scale, float* minimum) {
#ifdef AUTOSCHEME_AVX2
  if (__builtin_cpu_supports("avx2")) return FitRangeAvx2(x, w, groups, size, top, scale, minimum);
#endif
  FitRangeBody(x, w, groups, size, top, scale, minimum);
}

void FitSigned(const float* x, const float* w, int64_t groups, int size, int half, float* scale) {
#ifdef AUTOSCHEME_AVX2
  if (__builtin_cpu_supports("avx2")) return FitSignedAvx2(x, w, groups, size, half, scale);
#endif
  FitSignedBody(x, w, groups, size, half, scale);
}

}  // namespace autoscheme::cpu
