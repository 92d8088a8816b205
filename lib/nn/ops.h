// The differentiable operations that blocks are made of. Each keeps for the backward pass only what it needs; what
// RmsNormBranches and SwiGlu give can be made again from that (RecomputableNode).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace autoscheme {

// x / rms(x) * weight over the last dimension; the mean square in float32, the weight applied in x's dtype.
// Gradient for x only.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps);

// The same once, for `count` readers, and x for the residual path: what flows back from all of them is summed in one
// pass.
struct NormedBranches {
  at::Tensor x;
  std::vector<at::Tensor> normed;  // all in one memory
};
NormedBranches RmsNormBranches(const at::Tensor& x, const at::Tensor& weight, double eps, int64_t count);

// silu(gate) * up.
at::Tensor SwiGlu(const at::Tensor& gate, const at::Tensor& up);

// x + change.
at::Tensor Residual(const at::Tensor& x, const at::Tensor& change);

}  // namespace autoscheme
