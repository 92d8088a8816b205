#include "cuda/fake_run_time.h"

#include <cuda.h>

#include <cstdlib>
#include <cstring>

#include "cuda/cuda_device.h"

namespace autoscheme::cuda {

FakeRunTime& Fake() {
  static FakeRunTime fake;
  return fake;
}

cudaError_t Probe() { return cudaStreamSynchronize(cudaStreamLegacy); }

void AddKernels(DeviceApi&) {}

}  // namespace autoscheme::cuda

namespace {

using autoscheme::cuda::Fake;

cudaError_t pending = cudaSuccess;  // what cudaGetLastError gives

cudaError_t Call() {
  auto& fake = Fake();
  const bool fails = ++fake.calls == fake.failing || (fake.sticky && fake.failing > 0 && fake.calls > fake.failing);
  if (fails) pending = fake.error;
  return fails ? fake.error : cudaSuccess;
}

template <typename T>
cudaError_t MakeOne(T* made, size_t bytes = 1) {
  const cudaError_t error = Call();
  if (error == cudaSuccess) ++Fake().held, *made = static_cast<T>(malloc(bytes));
  return error;
}

// As the real ones, they take null. They destroy even when they tell of an earlier fault.
cudaError_t DestroyOne(void* one) {
  if (one != nullptr) --Fake().held;
  free(one);
  return Call();
}

cublasStatus_t Status(cudaError_t error) {
  return error == cudaSuccess                 ? CUBLAS_STATUS_SUCCESS
         : error == cudaErrorMemoryAllocation ? CUBLAS_STATUS_ALLOC_FAILED
                                              : CUBLAS_STATUS_EXECUTION_FAILED;
}

CUresult DeviceGet(CUdevice* device, int ordinal) { return *device = ordinal, CUDA_SUCCESS; }
CUresult Retain(CUcontext* context, CUdevice device) {
  static char contexts[2];
  *context = reinterpret_cast<CUcontext>(&contexts[device]);
  return Call() == cudaSuccess ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
CUresult Push(CUcontext context) {
  auto& fake = Fake();
  fake.contexts.push_back(context);
  fake.most_contexts = std::max<int>(fake.most_contexts, fake.contexts.size());
  return CUDA_SUCCESS;
}
CUresult Pop(CUcontext* context) {
  *context = static_cast<CUcontext>(Fake().contexts.back());
  Fake().contexts.pop_back();
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

cudaError_t cudaGetLastError() {
  const cudaError_t error = pending;
  if (!Fake().sticky) pending = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t) { return "an error"; }
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorOfATest"; }
const char* cublasGetStatusString(cublasStatus_t) { return "a status"; }
cudaError_t cudaStreamQuery(cudaStream_t) { return pending; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = Fake().driver, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 2;
  return Fake().driver < 13000 ? cudaErrorInsufficientDriver : Call();
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  const struct {
    const char* name;
    void* function;
  } known[] = {{"cuDeviceGet", reinterpret_cast<void*>(DeviceGet)},
               {"cuDevicePrimaryCtxRetain", reinterpret_cast<void*>(Retain)},
               {"cuCtxPushCurrent", reinterpret_cast<void*>(Push)},
               {"cuCtxPopCurrent", reinterpret_cast<void*>(Pop)}};
  *found = cudaDriverEntryPointSymbolNotFound;
  for (const auto& one : known) {
    if (strcmp(name, one.name) == 0) *function = one.function, *found = cudaDriverEntryPointSuccess;
  }
  return Call();
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index) {
  memset(properties, 0, sizeof(*properties));
  memset(properties->name, 'n', sizeof(properties->name) - 1);  // longer than the table has room for
  properties->major = 9, properties->minor = index, properties->totalGlobalMem = size_t{80} << 30;
  return Call();
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) { return *free = 100, *total = 200, cudaSuccess; }
cudaError_t cudaMalloc(void** data, size_t bytes) { return MakeOne(data, bytes); }
cudaError_t cudaFree(void* data) { return DestroyOne(data); }
cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) { return MakeOne(data, bytes); }
cudaError_t cudaFreeHost(void* data) { return DestroyOne(data); }
cudaError_t cudaHostRegister(void*, size_t, unsigned) { return Call(); }
cudaError_t cudaHostUnregister(void*) { return Call(); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return MakeOne(reinterpret_cast<void**>(stream));
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return DestroyOne(stream); }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return Call(); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  const cudaError_t error = Call();
  if (error == cudaSuccess) memcpy(to, from, bytes);
  return error;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return MakeOne(reinterpret_cast<void**>(event)); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return DestroyOne(event); }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return Call(); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return Call(); }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return Call(); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) { return *milliseconds = 1500, Call(); }

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) { return Status(MakeOne(reinterpret_cast<void**>(handle))); }
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) { return Status(DestroyOne(handle)); }
cublasStatus_t cublasSetStream_v2(cublasHandle_t, cudaStream_t) {
  Fake().workspace = nullptr;
  return Status(Call());
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void* workspace, size_t) {
  Fake().workspace = workspace;
  return Status(Call());
}
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return Status(Call()); }

// By columns, as cuBLAS documents it; float32 alone is computed.
cublasStatus_t cublasGemmEx_64(cublasHandle_t, cublasOperation_t op_a, cublasOperation_t op_b, int64_t m, int64_t n,
                               int64_t k, const void* alpha, const void* a, cudaDataType a_type, int64_t lda,
                               const void* b, cudaDataType b_type, int64_t ldb, const void* beta, void* c,
                               cudaDataType c_type, int64_t ldc, cublasComputeType_t compute, cublasGemmAlgo_t) {
  Fake().compute = compute;
  if (lda < std::max<int64_t>(1, op_a == CUBLAS_OP_N ? m : k) ||
      ldb < std::max<int64_t>(1, op_b == CUBLAS_OP_N ? k : n) || ldc < std::max<int64_t>(1, m) || a_type != b_type) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (const cudaError_t error = Call(); error != cudaSuccess) return Status(error);
  if (a_type != CUDA_R_32F || c_type != CUDA_R_32F) return CUBLAS_STATUS_SUCCESS;
  const auto *x = static_cast<const float*>(a), *y = static_cast<const float*>(b);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t l = 0; l < k; ++l) {
        sum += (op_a == CUBLAS_OP_N ? x[i + l * lda] : x[l + i * lda]) *
               (op_b == CUBLAS_OP_N ? y[l + j * ldb] : y[j + l * ldb]);
      }
      float& out = static_cast<float*>(c)[i + j * ldc];
      const float before = *static_cast<const float*>(beta);
      out = *static_cast<const float*>(alpha) * sum + (before == 0 ? 0 : before * out);
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
