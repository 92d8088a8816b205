// What the plugin's functions share: an opened device, and how results of CUDA become those of device_api.h.
#pragma once

#include <cublas_v2.h>
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "device/device_api.h"

namespace autoscheme::cuda {

// Memory that cuBLAS works in, so that it allocates nothing; what it recommends for Hopper.
inline constexpr size_t kWorkspaceBytes = size_t{32} << 20;

// Functions of the driver, which is linked to by nobody: it need not be there.
struct Driver {
  CUresult (*device_get)(CUdevice* device, int ordinal);
  CUresult (*primary_context_retain)(CUcontext* context, CUdevice device);
  CUresult (*push_context)(CUcontext context);
  CUresult (*pop_context)(CUcontext* context);
};

struct CudaDevice {
  Driver driver = {};
  int index = 0;
  CUcontext context = nullptr;  // the primary one, which LibTorch uses too
  cudaStream_t up = nullptr, down = nullptr;
  std::byte* workspace = nullptr;  // kWorkspaceBytes, and kScratchBytes of kernels.h behind them
  cublasHandle_t products = nullptr;

  // kCompute is the stream on which LibTorch computes unless it is told otherwise.
  cudaStream_t Stream(DeviceStream stream) const {
    return stream == DeviceStream::kUp ? up : stream == DeviceStream::kDown ? down : cudaStreamLegacy;
  }
};

// Keeps a line for last_error of the calling thread, made as printf does, and gives `result`.
__attribute__((format(printf, 2, 3))) DeviceResult Failed(DeviceResult result, const char* format, ...);
// What Failed kept last. Never null.
const char* LastError();

// `what` is the function that gave `error`. Leaves no error behind in the run time, where that can be helped. To be
// called while the device is the thread's current one.
DeviceResult ResultOf(cudaError_t error, const char* what);
DeviceResult ResultOf(cublasStatus_t status, const char* what);

// The result of call(device), which gives a cudaError_t or a cublasStatus_t, with the device the thread's current one
// meanwhile. What was current before is so again afterwards; a device that the host never used stays unused.
template <typename Call>
DeviceResult On(void* handle, const char* what, Call call) {
  const auto& device = *static_cast<const CudaDevice*>(handle);
  if (const CUresult pushed = device.driver.push_context(device.context); pushed != CUDA_SUCCESS) {
    return Failed(DeviceResult::kBroken, "%s: the device's context is gone (CUDA driver error %d)", what, pushed);
  }
  const DeviceResult result = ResultOf(call(device), what);
  CUcontext popped;
  device.driver.pop_context(&popped);
  return result;
}

// Whether this plugin has code for the current device, and the device runs it. Waits for the device.
cudaError_t Probe();

// The entries of the table that are kernels of this folder.
void AddKernels(DeviceApi& api);

// DeviceApi::multiply.
DeviceResult Multiply(void* device, const DeviceMatrix* out, const DeviceMatrix* a, const DeviceMatrix* b,
                      ProductType type, int32_t add);

}  // namespace autoscheme::cuda
