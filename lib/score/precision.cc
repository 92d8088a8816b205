#include "score/precision.h"

#include "absl/strings/str_cat.h"
#include "base/io.h"

namespace autoscheme {

absl::StatusOr<Precision> ParsePrecision(absl::string_view name) {
  constexpr at::ScalarType kWide = at::ScalarType::Float, kNarrow = at::ScalarType::BFloat16;
  if (name == "float32") return Precision{"float32", kWide, kWide};
  if (name == "bfloat16") return Precision{"bfloat16", kNarrow, kNarrow};
  if (name == "mixed") return Precision{"mixed", kWide, kNarrow};
  if (name == "auto") return ParsePrecision(CpuMultipliesBfloat16() ? "mixed" : "float32");
  return absl::InvalidArgumentError(
      absl::StrCat("option dtype is ", Quoted(name), "; known: float32, bfloat16, mixed, auto"));
}

bool CpuMultipliesBfloat16() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace autoscheme
