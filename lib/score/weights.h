// From raw bytes of a checkpoint to tensors of the compute dtype.
#ifndef AUTOSCHEME_SCORE_WEIGHTS_H_
#define AUTOSCHEME_SCORE_WEIGHTS_H_

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "autoscheme/tensor.h"

namespace autoscheme {

// Rows [first, first + count) of a resident matrix [rows, cols] as `dtype`. Borrows the view's bytes where the dtype is
// the same and the address is aligned, else copies. The view must hold BF16, F16 or F32.
at::Tensor LoadRows(const TensorView& view, int64_t first, int64_t count, at::ScalarType dtype);

// A whole resident tensor of any rank; the result owns its memory.
at::Tensor LoadTensor(const TensorView& view, at::ScalarType dtype);

// DATA_LOSS naming the tensor, the count and the first index when a value is NaN or infinite. Looks at the bit patterns.
absl::Status CheckFinite(const TensorView& view);

// sum |grad * (w - wq)| in double; the three have one shape. float32 products, as the reference forms them.
double SumAbsGradTimesError(const at::Tensor& grad, const at::Tensor& w, const at::Tensor& wq);

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCORE_WEIGHTS_H_
