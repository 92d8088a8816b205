// Quant-dequant: what a scheme does to a weight or an activation, forward and backward (docs/algorithm.md 4, 5).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "autoscheme/scheme.h"

namespace autoscheme {

// The weight side of a scheme. Stateless but for what Prepare computes; free to share between threads after Prepare.
class WeightQuantizer {
 public:
  virtual ~WeightQuantizer() = default;

  // INVALID_ARGUMENT when the scheme cannot hold a weight of that shape (k-quants need whole super-groups). Forward and
  // Backward may only be called for shapes that pass.
  virtual absl::Status CheckShape(int64_t /*out_features*/, int64_t /*in_features*/) const { return absl::OkStatus(); }

  // Rows come in chunks: a chunk's height must be a multiple of this, but for the last chunk of a weight (1 for groups
  // along the row, the tile height for 2-D groups, the groups in a super-group, 0 = only the whole weight at once).
  virtual int64_t row_multiple() const { return 1; }

  // True when Prepare must see the whole weight first (a scale shared by the whole tensor).
  virtual bool needs_whole_tensor() const { return false; }
  // The part that depends on the whole weight [out, in], to hand to Forward: the largest magnitude, or undefined. A
  // weight may be shown by row chunks: the maximum of their results is the whole weight's.
  virtual at::Tensor Prepare(const at::Tensor& weight) const;

  // Quant-dequant of a row chunk [rows, in], float32, bfloat16 or float16 -> same shape and dtype; no autograd.
  // bfloat16 is worked as docs/algorithm.md 1.3 says, float16 as float32. `prepared` is what Prepare gave for
  // the whole weight.
  virtual at::Tensor Forward(const at::Tensor& rows, const at::Tensor& prepared) const = 0;

  // Forward(rows as float32) rounded to the dtype of `out`: float32 or bfloat16, of the shape of `rows`, contiguous;
  // finite values that would round past its largest become that. `rows` as they are stored, float32, bfloat16 or
  // float16: no float32 copy of them is made.
  virtual void ForwardInto(const at::Tensor& rows, const at::Tensor& prepared, at::Tensor& out) const;

  // dL/dW for dL/dWq = grad. Scoring does not need it (its gradient ends at Wq); the fixtures and tuning hosts do.
  // Where one group spans the tensor, `rows` must be the whole weight. k-quants: grad itself (their Wq is a constant).
  virtual at::Tensor Backward(const at::Tensor& rows, const at::Tensor& prepared, const at::Tensor& grad) const = 0;
};

// What the height of a chunk of rows must be a multiple of for the quantizer, which may be null, and for what asks for
// `multiple`; 0 = only the whole weight at once.
int64_t CommonRowMultiple(int64_t multiple, const WeightQuantizer* quantizer);

// Whether the quantizer, which may be null, needs the whole weight prepared; and, if it does, takes `rows`, the next of
// them, into `prepared`, which is undefined at first.
bool NeedsPreparing(const WeightQuantizer* quantizer);
void PrepareRows(const WeightQuantizer* quantizer, const at::Tensor& rows, at::Tensor& prepared);

// The activation side. x: [..., features]; the whole live tensor at once (some scales span the batch).
class ActivationQuantizer {
 public:
  virtual ~ActivationQuantizer() = default;
  virtual at::Tensor Forward(const at::Tensor& x) const = 0;
  // Writes into `out` as WeightQuantizer::ForwardInto does.
  virtual void ForwardInto(const at::Tensor& x, at::Tensor& out) const = 0;
  // dL/dx for dL/dxq = grad (docs/algorithm.md 5). Zero groups give finite gradients (docs/algorithm.md 5.1).
  virtual at::Tensor Backward(const at::Tensor& x, const at::Tensor& grad) const = 0;
};

// Null when the scheme leaves that side alone (16 bits). `imatrix`: sum of squares of each input channel, float32 [in];
// schemes that have no use for it (UsesImatrix) ignore it. Undefined: none.
absl::StatusOr<std::unique_ptr<WeightQuantizer>> MakeWeightQuantizer(const Scheme& scheme,
                                                                     const at::Tensor& imatrix = {});
absl::StatusOr<std::unique_ptr<ActivationQuantizer>> MakeActivationQuantizer(const Scheme& scheme);

}  // namespace autoscheme
