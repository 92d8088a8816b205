#include "plan/precision.h"

#include "absl/strings/str_cat.h"
#include "base/io.h"

namespace autoscheme {

absl::StatusOr<Precision> ParsePrecision(absl::string_view name, bool hardware_bfloat16) {
  constexpr Dtype kWide = Dtype::kF32, kNarrow = Dtype::kBF16;
  if (name == "float32") return Precision{"float32", kWide, kWide, hardware_bfloat16};
  if (name == "bfloat16") return Precision{"bfloat16", kNarrow, kNarrow, hardware_bfloat16};
  if (name == "mixed") return Precision{"mixed", kWide, kNarrow, hardware_bfloat16};
  if (name == "auto") return ParsePrecision(hardware_bfloat16 ? "mixed" : "float32", hardware_bfloat16);
  return absl::InvalidArgumentError(
      absl::StrCat("option dtype is ", Quoted(name), "; known: float32, bfloat16, mixed, auto"));
}

}  // namespace autoscheme
