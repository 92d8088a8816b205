// The row kernels for the baseline of the build; compile options: Room.cmake.
#include "nn/row_loops.h"

namespace autoscheme::cpu {
const AllRowKernels kBaselineRowKernels = kRowKernels;
}  // namespace autoscheme::cpu
