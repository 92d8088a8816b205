// The differentiable operations that blocks are made of. Each keeps for the backward pass only what it needs; what
// NormBranches and Activated give can be made again from that (RecomputableNode).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/decoder_spec.h"

namespace autoscheme {

// A Norm and its tensors, in the compute dtype. Weight and bias may be undefined.
struct LoadedNorm {
  Norm norm;
  at::Tensor weight, bias;
};

// The norm over the last dimension of the weight; a weight [heads, n] is for x [..., heads * n]. Moments in float32.
// Gradient for x only.
at::Tensor Normed(const LoadedNorm& norm, const at::Tensor& x);

// The same once, for `count` readers, and x for the residual path: what flows back from all of them is summed in one
// pass.
struct NormedBranches {
  at::Tensor x;
  std::vector<at::Tensor> normed;  // all in one memory
};
NormedBranches NormBranches(const LoadedNorm& norm, const at::Tensor& x, int64_t count);

// activation(gate) * up; activation(up) where gate is undefined.
at::Tensor Activated(Activation activation, const at::Tensor& gate, const at::Tensor& up);

// Columns of x [..., groups * sum of widths]: result i is [..., groups * widths[i]], the i-th part of every group.
std::vector<at::Tensor> Split(const at::Tensor& x, int64_t groups, const std::vector<int64_t>& widths);

// x + scale * (sum of changes). `residual_last`: x is added last.
at::Tensor Residual(const at::Tensor& x, const std::vector<at::Tensor>& changes, double scale = 1,
                    bool residual_last = false);

// The value, and d activation(x) / dx * grad. Without autograd.
at::Tensor ActivationValue(Activation activation, const at::Tensor& x);
at::Tensor ActivationGradient(Activation activation, const at::Tensor& grad, const at::Tensor& x);

}  // namespace autoscheme
