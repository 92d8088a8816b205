#include "formats/file_bytes.h"

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "base/checked.h"

namespace autoscheme {
namespace {

// ggml's blocks: elements and bytes.
struct GgufBlock {
  int64_t elements = 0;
  int64_t bytes = 0;
};

// By fields and not by name: a stand-in keeps the name of what it stands for. Empty for what is no GGUF type.
GgufBlock BlockOf(const Scheme& scheme) {
  if (scheme.super_group_size.has_value()) {
    switch (scheme.bits) {
      case 2: return {256, 84};
      case 3: return {256, 110};
      case 4: return {256, 144};
      case 5: return {256, 176};
      case 6: return {256, 210};
      default: return {};
    }
  }
  const bool gguf = absl::StartsWithIgnoreCase(scheme.name, "GGUF:") || scheme.data_type == "int_asym_float_zp";
  if (!gguf || scheme.group.size != 32 || scheme.bits >= 16) return {};
  // A float16 scale, and a float16 minimum where there is one.
  return {32, scheme.bits * 4 + (scheme.sym ? 2 : 4)};
}

int64_t Groups(const GroupSize& group, int64_t out_features, int64_t in_features) {
  if (group.rows > 0) return CeilDiv(out_features, group.rows) * CeilDiv(in_features, group.size);
  if (group.size > 0) return out_features * CeilDiv(in_features, group.size);
  return group.size == 0 ? 1 : out_features;
}

}  // namespace

int64_t FileBytes(const Scheme& scheme, int64_t out_features, int64_t in_features) {
  const int64_t packed = CeilDiv(out_features * in_features * scheme.bits, int64_t{8});
  if (scheme.bits >= 16) return packed;
  if (const GgufBlock block = BlockOf(scheme); block.bytes > 0) {
    return out_features * CeilDiv(in_features, block.elements) * block.bytes;
  }
  const int64_t groups = Groups(scheme.group, out_features, in_features);
  const absl::string_view type = scheme.data_type;
  if (absl::StartsWith(type, "mx_")) return packed + groups;
  if (absl::StartsWith(type, "nv")) return packed + groups + 4;
  if (type == "fp") return packed + 4 * groups;
  const bool zero_point = !scheme.sym || scheme.act_bits.value_or(16) >= 16;
  return packed + 2 * groups + (zero_point ? CeilDiv(groups * scheme.bits, int64_t{8}) : 0);
}

}  // namespace autoscheme
