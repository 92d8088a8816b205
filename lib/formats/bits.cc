#include "formats/bits.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checked.h"
#include "base/io.h"

namespace autoscheme {
namespace {

int64_t GroupCount(const GroupSize& group, int64_t out_features, int64_t in_features) {
  if (group.rows > 0) return CeilDiv(out_features, group.rows) * CeilDiv(in_features, group.size);
  if (group.size > 0) return out_features * CeilDiv(in_features, group.size);
  return group.size == 0 ? 1 : out_features;
}

// What a data type allows. `bits` lists the widths.
struct DataType {
  const char* name;
  std::vector<int> bits;
  bool weight;
  bool activation;
};

const std::vector<DataType>& DataTypes() {
  static const auto* const types = new std::vector<DataType>{
      {"int", {2, 3, 4, 5, 6, 7, 8}, true, true},
      {"int_asym_float_zp", {2, 3, 4, 5, 6, 7, 8}, true, false},
      {"int_asym_dq", {2, 4, 5}, true, false},
      {"int_sym_dq", {3, 6}, true, false},
      {"mx_fp", {4, 6, 8}, true, true},
      {"mx_fp_rceil", {4, 6, 8}, true, true},
      {"mx_int", {4}, true, true},
      {"nv_fp", {4}, true, true},
      {"nv_fp4_with_static_gs", {4}, true, true},
      {"nvfp4_v2", {4}, true, true},
      {"fp", {8}, true, true},
  };
  return *types;
}

// One side of a scheme. `prefix` is "" or "act_" and names the fields in messages.
absl::Status ValidateSide(const Scheme& scheme, const std::string& prefix, int bits, const GroupSize& group,
                          const std::string& data_type) {
  const std::string where = absl::StrCat("scheme ", Quoted(scheme.name), ": ");
  if (bits == 16 || bits == 32) return absl::OkStatus();
  if (bits < 2 || bits > 8) {
    return absl::InvalidArgumentError(absl::StrCat(where, prefix, "bits is ", bits, "; it may be 2 to 8, 16 or 32"));
  }
  const bool activation = !prefix.empty();
  const DataType* found = nullptr;
  std::vector<std::string> allowed;
  for (const DataType& type : DataTypes()) {
    if (!(activation ? type.activation : type.weight)) continue;
    allowed.push_back(type.name);
    if (data_type == type.name) found = &type;
  }
  if (found == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, prefix, "data_type is ", Quoted(data_type), "; it may be ", absl::StrJoin(allowed, ", ")));
  }
  bool bits_fit = false;
  for (int b : found->bits) bits_fit = bits_fit || b == bits;
  if (!bits_fit) {
    return absl::InvalidArgumentError(absl::StrCat(where, prefix, "bits is ", bits, "; with ", prefix, "data_type ",
                                                   data_type, " it may be ", absl::StrJoin(found->bits, ", ")));
  }
  if (group.rows != 0) {
    if (activation || data_type != "fp" || group.rows < 0 || group.size <= 0) {
      return absl::InvalidArgumentError(absl::StrCat(where, prefix, "group_size is [", group.rows, ", ", group.size,
                                                     "]; only the weights of data_type fp take a tile, of positive "
                                                     "height and width"));
    }
    return absl::OkStatus();
  }
  if (group.size < -1) {
    return absl::InvalidArgumentError(absl::StrCat(where, prefix, "group_size is ", group.size,
                                                   "; it may be positive, -1 (a row) or 0 (the tensor)"));
  }
  const bool nv = absl::StartsWith(data_type, "nv");
  if (nv && group.size != 16 && !(group.size == 32 && data_type == "nvfp4_v2")) {
    return absl::InvalidArgumentError(absl::StrCat(where, prefix, "group_size is ", group.size, "; with ", prefix,
                                                   "data_type ", data_type, " it may be 16",
                                                   data_type == "nvfp4_v2" ? " or 32" : ""));
  }
  return absl::OkStatus();
}

// The K types have one layout for each width (docs/algorithm.md 4.7).
absl::Status ValidateSuperGroups(const Scheme& scheme) {
  struct Layout {
    const char* data_type;
    int bits, group, super_bits, super_group;
    bool sym;
  };
  static constexpr Layout kLayouts[] = {{"int_asym_dq", 2, 16, 4, 16, false},
                                        {"int_sym_dq", 3, 16, 6, 16, true},
                                        {"int_asym_dq", 4, 32, 6, 8, false},
                                        {"int_asym_dq", 5, 32, 6, 8, false},
                                        {"int_sym_dq", 6, 16, 8, 16, true}};
  const std::string where = absl::StrCat("scheme ", Quoted(scheme.name), ": ");
  if (scheme.super_bits.has_value() != scheme.super_group_size.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(where, "super_bits and super_group_size go together"));
  }
  if (scheme.bits > 8) return absl::OkStatus();
  const bool dq = absl::EndsWith(scheme.data_type, "_dq");
  if (!dq) {
    if (!scheme.super_bits.has_value()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(where, "super_bits is ", *scheme.super_bits, " with data_type ",
                                                   scheme.data_type, "; only int_asym_dq and int_sym_dq take it"));
  }
  for (const Layout& l : kLayouts) {
    if (scheme.bits != l.bits) continue;
    if (scheme.data_type == l.data_type && scheme.group == GroupSize{l.group, 0} && scheme.sym == l.sym &&
        scheme.super_bits == l.super_bits && scheme.super_group_size == l.super_group) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat(where, "a ", l.bits, "-bit K type has data_type ", l.data_type, ", group_size ", l.group, ", sym ",
                     l.sym ? "true" : "false", ", super_bits ", l.super_bits, " and super_group_size ", l.super_group));
  }
  return absl::InvalidArgumentError(absl::StrCat(where, "bits is ", scheme.bits, "; with data_type ", scheme.data_type,
                                                 " it may be 2, 4, 5 (int_asym_dq) or 3, 6 (int_sym_dq)"));
}

}  // namespace

int64_t LayerBits(const Scheme& scheme, int64_t out_features, int64_t in_features, bool ignore_scale_zp_bits) {
  const int64_t weights = out_features * in_features;
  if (scheme.bits >= 16 || ignore_scale_zp_bits) return scheme.bits * weights;
  const int64_t groups = GroupCount(scheme.group, out_features, in_features);
  if (scheme.super_group_size.has_value() && *scheme.super_group_size > 0) {
    return scheme.bits * weights + 2 * scheme.super_bits.value_or(0) * groups +
           64 * CeilDiv(groups, *scheme.super_group_size);
  }
  const bool byte_scale = absl::StrContains(scheme.data_type, "mx_fp") ||
                          absl::StrContains(scheme.data_type, "nv_fp") || absl::StrContains(scheme.data_type, "fp4");
  // Symmetric integers pay for a zero point too: so the reference counts, and budgets must mean the same.
  const bool zero_point = !scheme.sym || absl::StrContains(scheme.data_type, "int");
  return scheme.bits * weights + groups * ((byte_scale ? 8 : 16) + (zero_point ? scheme.bits : 0));
}

bool NeedWeightTerm(absl::Span<const Scheme> menu) {
  for (const Scheme& scheme : menu) {
    if (scheme.bits <= 8 && scheme.act_bits.value_or(16) > 8) return true;
  }
  return false;
}

absl::Status ValidateScheme(const Scheme& scheme) {
  absl::Status status = ValidateSide(scheme, "", scheme.bits, scheme.group, scheme.data_type);
  if (!status.ok()) return status;
  status = ValidateSuperGroups(scheme);
  if (!status.ok()) return status;
  return ValidateSide(scheme, "act_", scheme.act_bits.value_or(16), scheme.act_group.value_or(scheme.group),
                      scheme.act_data_type.value_or(scheme.data_type));
}

}  // namespace autoscheme
