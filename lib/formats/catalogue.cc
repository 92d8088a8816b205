// The presets (docs/algorithm.md 3.4): one table, looked up by name.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "autoscheme/scheme.h"
#include "base/io.h"
#include "base/nearest.h"
#include "formats/data_types.h"

namespace autoscheme {
namespace {

// Weights in the usual groups of the data type (`group` 0) or in others; act fields other than act_bits stay unset.
Scheme Weight(const std::string& name, const char* data_type, int bits, int group = 0) {
  const DataType& type = *FindDataType(data_type, bits);
  Scheme s;
  s.name = name;
  s.bits = bits;
  s.group = {group == 0 ? type.groups[0] : group, 0};
  s.data_type = data_type;
  s.act_bits = 16;
  if (type.super.groups == 0) return s;
  s.sym = type.super.sym;
  s.super_bits = type.super.bits;
  s.super_group_size = type.super.groups;
  return s;
}

// Same bits and groups on both sides.
Scheme Both(const std::string& name, const char* data_type, int bits, const char* act_data_type, int group = 0) {
  Scheme s = Weight(name, data_type, bits, group);
  s.act_bits = bits;
  s.act_group = s.group;
  s.act_sym = true;
  s.act_data_type = act_data_type;
  s.act_dynamic = true;
  return s;
}

std::vector<Scheme> MakeCatalogue() {
  std::vector<Scheme> all;
  for (int bits : {2, 3, 4, 5, 6, 8}) all.push_back(Weight(absl::StrCat("W", bits, "A16"), "int", bits));
  all.push_back(Weight("W4A16_MIXED", "int", 4));
  all.push_back(Weight("W2A16G64", "int", 2, 64));
  all.push_back(Weight("W2A16G32", "int", 2, 32));
  for (int bits : {4, 6, 8}) all.push_back(Both(absl::StrCat("MXFP", bits), "mx_fp", bits, "mx_fp"));
  for (int bits : {4, 8}) all.push_back(Both(absl::StrCat("MXFP", bits, "_RCEIL"), "mx_fp", bits, "mx_fp_rceil"));
  all.push_back(Both("MXINT4", "mx_int", 4, "mx_int"));
  all.push_back(Both("NVFP4", "nv_fp", 4, "nv_fp4_with_static_gs"));
  all.push_back(Both("NVFP4_E5M3", "nvfp4_v2", 4, "nvfp4_v2"));
  all.back().act_dynamic.reset();
  all.push_back(Weight("FPW8A16", "fp", 8));
  all.back().group = {0, 0};
  all.back().act_data_type = "fp";
  all.push_back(Both("FP8_BLOCK", "fp", 8, "fp"));
  all.back().group = {128, 128};
  all.push_back(Both("FP8_STATIC", "fp", 8, "fp", -1));
  all.back().act_group = GroupSize{0, 0};
  all.back().act_dynamic = false;
  for (const char* name : {"INT8", "INT8_W8A8"}) all.push_back(Both(name, "int", 8, "int", -1));
  all.push_back(Both("INT4", "int", 4, "int", -1));
  all.push_back(Weight("BF16", "fp", 8));
  all.back().bits = 16;
  all.back().act_data_type = "fp";
  for (int bits : {4, 5}) {
    all.push_back(Weight(absl::StrCat("GGUF:Q", bits, "_0"), "int", bits, 32));
    all.push_back(Weight(absl::StrCat("GGUF:Q", bits, "_1"), "int_asym_float_zp", bits));
    all.back().sym = false;
  }
  all.push_back(Weight("GGUF:Q8_0", "int", 8, 32));
  for (const char* name : {"GGUF:Q2_K_S", "GGUF:Q2_K_MIXED"}) all.push_back(Weight(name, "int_asym_dq", 2));
  for (const char* name : {"GGUF:Q3_K_S", "GGUF:Q3_K_M", "GGUF:Q3_K_L"}) all.push_back(Weight(name, "int_sym_dq", 3));
  for (const char* name : {"GGUF:Q4_K_S", "GGUF:Q4_K_M"}) all.push_back(Weight(name, "int_asym_dq", 4));
  for (const char* name : {"GGUF:Q5_K_S", "GGUF:Q5_K_M"}) all.push_back(Weight(name, "int_asym_dq", 5));
  all.push_back(Weight("GGUF:Q6_K", "int_sym_dq", 6));
  return all;
}

}  // namespace

const std::vector<Scheme>& SchemeCatalogue() {
  static const std::vector<Scheme>* const catalogue = new std::vector<Scheme>(MakeCatalogue());
  return *catalogue;
}

absl::StatusOr<Scheme> FindScheme(absl::string_view name) {
  const std::string wanted = absl::AsciiStrToUpper(absl::StripAsciiWhitespace(name));
  for (const Scheme& scheme : SchemeCatalogue()) {
    if (scheme.name == wanted) return scheme;
  }
  std::vector<std::string> names;
  for (const Scheme& scheme : SchemeCatalogue()) names.push_back(scheme.name);
  return absl::InvalidArgumentError(absl::StrCat("unknown scheme ", Quoted(name), "; nearest to it is ",
                                                 Nearest(name, names, 1), "; known are ", absl::StrJoin(names, ", ")));
}

bool SameScheme(const Scheme& a, const Scheme& b) {
  if (a.bits != b.bits || !(a.group == b.group) || a.sym != b.sym || a.data_type != b.data_type ||
      a.super_bits != b.super_bits || a.super_group_size != b.super_group_size) {
    return false;
  }
  if (a.act_bits.value_or(16) >= 16 && b.act_bits.value_or(16) >= 16) return true;
  return a.act_bits == b.act_bits && a.act_group == b.act_group && a.act_sym == b.act_sym &&
         a.act_data_type == b.act_data_type && a.act_dynamic == b.act_dynamic;
}

absl::StatusOr<std::vector<Scheme>> ParseSchemeList(absl::string_view comma_separated) {
  std::vector<Scheme> schemes;
  int position = 0;
  for (absl::string_view name : absl::StrSplit(comma_separated, ',')) {
    ++position;
    if (absl::StripAsciiWhitespace(name).empty()) {
      return absl::InvalidArgumentError(absl::StrCat("the list of schemes ", Quoted(comma_separated),
                                                     " has an empty entry; write names separated by commas, e.g. "
                                                     "W4A16,W8A16"));
    }
    absl::StatusOr<Scheme> scheme = FindScheme(name);
    if (!scheme.ok()) {
      return absl::Status(scheme.status().code(),
                          absl::StrCat("entry ", position, " of the list of schemes ", Quoted(comma_separated), ": ",
                                       scheme.status().message()));
    }
    bool seen = false;
    for (const Scheme& earlier : schemes) seen = seen || SameScheme(earlier, *scheme);
    if (!seen) schemes.push_back(*std::move(scheme));
  }
  return schemes;
}

}  // namespace autoscheme
