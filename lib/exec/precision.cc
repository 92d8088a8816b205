#include "exec/precision.h"

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "tensor/products.h"

namespace autoscheme {

absl::StatusOr<Precision> ParsePrecision(absl::string_view name) {
  constexpr at::ScalarType kWide = at::ScalarType::Float, kNarrow = at::ScalarType::BFloat16;
  if (name == "float32") return Precision{"float32", kWide, kWide};
  if (name == "bfloat16") return Precision{"bfloat16", kNarrow, kNarrow};
  if (name == "mixed") return Precision{"mixed", kWide, kNarrow};
  if (name == "auto") return ParsePrecision(MultipliesBfloat16() ? "mixed" : "float32");
  return absl::InvalidArgumentError(
      absl::StrCat("option dtype is ", Quoted(name), "; known: float32, bfloat16, mixed, auto"));
}

}  // namespace autoscheme
