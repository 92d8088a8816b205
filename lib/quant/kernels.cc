#include "quant/kernels.h"

#include <ATen/Version.h>

#include <string>

namespace autoscheme::cpu {

int RunnableKernels(const Kernels* kernels[3]) {
  int count = 0;
#ifdef AUTOSCHEME_X86_KERNELS
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) kernels[count++] = &kAvx512Kernels;
  if (__builtin_cpu_supports("avx2")) kernels[count++] = &kAvx2Kernels;
#endif
  kernels[count++] = &kBaselineKernels;
  return count;
}

const Kernels& BestKernels() {
#ifdef AUTOSCHEME_X86_KERNELS
  static const Kernels& best = []() -> const Kernels& {
    const std::string capability = at::get_cpu_capability();
    if (capability == "AVX512") return kAvx512Kernels;
    if (capability == "AVX2") return kAvx2Kernels;
    return kBaselineKernels;
  }();
  return best;
#else
  return kBaselineKernels;
#endif
}

}  // namespace autoscheme::cpu
