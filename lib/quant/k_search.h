// The search loops of the imatrix-weighted K types, fused: all trials of a group while it is in registers.
#ifndef AUTOSCHEME_QUANT_K_SEARCH_H_
#define AUTOSCHEME_QUANT_K_SEARCH_H_

#include <cstdint>

namespace autoscheme::cpu {

// x and w: float32 [groups, size], contiguous; size a multiple of 8, at most 32. Serial: the caller spreads the groups over
// threads. Sums run as LibTorch's do with eight lanes (every eighth element first, then the eight partial sums), and
// nothing is fused, so results are those of the plain tensor expressions, whatever the machine.

// SPEC 3.11.3: scale and minimum of each group by 36 trials around (max - min) / top, least weighted squared error. [groups].
void FitRange(const float* x, const float* w, int64_t groups, int size, int top, float* scale, float* minimum);

// SPEC 3.11.4: scale of each group for signed integers -half .. half - 1 by 19 trials around the largest magnitude. [groups].
void FitSigned(const float* x, const float* w, int64_t groups, int size, int half, float* scale);

}  // namespace autoscheme::cpu

#endif  // AUTOSCHEME_QUANT_K_SEARCH_H_
