// CUDA's table of functions: the run time API, cuBLAS, and the kernels of this
// folder.
#include <memory>
#include <new>

#include "cuda/cuda_device.h"
#include "cuda/kernels.h"

namespace autoscheme::cuda {
namespace {

DeviceResult Count(int32_t* devices) {
  *devices = 0;
  int count = 0;
  const DeviceResult result = ResultOf(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (result == DeviceResult::kOk) *devices = count;
  return result;
}

// ---- opening ----

DeviceResult FindDriver(Driver* driver) {
  const struct {
    const char* name;
    unsigned since;  // the CUDA version whose form of the function is meant
    void** function;
  } wanted[] = {
      {"cuDeviceGet", 2000, reinterpret_cast<void**>(&driver->device_get)},
      {"cuDevicePrimaryCtxRetain", 7000, reinterpret_cast<void**>(&driver->primary_context_retain)},
      {"cuCtxPushCurrent", 4000, reinterpret_cast<void**>(&driver->push_context)},
      {"cuCtxPopCurrent", 4000, reinterpret_cast<void**>(&driver->pop_context)},
  };
  for (const auto& one : wanted) {
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    const DeviceResult result = ResultOf(
        cudaGetDriverEntryPointByVersion(one.name, one.function, one.since, cudaEnableDefault, &found), one.name);
    if (result != DeviceResult::kOk) return result;
    if (found != cudaDriverEntryPointSuccess) {
      return Failed(DeviceResult::kNoDriver, "the CUDA driver has no %s of version %u", one.name, one.since);
    }
  }
  return DeviceResult::kOk;
}

cublasStatus_t MakeProducts(CudaDevice& device) {
  cublasStatus_t status = cublasCreate(&device.products);
  // Choosing the stream takes the workspace away again, so it comes first.
  if (status == CUBLAS_STATUS_SUCCESS) status = cublasSetStream(device.products, cudaStreamLegacy);
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = cublasSetWorkspace(device.products, device.workspace, kWorkspaceBytes);
  }
  // Parts of a sum are not rounded to 16 bits on the way. TF32 is asked for by
  // each product.
  const auto mode = static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
  if (status == CUBLAS_STATUS_SUCCESS) status = cublasSetMathMode(device.products, mode);
  return status;
}

// The context stays: LibTorch may use it, and the host.
void Close(void* handle) {
  const std::unique_ptr<CudaDevice> device(static_cast<CudaDevice*>(handle));
  if (device == nullptr) return;
  On(device.get(), "close", [](const CudaDevice& d) {
    if (d.products != nullptr) cublasDestroy(d.products);
    if (d.up != nullptr) cudaStreamDestroy(d.up);
    if (d.down != nullptr) cudaStreamDestroy(d.down);
    return cudaFree(d.workspace);
  });
}

DeviceResult Fill(CudaDevice& device) {
  const auto stream = [&](cudaStream_t* made) {
    return On(&device, "cudaStreamCreateWithFlags",
              [&](const CudaDevice&) { return cudaStreamCreateWithFlags(made, cudaStreamNonBlocking); });
  };
  DeviceResult result = stream(&device.up);
  if (result == DeviceResult::kOk) result = stream(&device.down);
  if (result == DeviceResult::kOk) {
    result = On(&device, "cudaMalloc of workspaces", [&](const CudaDevice&) {
      return cudaMalloc(reinterpret_cast<void**>(&device.workspace), kWorkspaceBytes + kScratchBytes);
    });
  }
  if (result == DeviceResult::kOk) {
    result = On(&device, "cublasCreate", [&](const CudaDevice&) { return MakeProducts(device); });
  }
  return result == DeviceResult::kOk ? On(&device, "a first kernel", [](const CudaDevice&) { return Probe(); })
                                     : result;
}

DeviceResult Open(int32_t index, void** opened) {
  *opened = nullptr;
  std::unique_ptr<CudaDevice> device(new (std::nothrow) CudaDevice());
  if (device == nullptr) return Failed(DeviceResult::kFailed, "open: out of host memory");
  device->index = index;
  if (const DeviceResult found = FindDriver(&device->driver); found != DeviceResult::kOk) return found;
  CUdevice number = 0;
  CUresult retained = device->driver.device_get(&number, index);
  if (retained == CUDA_SUCCESS) retained = device->driver.primary_context_retain(&device->context, number);
  if (retained != CUDA_SUCCESS) {
    const bool memory = retained == CUDA_ERROR_OUT_OF_MEMORY;
    return Failed(memory ? DeviceResult::kOutOfMemory : DeviceResult::kFailed,
                  "cuDevicePrimaryCtxRetain: %s (CUDA driver error %d)",
                  memory ? "no memory for a context on the device" : "the device gives no context", retained);
  }
  const DeviceResult filled = Fill(*device);
  if (filled == DeviceResult::kOk) {
    *opened = device.release();
  } else {
    Close(device.release());
  }
  return filled;
}

DeviceResult Properties(void* handle, DeviceProperties* properties) {
  *properties = {};
  return On(handle, "cudaGetDeviceProperties", [&](const CudaDevice& d) {
    cudaDeviceProp found;
    cudaError_t error = cudaGetDeviceProperties(&found, d.index);
    if (error != cudaSuccess) return error;
    static_assert(sizeof(properties->name) <= sizeof(found.name));
    __builtin_memcpy(properties->name, found.name, sizeof(properties->name) - 1);
    properties->major = found.major, properties->minor = found.minor;
    properties->total_bytes = found.totalGlobalMem;
    error = cudaDriverGetVersion(&properties->driver);
    return error == cudaSuccess ? cudaRuntimeGetVersion(&properties->runtime) : error;
  });
}

// ---- memory ----

DeviceResult Memory(void* handle, uint64_t* free_bytes, uint64_t* process_bytes) {
  *free_bytes = *process_bytes = 0;  // what one process holds only the driver's management library tells
  return On(handle, "cudaMemGetInfo", [&](const CudaDevice&) {
    size_t free = 0, total = 0;
    const cudaError_t error = cudaMemGetInfo(&free, &total);
    *free_bytes = free;
    return error;
  });
}

DeviceResult Allocate(void* handle, size_t bytes, void** data) {
  *data = nullptr;
  return On(handle, "cudaMalloc", [&](const CudaDevice&) { return cudaMalloc(data, bytes); });
}

DeviceResult Release(void* handle, void* data) {
  return On(handle, "cudaFree", [&](const CudaDevice&) { return cudaFree(data); });
}

// Pinned for all devices, since several may be given one tile.
DeviceResult AllocatePinned(void* handle, size_t bytes, void** data) {
  *data = nullptr;
  return On(handle, "cudaHostAlloc",
            [&](const CudaDevice&) { return cudaHostAlloc(data, bytes, cudaHostAllocPortable); });
}

DeviceResult ReleasePinned(void* handle, void* data) {
  return On(handle, "cudaFreeHost", [&](const CudaDevice&) { return cudaFreeHost(data); });
}

DeviceResult Pin(void* handle, void* data, size_t bytes) {
  return On(handle, "cudaHostRegister",
            [&](const CudaDevice&) { return cudaHostRegister(data, bytes, cudaHostRegisterPortable); });
}

DeviceResult Unpin(void* handle, void* data) {
  return On(handle, "cudaHostUnregister", [&](const CudaDevice&) { return cudaHostUnregister(data); });
}

// ---- streams and events ----

DeviceResult CopyUp(void* handle, DeviceStream stream, void* to, const void* from, size_t bytes) {
  return On(handle, "cudaMemcpyAsync to the device", [&](const CudaDevice& d) {
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, d.Stream(stream));
  });
}

DeviceResult CopyDown(void* handle, DeviceStream stream, void* to, const void* from, size_t bytes) {
  return On(handle, "cudaMemcpyAsync from the device", [&](const CudaDevice& d) {
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, d.Stream(stream));
  });
}

DeviceResult Synchronize(void* handle, DeviceStream stream) {
  return On(handle, "cudaStreamSynchronize",
            [&](const CudaDevice& d) { return cudaStreamSynchronize(d.Stream(stream)); });
}

// A thread that waits for one sleeps. It keeps the time for Elapsed.
DeviceResult CreateEvent(void* handle, void** event) {
  *event = nullptr;
  return On(handle, "cudaEventCreateWithFlags", [&](const CudaDevice&) {
    return cudaEventCreateWithFlags(reinterpret_cast<cudaEvent_t*>(event), cudaEventBlockingSync);
  });
}

DeviceResult DestroyEvent(void* handle, void* event) {
  return On(handle, "cudaEventDestroy",
            [&](const CudaDevice&) { return cudaEventDestroy(static_cast<cudaEvent_t>(event)); });
}

DeviceResult Record(void* handle, DeviceStream stream, void* event) {
  return On(handle, "cudaEventRecord",
            [&](const CudaDevice& d) { return cudaEventRecord(static_cast<cudaEvent_t>(event), d.Stream(stream)); });
}

DeviceResult StreamWait(void* handle, DeviceStream stream, void* event) {
  return On(handle, "cudaStreamWaitEvent", [&](const CudaDevice& d) {
    return cudaStreamWaitEvent(d.Stream(stream), static_cast<cudaEvent_t>(event), 0);
  });
}

DeviceResult Wait(void* handle, void* event) {
  return On(handle, "cudaEventSynchronize",
            [&](const CudaDevice&) { return cudaEventSynchronize(static_cast<cudaEvent_t>(event)); });
}

DeviceResult Elapsed(void* handle, void* from, void* to, double* seconds) {
  *seconds = 0;
  return On(handle, "cudaEventElapsedTime", [&](const CudaDevice&) {
    float milliseconds = 0;
    const cudaError_t error =
        cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(from), static_cast<cudaEvent_t>(to));
    *seconds = milliseconds / 1e3;
    return error;
  });
}

DeviceApi MakeTable() {
  DeviceApi api = {};
  api.version = kDeviceApiVersion, api.bytes = sizeof(DeviceApi), api.name = "cuda";
  api.count = Count, api.open = Open, api.close = Close;
  api.last_error = LastError;
  api.properties = Properties, api.memory = Memory;
  api.allocate = Allocate, api.release = Release;
  api.allocate_pinned = AllocatePinned, api.release_pinned = ReleasePinned;
  api.pin = Pin, api.unpin = Unpin;
  api.copy_up = CopyUp, api.copy_down = CopyDown, api.synchronize = Synchronize;
  api.create_event = CreateEvent, api.destroy_event = DestroyEvent;
  api.record = Record, api.stream_wait = StreamWait, api.wait = Wait, api.elapsed = Elapsed;
  api.multiply = Multiply;
  AddKernels(api);
  return api;
}

}  // namespace
}  // namespace autoscheme::cuda

// The only name that the plugin exports: kDeviceApiSymbol.
extern "C" __attribute__((visibility("default"))) const autoscheme::DeviceApi* autoscheme_device_api() {
  static const autoscheme::DeviceApi api = autoscheme::cuda::MakeTable();
  return &api;
}
