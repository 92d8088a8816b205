// Names, types and places of tensors: the plain data that every stage speaks. No torch.
#ifndef AUTOSCHEME_TENSOR_H_
#define AUTOSCHEME_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace autoscheme {

// The element types a safetensors file can hold (all 22 of the format).
enum class Dtype : int32_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

// Bits of one element: 4, 6, 8, 16, 32 or 64.
int DtypeBits(Dtype dtype);
// The spelling of the file format: "BF16", "F8_E4M3", ...
absl::string_view DtypeName(Dtype dtype);
std::optional<Dtype> DtypeFromName(absl::string_view name);

// One tensor of a checkpoint: what its header says, and where its bytes lie.
struct TensorInfo {
  std::string name;  // as in the file, e.g. "model.layers.0.mlp.up_proj.weight"
  Dtype dtype = Dtype::kBF16;
  std::vector<int64_t> shape;  // C order; empty for a scalar
  int shard = 0;               // index into the checkpoint's list of shard files
  uint64_t offset = 0;         // where its first byte lies in the shard file
  uint64_t bytes = 0;          // shape x dtype, already checked against the file

  // Number of elements. Cannot overflow: the parser has checked it.
  int64_t numel() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

// A tensor whose bytes are in memory: C order, no alignment promised, borrowed from whoever made the view.
struct TensorView {
  const TensorInfo* info = nullptr;
  const std::byte* data = nullptr;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_TENSOR_H_
