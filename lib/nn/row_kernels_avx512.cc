// The row kernels for AVX-512; compile options: Room.cmake.
#include "nn/row_loops.h"

namespace autoscheme::cpu {
const AllRowKernels kAvx512RowKernels = kRowKernels;
}  // namespace autoscheme::cpu
