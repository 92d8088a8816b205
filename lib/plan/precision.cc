#include "plan/precision.h"

#include "absl/strings/str_cat.h"
#include "base/io.h"

namespace autoscheme {

absl::StatusOr<Precision> ParsePrecision(absl::string_view name, PrecisionOf computes) {
  constexpr Dtype kWide = Dtype::kF32, kNarrow = Dtype::kBF16;
  // Nothing is widened on a GPU: those that are supported multiply bfloat16, or their library does it for them.
  const bool multiplies = computes.gpu || computes.bfloat16;
  const char* best = computes.gpu ? "tf32" : "float32";
  if (name == "default") return ParsePrecision(best, computes);
  if (name == "auto") return ParsePrecision(!computes.gpu && computes.bfloat16 ? "mixed" : best, computes);
  if (name == "float32") return Precision{"float32", kWide, kWide, false, multiplies};
  if (name == "bfloat16") return Precision{"bfloat16", kNarrow, kNarrow, false, multiplies};
  if (name == "mixed") return Precision{"mixed", kWide, kNarrow, false, multiplies};
  if (name == "tf32" && computes.gpu) return Precision{"tf32", kWide, kWide, true, multiplies};
  if (name == "tf32") {
    return absl::InvalidArgumentError(
        "option dtype is 'tf32', which a GPU computes in and this run's device, a processor, does not; give float32");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("option dtype is ", Quoted(name), "; known: default, float32, tf32, bfloat16, mixed, auto"));
}

}  // namespace autoscheme
