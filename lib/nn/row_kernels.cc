#include "nn/row_kernels.h"

#include "tensor/kernel_builds.h"

namespace autoscheme::cpu {
namespace {

#ifdef AUTOSCHEME_X86_KERNELS
constexpr KernelBuilds<AllRowKernels> kBuilds = {&kAvx512RowKernels, &kAvx2RowKernels, &kBaselineRowKernels};
#else
constexpr KernelBuilds<AllRowKernels> kBuilds = {nullptr, nullptr, &kBaselineRowKernels};
#endif

}  // namespace

int RunnableRowKernels(const AllRowKernels* kernels[3]) { return kBuilds.Runnable(kernels); }

const AllRowKernels& BestRowKernels() {
  static const AllRowKernels& best = kBuilds.Best();
  return best;
}

}  // namespace autoscheme::cpu
