// Small tensor expressions that the codecs share.
#pragma once

#include <ATen/core/Tensor.h>

namespace autoscheme {

// First position of the largest |x|, largest x, smallest x in each row: [rows, 1] int64. Ties go to the first.
at::Tensor FirstArgAmax(const at::Tensor& x);

// dx[r, index[r]] += value[r]; index and value [rows, 1].
void AddAt(at::Tensor& dx, const at::Tensor& index, const at::Tensor& value);

// Largest |x| of all, float32 without dimensions.
at::Tensor AmaxTensor(const at::Tensor& x);

// t rounded to `dtype`, finite values and infinities no further than its largest.
at::Tensor Saturated(const at::Tensor& t, at::ScalarType dtype);

// A number to divide a tensor like `like` by: given the number itself, CUDA's operators multiply with its reciprocal,
// which is wrong in the last bit where it is no power of two.
at::Tensor Divisor(double number, const at::Tensor& like);

// t == 0 ? 0 : 1 / t.
at::Tensor ReciprocalOrZero(const at::Tensor& t);
// |t| < 1e-30 ? 0 : 1 / t (float32).
at::Tensor ReciprocalOrZeroBelowEps(const at::Tensor& t);

// Through float8_e4m3fn and back to float32; |t| <= 448.
at::Tensor RoundE4m3(const at::Tensor& t);
// The nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6 with the sign of t, ties to even codes, at most 6 (docs/algorithm.md 1.2).
at::Tensor RoundE2m1(const at::Tensor& t);

}  // namespace autoscheme
