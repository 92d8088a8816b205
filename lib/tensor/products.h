// Matrix products, of bfloat16 numbers also where the processor cannot multiply those.
//
// LibTorch does it there one number at a time and in one thread, which takes hundreds of times as long as in float32.
// So panels of the operands are widened to float32 and multiplied; sums are rounded once, as bfloat16 instructions
// round them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "device/device_api.h"
#include "tensor/widened.h"

namespace autoscheme {

// Whether LibTorch multiplies bfloat16 numbers by instructions for them: the processor has some (AVX512_BF16, as every
// one with AMX does), and ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA and DNNL_MAX_CPU_ISA do not keep it from them.
bool MultipliesBfloat16();

// The same for given settings. `capability`: LibTorch's own instruction set ("AVX512", "AVX2", ...); `onednn_most`: the
// value of ONEDNN_MAX_CPU_ISA, upper or lower case; a name that oneDNN does not know (or an empty one) limits nothing
// there.
bool MultipliesBfloat16(bool processor_does, const std::string& capability, const std::string& onednn_most);

// out = a b; out += a b. Matrices of one dtype, each of which may be a view. `type` is for devices that have products
// of their own, which also take an `out` of float32 for narrower a and b; the processor's are exact.
void Multiply(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, ProductType type = ProductType::kExact);
void AddMultiplied(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, ProductType type = ProductType::kExact);

// What these two do with bfloat16 where MultipliesBfloat16() is false.
void MultiplyWidened(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool add);

}  // namespace autoscheme
