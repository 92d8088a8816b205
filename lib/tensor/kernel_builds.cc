#include "tensor/kernel_builds.h"

#include <ATen/Version.h>

#include <string>

namespace autoscheme::cpu {

InstructionSet ChosenInstructionSet() {
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return InstructionSet::kAvx512;
  if (capability == "AVX2") return InstructionSet::kAvx2;
  return InstructionSet::kBaseline;
}

bool CanRun(InstructionSet set) {
#if defined(__x86_64__)
  if (set == InstructionSet::kAvx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  if (set == InstructionSet::kAvx2) return __builtin_cpu_supports("avx2");
#endif
  return set == InstructionSet::kBaseline;
}

}  // namespace autoscheme::cpu
