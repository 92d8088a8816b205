#include "skeleton/row_kernels.h"

#include <ATen/Version.h>

#include <string>

namespace autoscheme::cpu {

const AllRowKernels& BestRowKernels() {
#ifdef AUTOSCHEME_X86_KERNELS
  static const AllRowKernels& best = []() -> const AllRowKernels& {
    const std::string capability = at::get_cpu_capability();
    if (capability == "AVX512") return kAvx512RowKernels;
    if (capability == "AVX2") return kAvx2RowKernels;
    return kBaselineRowKernels;
  }();
  return best;
#else
  return kBaselineRowKernels;
#endif
}

}  // namespace autoscheme::cpu
