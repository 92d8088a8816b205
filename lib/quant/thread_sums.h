// Sums and counts over a whole tensor by many threads with one lane each: what one of them does; see group_team.h.
#pragma once

#include "quant/group_team.h"

namespace autoscheme::cpu {
namespace {

// Blocks of kBlockThreads threads, at most kMostBlocks; their number depends on that of the elements alone, so that
// sums do.
constexpr int kBlockThreads = 256, kMostBlocks = 1024;
inline int BlocksFor(int64_t elements) {
  constexpr int64_t kEach = 8 * kBlockThreads;
  const int64_t blocks = (elements + kEach - 1) / kEach;
  return blocks < 1 ? 1 : blocks > kMostBlocks ? kMostBlocks : static_cast<int>(blocks);
}

// As many for the gradient of the tensor's scale, with a team to a group.
inline int WholeBlocks(int64_t groups) { return BlocksFor(groups * kTeamThreads * 8); }

// Numbers of a type.
struct Numbers {
  const void* data;
  Number type;
};

// A thread's part of the sum of |grad (w - wq)|: the elements from `first` on, `step` apart.
AUTOSCHEME_INLINE double AbsProducts(const Numbers& grad, const Numbers& w, const Numbers& wq, int64_t first,
                                     int64_t step, int64_t count) {
  double sum = 0;
  for (int64_t i = first; i < count; i += step) {
    const F error = Read(w.data, w.type, i) - Read(wq.data, wq.type, i);
    sum += static_cast<double>(Abs(Read(grad.data, grad.type, i) * error).p[0]);
  }
  return sum;
}

// Whether all bits of the exponent are set.
AUTOSCHEME_INLINE bool IsNonFinite(const Numbers& numbers, int64_t i) {
  if (numbers.type == Number::kF32) {
    const uint32_t bits = static_cast<const uint32_t*>(numbers.data)[i];
    return (bits & 0x7f800000u) == 0x7f800000u;
  }
  const unsigned bits = static_cast<const uint16_t*>(numbers.data)[i];
  const unsigned exponent = numbers.type == Number::kBF16 ? 0x7f80u : 0x7c00u;
  return (bits & exponent) == exponent;
}

// The bits of the largest magnitude among a thread's elements; NaN is above all.
AUTOSCHEME_INLINE int32_t AmaxBits(const Numbers& x, int64_t first, int64_t step, int64_t count) {
  Magnitude largest;
  for (int64_t i = first; i < count; i += step) largest.Add(Read(x.data, x.type, i));
  return MaxOf(largest.high);
}

}  // namespace
}  // namespace autoscheme::cpu
