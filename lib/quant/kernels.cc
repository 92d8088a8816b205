#include "quant/kernels.h"

#include "tensor/kernel_builds.h"

namespace autoscheme::cpu {
namespace {

#ifdef AUTOSCHEME_X86_KERNELS
constexpr KernelBuilds<Kernels> kBuilds = {&kAvx512Kernels, &kAvx2Kernels, &kBaselineKernels};
#else
constexpr KernelBuilds<Kernels> kBuilds = {nullptr, nullptr, &kBaselineKernels};
#endif

}  // namespace

int RunnableKernels(const Kernels* kernels[3]) { return kBuilds.Runnable(kernels); }

const Kernels& BestKernels() {
  static const Kernels& best = kBuilds.Best();
  return best;
}

}  // namespace autoscheme::cpu
