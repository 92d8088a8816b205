#include "base/random_signs.h"

#include <algorithm>

namespace autoscheme {
namespace {

// The finalizer of splitmix64 (Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014).
uint64_t Mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

}  // namespace

void RandomSigns(uint64_t row, int64_t first, int64_t count, float* out) {
  const uint64_t of_row = Mixed(row * 0x9e3779b97f4a7c15U + 0x2545f4914f6cdd1dU);
  for (int64_t column = first; column < first + count;) {
    // A word holds the signs of 64 columns.
    const int64_t word = column / 64, end = std::min((word + 1) * 64, first + count);
    const uint64_t bits = Mixed(of_row + static_cast<uint64_t>(word) * 0x9e3779b97f4a7c15U);
    for (; column < end; ++column) *out++ = (bits >> (column % 64) & 1) != 0 ? 1.0F : -1.0F;
  }
}

}  // namespace autoscheme
