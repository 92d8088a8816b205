// Precision: the number formats that a run computes in.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "autoscheme/tensor.h"

namespace autoscheme {

struct Precision {
  std::string name = "float32";    // the option's; never "auto"
  Dtype dtype = Dtype::kF32;       // activations, residuals, norms, logits, products of the forward pass
  Dtype operands = Dtype::kF32;    // factors of products that form gradients; their results are converted to dtype
  bool tf32_gradients = false;     // products that form gradients round their factors to TF32; on a GPU
  bool hardware_bfloat16 = false;  // where the processor cannot multiply bfloat16, operands are widened to float32

  uint64_t element_bytes() const { return DtypeBits(dtype) / 8; }
  uint64_t operand_bytes() const { return DtypeBits(operands) / 8; }
  bool rounds_operands() const { return operands != dtype; }
  bool widens_operands() const { return operands == Dtype::kBF16 && !hardware_bfloat16; }
};

// What a run computes on, as far as number formats depend on it.
struct PrecisionOf {
  bool gpu = false;
  bool bfloat16 = false;  // the processor multiplies bfloat16; without a GPU
};

// "float32"; "bfloat16"; "mixed": float32, but the backward pass multiplies bfloat16 operands; "tf32": the same with
// operands that a GPU rounds to TF32 as it multiplies; "auto": tf32 on a GPU, mixed where the processor multiplies
// bfloat16, else float32; "default": tf32 on a GPU, else float32. INVALID_ARGUMENT for another name, listing these, and
// for tf32 without a GPU.
//
// Rounded operands in the forward pass as well would be faster still, but activations that are rounded there fall on
// other codes under a 4-bit scheme, and small gradients drown: on SmolLM2 scores then moved by 5 % under MXFP4 in the
// median and by half in the worst layer under W2A16. With a float32 forward pass the worst layer of all moves by 0.3 %.
absl::StatusOr<Precision> ParsePrecision(absl::string_view name, PrecisionOf computes);

}  // namespace autoscheme
