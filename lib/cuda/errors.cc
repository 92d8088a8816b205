// The result of a call as device_api.h has it, and the line that says what was met.
#include <cstdarg>
#include <cstdio>

#include "cuda/cuda_device.h"

namespace autoscheme::cuda {
namespace {

thread_local char last_error[512] = "no call has failed";

// After a fault the context gives an error to whatever it is asked. Asking does not wait.
bool IsBroken() {
  cudaGetLastError();
  const cudaError_t error = cudaStreamQuery(cudaStreamLegacy);
  if (error == cudaSuccess) return false;
  cudaGetLastError();
  return error != cudaErrorNotReady;
}

DeviceResult OutOfMemory(const char* what) {
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) {
    cudaGetLastError();
    return Failed(DeviceResult::kOutOfMemory, "%s: out of memory", what);
  }
  return Failed(DeviceResult::kOutOfMemory, "%s: out of memory: %zu of its %zu bytes are free", what, free, total);
}

// Without a driver that is new enough nothing was asked of a device.
DeviceResult NoDriver(const char* what) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  cudaGetLastError();
  if (driver == 0) {
    return Failed(DeviceResult::kNoDriver,
                  "%s: there is no CUDA driver (libcuda.so.1) on this machine; CUDA %d.%d needs driver 580 or later",
                  what, runtime / 1000, runtime % 1000 / 10);
  }
  return Failed(DeviceResult::kNoDriver,
                "%s: the driver is for CUDA %d.%d, too old for CUDA %d.%d, which needs driver 580 or later", what,
                driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
}

}  // namespace

DeviceResult Failed(DeviceResult result, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof(last_error), format, arguments);
  va_end(arguments);
  return result;
}

const char* LastError() { return last_error; }

DeviceResult ResultOf(cudaError_t error, const char* what) {
  switch (error) {
    case cudaSuccess: return DeviceResult::kOk;
    case cudaErrorInsufficientDriver: return NoDriver(what);
    case cudaErrorNoDevice:
      cudaGetLastError();
      return Failed(DeviceResult::kNoDevice,
                    "%s: the CUDA driver finds no device; CUDA_VISIBLE_DEVICES and the container decide which it sees",
                    what);
    case cudaErrorMemoryAllocation:
      if (IsBroken()) break;
      return OutOfMemory(what);
    case cudaErrorNoKernelImageForDevice:
      cudaGetLastError();
      return Failed(DeviceResult::kFailed,
                    "%s: this plugin has no code for the device: build it with CMAKE_CUDA_ARCHITECTURES naming it",
                    what);
    default: break;
  }
  const DeviceResult result = IsBroken() ? DeviceResult::kBroken : DeviceResult::kFailed;
  return Failed(result, "%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

DeviceResult ResultOf(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return DeviceResult::kOk;
  if (IsBroken()) {
    return Failed(DeviceResult::kBroken, "%s: %s, after a fault", what, cublasGetStatusString(status));
  }
  if (status == CUBLAS_STATUS_ALLOC_FAILED) return OutOfMemory(what);
  return Failed(DeviceResult::kFailed, "%s: %s", what, cublasGetStatusString(status));
}

}  // namespace autoscheme::cuda
