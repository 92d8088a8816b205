// Precision: the number formats that a run computes in.
#ifndef AUTOSCHEME_EXEC_PRECISION_H_
#define AUTOSCHEME_EXEC_PRECISION_H_

#include <string>

#include <c10/core/ScalarType.h>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autoscheme {

struct Precision {
  std::string name = "float32";                     // the option's; never "auto"
  at::ScalarType dtype = at::ScalarType::Float;     // activations, residuals, norms, logits, products of the forward pass
  at::ScalarType operands = at::ScalarType::Float;  // of products that form gradients; their results are converted to dtype
};

// "float32"; "bfloat16"; "mixed": float32, but the backward pass multiplies bfloat16 operands; "auto": mixed where bfloat16
// is multiplied in hardware (MultipliesBfloat16() of tensor/products.h), else float32. INVALID_ARGUMENT for another name, listing
// these.
//
// Rounded operands in the forward pass as well would be faster still, but activations that are rounded there fall on
// other codes under a 4-bit scheme, and small gradients drown: on SmolLM2 scores then moved by 5 % under MXFP4 in the
// median and by half in the worst layer under W2A16. With a float32 forward pass the worst layer of all moves by 0.3 %.
absl::StatusOr<Precision> ParsePrecision(absl::string_view name);

}  // namespace autoscheme

#endif  // AUTOSCHEME_EXEC_PRECISION_H_
