// The kernels of kernels.h over whole matrices: rows, ragged last groups, tiles, dtypes and threads; or, for tensors of
// a device that has such loops (DeviceQuantApi), those.
//
// x is a contiguous tensor, not empty, seen as a matrix of its last dimension: float32, bfloat16 or float16, read as
// float32. y and dx are contiguous, of x's shape, float32 or bfloat16. Results do not depend on the number of threads.
#pragma once

#include <ATen/core/Tensor.h>

#include "autoscheme/scheme.h"
#include "quant/kernels.h"

namespace autoscheme {

// True for an x that the functions below take, and for such a pair of x and y.
bool Fusable(const at::Tensor& x);
bool FusableInto(const at::Tensor& x, const at::Tensor& y);

// The largest magnitude of x, NaN where there is one: one float32, where x lies.
at::Tensor Amax(const at::Tensor& x);

// Groups of `group`; size 0 (one for the tensor) and 2-D tiles only for Family::kFp8. `whole`: Amax of the
// tensor, where the family or the group size needs it; else undefined.
void FusedForward(const cpu::Format& format, const GroupSize& group, const at::Tensor& x, const at::Tensor& whole,
                  at::Tensor& y);

// dL/dx for dL/dy = grad, both of dx's dtype. Where a scale spans the tensor and `constant_whole` is false, a gradient
// flows through it. Not for tiles.
void FusedBackward(const cpu::Format& format, const GroupSize& group, const at::Tensor& x, const at::Tensor& grad,
                   const at::Tensor& whole, bool constant_whole, at::Tensor& dx);

// k-quants. `importance`: float32, one weight for each element of groups that repeat (a row, or all of x);
// undefined: without. The groups of x must fill its super-groups. False where a result is not finite; y is then of no
// use. Waits for the device.
bool FusedKQuant(const cpu::KFormat& format, const at::Tensor& x, const at::Tensor& importance, at::Tensor& y);

}  // namespace autoscheme
