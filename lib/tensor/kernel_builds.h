// One set of loops in all the builds that Room.cmake makes of it (autoscheme_kernels), and which of them to call.
//
// The files that are such a build must not include this: see lanes.h.
#pragma once

namespace autoscheme::cpu {

enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

// What LibTorch chose (ATEN_CPU_CAPABILITY overrides it).
InstructionSet ChosenInstructionSet();
// Whether this processor has it.
bool CanRun(InstructionSet set);

// `Kernels`: a struct of function pointers. Null where this is no x86-64.
template <typename Kernels>
struct KernelBuilds {
  const Kernels *avx512, *avx2, *baseline;

  const Kernels& Best() const {
    const InstructionSet chosen = ChosenInstructionSet();
    if (chosen == InstructionSet::kAvx512 && avx512 != nullptr) return *avx512;
    if (chosen == InstructionSet::kAvx2 && avx2 != nullptr) return *avx2;
    return *baseline;
  }

  // Those that this processor can run, best first, the baseline last; the result is their number.
  int Runnable(const Kernels* kernels[3]) const {
    int count = 0;
    if (avx512 != nullptr && CanRun(InstructionSet::kAvx512)) kernels[count++] = avx512;
    if (avx2 != nullptr && CanRun(InstructionSet::kAvx2)) kernels[count++] = avx2;
    kernels[count++] = baseline;
    return count;
  }
};

}  // namespace autoscheme::cpu
