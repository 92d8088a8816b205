// The bodies of RowKernels, for row_kernels_*.cc only (see lanes.h).
#pragma once

#include <stdint.h>

#include "nn/row_kernels.h"
#include "tensor/lanes.h"
#include "tensor/wide_lanes.h"

namespace autoscheme::cpu {
namespace {

// e^v to about the last bit; v is clamped to what float32 can say of the result. 2^k e^r with |r| <= ln(2) / 2, e^r by
// the polynomial of the Cephes library's expf (S. Moshier).
AUTOSCHEME_INLINE F Exp(F v) {
  v = Clamp(v, Set(-87.0f), Set(88.0f));
  const F k = Round(v * Set(1.44269504088896341f));
  const F r = v - k * Set(0.693359375f) - k * Set(-2.12194440e-4f);
  F p = Set(1.9875691500e-4f);
  p = p * r + Set(1.3981999507e-3f);
  p = p * r + Set(8.3334519073e-3f);
  p = p * r + Set(4.1665795894e-2f);
  p = p * r + Set(1.6666665459e-1f);
  p = p * r + Set(5.0000001201e-1f);
  const F e = p * (r * r) + r + Set(1.0f);
  // k as an integer: the low bits of k + 1.5 * 2^23.
  const I power = Bits(k + Set(12582912.0f)) - SetBits(0x4b400000);
  return e * AsFloat(Left<23>(power + SetBits(127)));
}

// The value as it is after it was stored and read again.
AUTOSCHEME_INLINE F Rounded(F v, float) { return v; }
AUTOSCHEME_INLINE F Rounded(F v, uint16_t) { return ToBFloat16(v); }

template <typename T>
void Normalize(const T* x, const float* rstd, const T* weight, int64_t rows, int64_t width, T* y) {
  for (int64_t row = 0; row < rows; ++row) {
    const F scale = Set(rstd[row]);
    Over(width, [&](int64_t i, auto lanes) {
      const int64_t at = row * width + i;
      Put(Rounded(Get(x + at, lanes) * scale, T()) * Get(weight + i, lanes), y + at, lanes);
    });
  }
}

// Products are rounded to `Step`.
template <typename Step, typename In, typename Table, typename Out>
void Rotate(const RotatedRows<In, Table, Out>& rows) {
  const F direction = Set(rows.direction), scale = Set(rows.scale);
  for (int64_t p = 0; p < rows.positions; ++p) {
    const In *first = rows.x + p * rows.x_stride, *second = first + rows.half;
    Out* y = rows.y + p * rows.y_stride;
    Over(rows.half, [&](int64_t i, auto lanes) {
      const int64_t at = p * rows.half + i;
      const F a = Get(first + i, lanes), b = Get(second + i, lanes);
      const F cos = Get(rows.cos + at, lanes), sin = Get(rows.sin + at, lanes) * direction;
      Put((Rounded(a * cos, Step()) - Rounded(b * sin, Step())) * scale, y + i, lanes);
      Put((Rounded(b * cos, Step()) + Rounded(a * sin, Step())) * scale, y + rows.half + i, lanes);
    });
  }
}

template <typename T>
void Multiply(const T* a, const T* b, int64_t n, T* y) {
  Over(n, [&](int64_t i, auto lanes) { Put(Get(a + i, lanes) * Get(b + i, lanes), y + i, lanes); });
}

template <typename T>
void SwiGluGradient(const T* gate, const T* up, const T* g, int64_t n, T* dgate, T* dup) {
  const F one = Set(1.0f);
  Over(n, [&](int64_t i, auto lanes) {
    const F a = Get(gate + i, lanes), u = Get(up + i, lanes), of_y = Get(g + i, lanes);
    // Beyond 87 either way 0 and not what Exp's clamp leaves, which would show beside gates of 1e30 and more.
    const F e = Where(a <= Set(87.0f), Exp(Negated(a))), sigmoid = Where(Set(-87.0f) <= a, one / (one + e));
    Put(of_y * (a * sigmoid), dup + i, lanes);
    Put(of_y * u * (sigmoid * (one + a * (e * sigmoid))), dgate + i, lanes);
  });
}

template <typename T>
void NormGradient(const NormGradientRows<T>& rows) {
  for (int64_t row = 0; row < rows.rows; ++row) {
    const int64_t at = row * rows.width;
    // dL/d(x rstd).
    const auto gradient = [&](int64_t i, auto lanes) {
      F sum = Get(rows.grads[0] + at + i, lanes);
      for (int k = 1; k < rows.count; ++k) sum = sum + Get(rows.grads[k] + at + i, lanes);
      return sum * Get(rows.weight + i, lanes);
    };
    F products = Set(0.0f);
    Over(rows.width,
         [&](int64_t i, auto lanes) { products = products + gradient(i, lanes) * Get(rows.x + at + i, lanes); });
    const float rstd = rows.rstd[row];
    const F scale = Set(rstd), part = Set(Sum(products) * rstd * rstd / static_cast<float>(rows.width));
    Over(rows.width, [&](int64_t i, auto lanes) {
      F dx = (gradient(i, lanes) - Get(rows.x + at + i, lanes) * part) * scale;
      if (rows.passed != nullptr) dx = dx + Get(rows.passed + at + i, lanes);
      Put(dx, rows.dx + at + i, lanes);
    });
  }
}

AUTOSCHEME_INLINE F OthersAre(F, F v, Full) { return v; }
// v in the first lanes, `other` in those behind them.
AUTOSCHEME_INLINE F OthersAre(F other, F v, Part part) {
  static const float kIndices[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return Select(Load(kIndices) < Set(static_cast<float>(part.n)), v, other);
}

// NaN is passed over.
AUTOSCHEME_INLINE float MaxOf(const float* x, int64_t n) {
  const F least = Set(-__builtin_inff());
  F most = least;
  Over(n, [&](int64_t i, auto lanes) { most = Max(OthersAre(least, Get(x + i, lanes), lanes), most); });
  float all[kLanes];
  Store(most, all);
  for (int i = 1; i < kLanes; ++i) all[0] = all[i] > all[0] ? all[i] : all[0];
  return all[0];
}

// The first element that is `v`, which is one of them.
AUTOSCHEME_INLINE int64_t PlaceOf(float v, const float* x, int64_t n) {
  const F wanted = Set(v);
  int64_t at = 0;
  while (at + kLanes <= n && Mask(Load(x + at) == wanted) == 0) at += kLanes;
  while (x[at] != v) ++at;
  return at;
}

// The sum of exp(logit - maximum), which are left as weights.
AUTOSCHEME_INLINE double Weigh(const float* logits, int64_t n, D maximum, double* weights) {
  D sum = SetWide(0);
  Over(n, [&](int64_t i, auto lanes) {
    const F logit = OthersAre(Set(-__builtin_inff()), Get(logits + i, lanes), lanes);
    const D weight = ExpOfNegative(ToWide(logit) - maximum);
    Put(weight, weights + i, lanes);
    sum = sum + weight;
  });
  return Sum(sum);
}

struct LogitSums {
  double sum, difference;
};

// The same sum, and that of weights (reference - logits).
AUTOSCHEME_INLINE LogitSums Compare(const float* logits, int64_t n, D maximum, const double* weights,
                                    const float* reference) {
  D sum = SetWide(0), difference = SetWide(0);
  Over(n, [&](int64_t i, auto lanes) {
    const F logit = Get(logits + i, lanes);
    difference = difference + Get(weights + i, lanes) * (ToWide(Get(reference + i, lanes)) - ToWide(logit));
    sum = sum + ExpOfNegative(ToWide(OthersAre(Set(-__builtin_inff()), logit, lanes)) - maximum);
  });
  return {Sum(sum), Sum(difference)};
}

void AddLogits(const LogitRows& rows) {
  for (int64_t row = 0; row < rows.rows; ++row) {
    const int64_t first = row * rows.width;
    const float* logits = rows.logits + first;
    const float most = MaxOf(logits, rows.width);
    const double before = rows.maximum[row];
    if (static_cast<double>(most) > before) {
      rows.maximum[row] = static_cast<double>(most);
      rows.best[row] = rows.first_id + PlaceOf(most, logits, rows.width);
    }
    const D maximum = SetWide(rows.maximum[row]);
    const double rescale = FirstOf(ExpOfNegative(SetWide(before) - maximum));
    double sum;
    if (rows.reference == nullptr) {
      sum = Weigh(logits, rows.width, maximum, rows.weights + first);
      rows.rescale[row] = rescale;
    } else {
      const LogitSums sums = Compare(logits, rows.width, maximum, rows.weights + first, rows.reference + first);
      sum = sums.sum;
      rows.difference[row] = rows.difference[row] * rows.rescale[row] + sums.difference;
    }
    rows.sum[row] = rows.sum[row] * rescale + sum;
  }
}

template <typename T>
constexpr RowKernels<T> kLoops = {Normalize<T>, Rotate<T>,         Rotate<float>,  Rotate<float>,
                                  Multiply<T>,  SwiGluGradient<T>, NormGradient<T>};
constexpr AllRowKernels kRowKernels = {kLoops<float>, kLoops<uint16_t>, AddLogits};

}  // namespace
}  // namespace autoscheme::cpu
