// The table's entries that are kernels of ours.
#include "cuda/cuda_device.h"
#include "cuda/kernels.h"

namespace autoscheme::cuda {
namespace {

// A launch tells of its failure by the run time's last error, so one that the host has left there is taken away first.
template <typename Call>
DeviceResult Launch(void* handle, const char* what, Call call) {
  return On(handle, what, [&](const CudaDevice& device) {
    cudaGetLastError();
    return call(device);
  });
}

// Scratch memory of kCompute's kernels, behind that of its products.
std::byte* Scratch(const CudaDevice& device) { return device.workspace + kWorkspaceBytes; }

DeviceResult QuantForward(void* handle, const cpu::Format* format, const DeviceGroups* groups, const void* x,
                          Number x_type, const float* whole, void* y, Number y_type) {
  return Launch(handle, "quantizing forward", [&](const CudaDevice& d) {
    return Forward(d.Stream(DeviceStream::kCompute), *format, *groups, x, x_type, whole, y, y_type);
  });
}

DeviceResult QuantBackward(void* handle, const cpu::Format* format, const DeviceGroups* groups, const void* x,
                           Number x_type, const void* grad, const float* whole, int32_t constant_whole, void* dx,
                           Number type) {
  return Launch(handle, "quantizing backward", [&](const CudaDevice& d) {
    return Backward(d.Stream(DeviceStream::kCompute), *format, *groups, x, x_type, grad, whole, constant_whole != 0, dx,
                    type, Scratch(d));
  });
}

DeviceResult QuantKQuant(void* handle, const cpu::KFormat* format, int64_t groups, const void* x, Number x_type,
                         const float* importance, int64_t importance_groups, void* y, Number y_type,
                         int32_t* overflowed) {
  return Launch(handle, "quantizing to a k-quant", [&](const CudaDevice& d) {
    return KQuant(d.Stream(DeviceStream::kCompute), *format, groups, x, x_type, importance, importance_groups, y,
                  y_type, overflowed);
  });
}

DeviceResult QuantAmax(void* handle, const void* x, Number x_type, int64_t count, float* most) {
  return Launch(handle, "finding the largest magnitude",
                [&](const CudaDevice& d) { return Amax(d.Stream(DeviceStream::kCompute), x, x_type, count, most); });
}

constexpr DeviceQuantApi kQuant = {QuantForward, QuantBackward, QuantKQuant, QuantAmax};

}  // namespace

void AddKernels(DeviceApi& api) {
  api.find_non_finite = [](void* handle, DeviceStream stream, const void* data, int64_t count, Number type,
                           NonFinite* found) {
    return Launch(handle, "looking for values that are not finite",
                  [&](const CudaDevice& d) { return FindNonFinite(d.Stream(stream), data, count, type, found); });
  };
  api.add_abs_products = [](void* handle, const void* grad, Number grad_type, const void* w, Number w_type,
                            const void* wq, Number wq_type, int64_t count, double* sum) {
    return Launch(handle, "summing products", [&](const CudaDevice& d) {
      return AddAbsProducts(d.Stream(DeviceStream::kCompute), grad, grad_type, w, w_type, wq, wq_type, count, sum,
                            Scratch(d));
    });
  };
  api.quant = &kQuant;
}

}  // namespace autoscheme::cuda
