#include "dlpack.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

static_assert(sizeof(void*) != 8 || (sizeof(DLTensor) == 48 && sizeof(DLManagedTensorVersioned) == 80 &&
                                     offsetof(DLManagedTensorVersioned, deleter) == 16 &&
                                     offsetof(DLManagedTensorVersioned, flags) == 24 &&
                                     offsetof(DLManagedTensorVersioned, dl_tensor) == 32),
              "the layout is DLPack's");

namespace autoscheme::capi {
namespace {

constexpr uint64_t kReadOnly = 1;
constexpr int32_t kCpu = 1;

// What one tensor owns: the struct handed out, its shape, and whatever keeps the bytes alive.
struct Managed {
  DLManagedTensorVersioned tensor{};
  std::vector<int64_t> shape, strides;
  std::shared_ptr<void> owner;
};

void Delete(DLManagedTensorVersioned* self) { delete static_cast<Managed*>(self->manager_ctx); }

// DLDataTypeCode: kDLInt 0, kDLUInt 1, kDLFloat 2, kDLBfloat 4, kDLComplex 5, kDLBool 6, the 8-bit floats 10 to 14, the
// 6-bit ones 15 and 16, kDLFloat4_e2m1fn 17.
std::optional<uint8_t> TypeCode(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBool: return 6;
    case Dtype::kU8:
    case Dtype::kU16:
    case Dtype::kU32:
    case Dtype::kU64: return 1;
    case Dtype::kI8:
    case Dtype::kI16:
    case Dtype::kI32:
    case Dtype::kI64: return 0;
    case Dtype::kF16:
    case Dtype::kF32:
    case Dtype::kF64: return 2;
    case Dtype::kBF16: return 4;
    case Dtype::kC64: return 5;
    case Dtype::kF8E4M3: return 10;
    case Dtype::kF8E4M3Fnuz: return 11;
    case Dtype::kF8E5M2: return 12;
    case Dtype::kF8E5M2Fnuz: return 13;
    case Dtype::kF8E8M0: return 14;
    case Dtype::kF6E2M3: return 15;
    case Dtype::kF6E3M2: return 16;
    case Dtype::kF4: return 17;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<DLManagedTensorVersioned*> ToDlpack(const TensorView& view, std::shared_ptr<void> owner) {
  const std::optional<uint8_t> code = TypeCode(view.info->dtype);
  if (!code.has_value()) {
    return absl::UnimplementedError(
        absl::StrCat("DLPack has no type for ", DtypeName(view.info->dtype), " tensors; read the file instead"));
  }
  auto managed = std::make_unique<Managed>();
  managed->shape = view.info->shape;
  managed->strides.resize(managed->shape.size());
  int64_t stride = 1;
  for (size_t i = managed->shape.size(); i-- > 0;) {
    managed->strides[i] = stride;
    stride *= managed->shape[i];
  }
  managed->owner = std::move(owner);

  DLManagedTensorVersioned& tensor = managed->tensor;
  tensor.version = {1, 0};
  tensor.manager_ctx = managed.get();
  tensor.deleter = Delete;
  tensor.flags = kReadOnly;
  tensor.dl_tensor.data = const_cast<std::byte*>(view.data);
  tensor.dl_tensor.device = {kCpu, 0};
  tensor.dl_tensor.ndim = static_cast<int32_t>(managed->shape.size());
  tensor.dl_tensor.dtype = {*code, static_cast<uint8_t>(DtypeBits(view.info->dtype)), 1};
  tensor.dl_tensor.shape = managed->shape.data();
  tensor.dl_tensor.strides = managed->strides.data();
  return &managed.release()->tensor;
}

}  // namespace autoscheme::capi
