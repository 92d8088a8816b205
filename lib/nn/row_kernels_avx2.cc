// The row kernels for AVX2; compile options: Room.cmake.
#include "nn/row_loops.h"

namespace autoscheme::cpu {
const AllRowKernels kAvx2RowKernels = kRowKernels;
}  // namespace autoscheme::cpu
