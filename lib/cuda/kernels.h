// The loops of lib/quant and two sums on a CUDA device: DeviceQuantApi, add_abs_products and find_non_finite of
// DeviceApi, which say what each does. Here work is given to a stream of the current device. Everything that a pointer
// leads to but `format` and `groups` lies in the device's memory.
//
// Compiled without contraction and flushing, with exact quotients: results are those of the CPU to the bit, but for the
// sums of AddAbsProducts and of one scale per tensor, whose order is their own and always the same.
// cudaErrorInvalidValue: the arguments are none that the function takes.
#pragma once

#include <cuda_runtime_api.h>
#include <stddef.h>

#include "device/device_api.h"
#include "quant/device_quant_api.h"

namespace autoscheme::cuda {

// Where partial sums lie, aligned to 8 bytes; given to one stream's work at a time. Nothing is kept in it from one call
// to the next.
inline constexpr size_t kScratchBytes = 64 * 1024;

cudaError_t Forward(cudaStream_t stream, const cpu::Format& format, const DeviceGroups& groups, const void* x,
                    Number x_type, const float* whole, void* y, Number y_type);
cudaError_t Backward(cudaStream_t stream, const cpu::Format& format, const DeviceGroups& groups, const void* x,
                     Number x_type, const void* grad, const float* whole, bool constant_whole, void* dx, Number type,
                     void* scratch);
cudaError_t KQuant(cudaStream_t stream, const cpu::KFormat& format, int64_t groups, const void* x, Number x_type,
                   const float* importance, int64_t importance_groups, void* y, Number y_type, int32_t* overflowed);
cudaError_t Amax(cudaStream_t stream, const void* x, Number x_type, int64_t count, float* most);

cudaError_t AddAbsProducts(cudaStream_t stream, const void* grad, Number grad_type, const void* w, Number w_type,
                           const void* wq, Number wq_type, int64_t count, double* sum, void* scratch);
cudaError_t FindNonFinite(cudaStream_t stream, const void* data, int64_t count, Number type, NonFinite* found);

}  // namespace autoscheme::cuda
