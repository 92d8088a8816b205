// From raw bytes of a checkpoint to tensors of the compute dtype.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/status.h"
#include "autoscheme/tensor.h"

namespace autoscheme {

// The tensor is BF16, F16 or F32.
at::ScalarType TorchType(Dtype dtype);

// A matrix [rows, cols] of `stored` values (BF16, F16 or F32), in that type, of bytes in the memory of `device`.
// Borrows the bytes where their address is aligned, else copies.
at::Tensor StoredRows(const std::byte* data, Dtype stored, int64_t rows, int64_t cols, at::Device device = at::kCPU);

// A whole resident tensor of any rank, likewise; the result owns its memory.
at::Tensor LoadTensor(const TensorView& view, at::ScalarType dtype, at::Device device = at::kCPU);

// DATA_LOSS naming the tensor, the count and the first index when a value is NaN or infinite. Looks at the bit
// patterns.
absl::Status CheckFinite(const TensorView& view);

// sum += sum |grad * (w - wq)|. `sum` is one double that lies where `grad` does; the three have one shape, each a dtype
// of its own. float32 products, as the reference forms them. On a device the work is only given to it.
void AddAbsGradTimesError(const at::Tensor& sum, const at::Tensor& grad, const at::Tensor& w, const at::Tensor& wq);
// The same from zero, waited for.
double SumAbsGradTimesError(const at::Tensor& grad, const at::Tensor& w, const at::Tensor& wq);

}  // namespace autoscheme
