// The panels by which matrices of bfloat16 are widened to be multiplied. No torch.
#pragma once

#include <cstdint>

namespace autoscheme {

// Most rows or columns of a result's panel, and most numbers that are multiplied at once for one of the result. A
// number is widened once for so many products that it shows by a few percent, and the panels take at most 20 MiB.
inline constexpr int64_t kMostSide = 1024, kMostTerms = 2048;

// Bytes of the panels that MultiplyWidened holds at a time, for [m, k] times [k, n].
uint64_t WidenedBytes(int64_t m, int64_t k, int64_t n);

}  // namespace autoscheme
