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
  bool hardware_bfloat16 = false;  // where the processor cannot multiply bfloat16, operands are widened to float32

  uint64_t element_bytes() const { return DtypeBits(dtype) / 8; }
  uint64_t operand_bytes() const { return DtypeBits(operands) / 8; }
  bool rounds_operands() const { return operands != dtype; }
  bool widens_operands() const { return operands == Dtype::kBF16 && !hardware_bfloat16; }
};

// "float32"; "bfloat16"; "mixed": float32, but the backward pass multiplies bfloat16 operands; "auto": mixed where the
// hardware multiplies bfloat16, else float32. INVALID_ARGUMENT for another name, listing these.
//
// Rounded operands in the forward pass as well would be faster still, but activations that are rounded there fall on
// other codes under a 4-bit scheme, and small gradients drown: on SmolLM2 scores then moved by 5 % under MXFP4 in the
// median and by half in the worst layer under W2A16. With a float32 forward pass the worst layer of all moves by 0.3 %.
absl::StatusOr<Precision> ParsePrecision(absl::string_view name, bool hardware_bfloat16);

}  // namespace autoscheme
