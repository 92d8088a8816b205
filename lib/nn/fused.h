// Which tensors the row kernels take.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "device/torch_devices.h"
#include "nn/row_kernels.h"

namespace autoscheme {

template <typename T>
T* Data(const at::Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

// Calls body(kernels, a value of their type) and returns true where the row kernels have tensors of this kind;
// elsewhere LibTorch's operators do the same.
template <typename Body>
bool WithRowKernels(const at::Tensor& like, const Body& body) {
  if (!OnHost(like)) return false;
  if (like.scalar_type() == at::kFloat) return body(cpu::BestRowKernels().of_float, float()), true;
  if (like.scalar_type() == at::kBFloat16) return body(cpu::BestRowKernels().of_bfloat16, uint16_t()), true;
  return false;
}

// The same where all lie dense and are of one type. Undefined ones are passed over.
template <typename Body>
bool Fused(at::TensorList tensors, const Body& body) {
  const at::Tensor& like = tensors[0];
  return std::all_of(tensors.begin(), tensors.end(),
                     [&](const at::Tensor& t) {
                       return !t.defined() || (OnHost(t) && t.is_contiguous() && t.scalar_type() == like.scalar_type());
                     }) &&
         WithRowKernels(like, body);
}

}  // namespace autoscheme
