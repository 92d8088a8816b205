#include "formats/data_types.h"

#include <string>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/io.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

DataType KQuant(const char* name, int bits, int group, const SuperGroup& super) {
  constexpr unsigned flags = DataType::kGguf | DataType::kImatrix;
  return {name, Codec::kKQuant, {bits}, {group}, {}, {}, TensorScale::kNone, ShapeRule::kNone, flags, super};
}

std::vector<DataType> MakeDataTypes() {
  constexpr unsigned kActivations = DataType::kActivations, kFamily = DataType::kFamily | kActivations,
                     kTiles = DataType::kTiles, kOnly = DataType::kOnlyGroups, kGguf = DataType::kGguf;
  constexpr auto kNone = TensorScale::kNone, kOneGroup = TensorScale::kWhereOneGroup, kAlways = TensorScale::kAlways;
  constexpr auto kAny = ShapeRule::kNone, kOf32 = ShapeRule::kMultiplesOf32, kWhole = ShapeRule::kWholeGroups;
  const std::vector<int> all = {2, 3, 4, 5, 6, 7, 8}, floats = {4, 6, 8};
  return {
      // Name, codec, widths, groups, overhead as counted and as stored, scale of the tensor, shape, flags.
      {"int", Codec::kInt, all, {128}, {16, true}, {16, true}, kNone, kOf32, kFamily},
      {"int_asym_float_zp", Codec::kIntFloatZero, all, {32}, {16, true}, {16, true}, kNone, kAny, kGguf},
      KQuant("int_asym_dq", 2, 16, {16, 4, false, "GGUF:Q5_0", "GGUF:Q5_0"}),
      KQuant("int_asym_dq", 4, 32, {8, 6, false, "GGUF:Q4_1", "GGUF:Q5_0"}),
      KQuant("int_asym_dq", 5, 32, {8, 6, false, "GGUF:Q5_1", "GGUF:Q5_0"}),
      KQuant("int_sym_dq", 3, 16, {16, 6, true, "GGUF:Q5_0", "GGUF:Q5_0"}),
      KQuant("int_sym_dq", 6, 16, {16, 8, true, "GGUF:Q8_0", "GGUF:Q8_0"}),
      {"mx_fp", Codec::kMx, floats, {32}, {8}, {8}, kNone, kWhole, kFamily},
      {"mx_fp_rceil", Codec::kMxCeil, floats, {32}, {8}, {8}, kNone, kWhole, kActivations},
      {"mx_int", Codec::kMxInt, {4}, {32}, {16, true}, {8}, kNone, kAny, kFamily},
      {"nv_fp", Codec::kNvfp4, {4}, {16}, {8}, {8, false, 32}, kAlways, kWhole, kFamily | kOnly},
      {"nv_fp4_with_static_gs", Codec::kNvfp4, {4}, {16}, {8}, {8, false, 32}, kAlways, kWhole, kActivations | kOnly},
      {"nvfp4_v2", Codec::kE5m3, {4}, {16, 32}, {8}, {8, false, 32}, kNone, kAny, kActivations | kOnly},
      {"fp", Codec::kFp8, {8}, {128}, {16}, {32}, kOneGroup, kAny, kFamily | kTiles},
  };
}

// One side of a scheme. `prefix` is "" or "act_" and names the fields in messages.
absl::Status ValidateSide(const Scheme& scheme, const std::string& prefix, int bits, const GroupSize& group,
                          const std::string& data_type) {
  const std::string where = absl::StrCat("scheme ", Quoted(scheme.name), ": ", prefix);
  if (bits == 16 || bits == 32) return absl::OkStatus();
  if (bits < 2 || bits > 8) {
    return absl::InvalidArgumentError(absl::StrCat(where, "bits is ", bits, "; it may be 2 to 8, 16 or 32"));
  }
  const bool activation = !prefix.empty();
  std::vector<absl::string_view> names;
  std::vector<int> widths;
  for (const DataType& type : DataTypes()) {
    if (activation && !type.Has(DataType::kActivations)) continue;
    if (!absl::c_linear_search(names, type.name)) names.push_back(type.name);
    if (data_type == type.name) widths.insert(widths.end(), type.bits.begin(), type.bits.end());
  }
  if (widths.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, "data_type is ", Quoted(data_type), "; it may be ", absl::StrJoin(names, ", ")));
  }
  const std::string with = absl::StrCat("; with ", prefix, "data_type ", data_type, " it may be ");
  const DataType* type = FindDataType(data_type, bits);
  if (type == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(where, "bits is ", bits, with, absl::StrJoin(widths, ", ")));
  }
  if (group.rows != 0) {
    if (!activation && type->Has(DataType::kTiles) && group.rows > 0 && group.size > 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(where, "group_size is [", group.rows, ", ", group.size,
                                                   "]; only the weights of data_type fp take a tile, of positive "
                                                   "height and width"));
  }
  if (group.size < -1) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, "group_size is ", group.size, "; it may be positive, -1 (a row) or 0 (the tensor)"));
  }
  if (type->Has(DataType::kOnlyGroups) && !absl::c_linear_search(type->groups, group.size)) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, "group_size is ", group.size, with, absl::StrJoin(type->groups, " or ")));
  }
  return absl::OkStatus();
}

// A k-quant has one layout for each width (docs/algorithm.md 4.7).
absl::Status ValidateSuperGroups(const Scheme& scheme) {
  const std::string where = absl::StrCat("scheme ", Quoted(scheme.name), ": ");
  if (scheme.super_bits.has_value() != scheme.super_group_size.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(where, "super_bits and super_group_size go together"));
  }
  const DataType* type = TypeOf(scheme);
  if (type == nullptr) return absl::OkStatus();
  const SuperGroup& super = type->super;
  if (super.groups == 0) {
    if (!scheme.super_bits.has_value()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(where, "super_bits is ", *scheme.super_bits, " with data_type ",
                                                   scheme.data_type, "; only int_asym_dq and int_sym_dq take it"));
  }
  if (scheme.group == GroupSize{type->groups[0], 0} && scheme.sym == super.sym && scheme.super_bits == super.bits &&
      scheme.super_group_size == super.groups) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      where, "a ", scheme.bits, "-bit k-quant has data_type ", type->name, ", group_size ", type->groups[0], ", sym ",
      super.sym ? "true" : "false", ", super_bits ", super.bits, " and super_group_size ", super.groups));
}

}  // namespace

const std::vector<DataType>& DataTypes() {
  static const auto* const types = new std::vector<DataType>(MakeDataTypes());
  return *types;
}

const DataType* FindDataType(absl::string_view name, int bits) {
  for (const DataType& type : DataTypes()) {
    if (type.name == name && absl::c_linear_search(type.bits, bits)) return &type;
  }
  return nullptr;
}

const DataType* TypeOf(const Scheme& scheme) { return FindDataType(scheme.data_type, scheme.bits); }

bool IsKQuant(const Scheme& scheme) {
  const DataType* type = TypeOf(scheme);
  return type != nullptr && type->super.groups > 0;
}

bool HasGgufName(const Scheme& scheme) { return absl::StartsWithIgnoreCase(scheme.name, "GGUF:"); }

bool UsesImatrix(const Scheme& scheme) {
  const DataType* type = TypeOf(scheme);
  return type != nullptr && type->Has(DataType::kImatrix);
}

bool NeedsWholeTensor(const DataType& type, const GroupSize& group) {
  return type.tensor_scale == TensorScale::kAlways ||
         (type.tensor_scale == TensorScale::kWhereOneGroup && group.size == 0);
}

bool SpansBatch(const Scheme& scheme) {
  if (!scheme.QuantizesActivation()) return false;
  const GroupSize group = scheme.act_group.value_or(scheme.group);
  const DataType* type = FindDataType(scheme.act_data_type.value_or(scheme.data_type), *scheme.act_bits);
  return group.size == 0 || (type != nullptr && NeedsWholeTensor(*type, group));
}

absl::Status ValidateScheme(const Scheme& scheme) {
  AUTOSCHEME_RETURN_IF_ERROR(ValidateSide(scheme, "", scheme.bits, scheme.group, scheme.data_type));
  AUTOSCHEME_RETURN_IF_ERROR(ValidateSuperGroups(scheme));
  return ValidateSide(scheme, "act_", scheme.act_bits.value_or(16), scheme.act_group.value_or(scheme.group),
                      scheme.act_data_type.value_or(scheme.data_type));
}

}  // namespace autoscheme
