// The DLPack interchange struct, version 1.0, as <dlpack/dlpack.h> lays it out; and tensors of ours in that form.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "autoscheme/tensor.h"

extern "C" {

struct DLPackVersion {
  uint32_t major;
  uint32_t minor;
};

struct DLDevice {
  int32_t device_type;  // 1 = CPU
  int32_t device_id;
};

struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
  uint64_t flags;
  DLTensor dl_tensor;
};

}  // extern "C"

namespace autoscheme::capi {

// A read-only tensor over `view`'s bytes. `owner` is released by the tensor's deleter. UNIMPLEMENTED for a type that
// DLPack cannot say.
absl::StatusOr<DLManagedTensorVersioned*> ToDlpack(const TensorView& view, std::shared_ptr<void> owner);

}  // namespace autoscheme::capi
