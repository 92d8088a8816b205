#include "formats/bits.h"

#include "base/checked.h"
#include "formats/data_types.h"

namespace autoscheme {
namespace {

int64_t GroupCount(const GroupSize& group, int64_t out_features, int64_t in_features) {
  if (group.rows > 0) return CeilDiv(out_features, group.rows) * CeilDiv(in_features, group.size);
  if (group.size > 0) return out_features * CeilDiv(in_features, group.size);
  return group.size == 0 ? 1 : out_features;
}

// Elements of one of ggml's blocks; 0 where the weight is not stored in such.
int64_t BlockElements(const Scheme& scheme, const DataType& type) {
  if (type.super.groups > 0) return int64_t{type.super.groups} * scheme.group.size;
  return scheme.group.size == 32 && (type.Has(DataType::kGguf) || HasGgufName(scheme)) ? 32 : 0;
}

}  // namespace

int64_t LayerBits(const Scheme& scheme, int64_t out_features, int64_t in_features, bool ignore_scale_zp_bits) {
  const int64_t weights = scheme.bits * out_features * in_features;
  const DataType* type = TypeOf(scheme);
  if (type == nullptr || ignore_scale_zp_bits) return weights;
  const int64_t groups = GroupCount(scheme.group, out_features, in_features);
  if (const SuperGroup& super = type->super; super.groups > 0) {
    return weights + 2 * super.bits * groups + 64 * CeilDiv(groups, int64_t{super.groups});
  }
  // Symmetric integers pay for a zero point too: so the reference counts, and budgets must mean the same.
  const bool zero_point = !scheme.sym || type->counted.zero_point;
  return weights + groups * (type->counted.scale_bits + (zero_point ? scheme.bits : 0));
}

int64_t FileBytes(const Scheme& scheme, int64_t out_features, int64_t in_features) {
  const int64_t packed = CeilDiv(out_features * in_features * scheme.bits, int64_t{8});
  const DataType* type = TypeOf(scheme);
  if (type == nullptr) return packed;
  if (const int64_t block = BlockElements(scheme, *type); block > 0) {
    // A float16 scale, and a float16 minimum where there is one, with the bits of the groups' own.
    const int64_t beside = (scheme.sym ? 1 : 2) * (16 + int64_t{type->super.groups} * type->super.bits);
    return out_features * CeilDiv(in_features, block) * (block * scheme.bits + beside) / 8;
  }
  const int64_t groups = GroupCount(scheme.group, out_features, in_features);
  const bool zero_point = type->stored.zero_point && (!scheme.sym || scheme.act_bits.value_or(16) >= 16);
  return packed + groups * type->stored.scale_bits / 8 + type->stored.tensor_bits / 8 +
         (zero_point ? CeilDiv(groups * scheme.bits, int64_t{8}) : 0);
}

bool NeedWeightTerm(absl::Span<const Scheme> menu) {
  for (const Scheme& scheme : menu) {
    if (scheme.bits <= 8 && scheme.act_bits.value_or(16) > 8) return true;
  }
  return false;
}

}  // namespace autoscheme
