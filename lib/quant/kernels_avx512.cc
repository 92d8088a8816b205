// The kernels for AVX-512; compile options: Room.cmake.
#include "quant/group_kernels.h"
#include "quant/k_quant_kernels.h"
#include "quant/kernels.h"

namespace autoscheme::cpu {
const Kernels kAvx512Kernels = {WidenBFloat16, WidenHalf, NarrowBFloat16, Amaxes, Forward, Backward, AddShare, KQuant};
}  // namespace autoscheme::cpu
