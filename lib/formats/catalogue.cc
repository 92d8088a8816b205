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

namespace autoscheme {
namespace {

// Weight-only integers in groups along the row. Act fields other than act_bits stay unset.
Scheme WeightInt(std::string name, int bits, int group) {
  Scheme s;
  s.name = std::move(name);
  s.bits = bits;
  s.group = {group, 0};
  s.act_bits = 16;
  return s;
}

// Same bits and group on both sides.
Scheme Both(std::string name, int bits, int group, std::string data_type, std::string act_data_type) {
  Scheme s;
  s.name = std::move(name);
  s.bits = bits;
  s.group = {group, 0};
  s.data_type = std::move(data_type);
  s.act_bits = bits;
  s.act_group = s.group;
  s.act_sym = true;
  s.act_data_type = std::move(act_data_type);
  s.act_dynamic = true;
  return s;
}

Scheme Gguf(const char* type, int bits, int group, bool sym, const char* data_type, int super_bits = 0,
            int super_group = 0) {
  Scheme s = WeightInt(absl::StrCat("GGUF:", type), bits, group);
  s.sym = sym;
  s.data_type = data_type;
  if (super_bits > 0) {
    s.super_bits = super_bits;
    s.super_group_size = super_group;
  }
  return s;
}

Scheme WeightFloat(const char* name, int bits, int group) {
  Scheme s = WeightInt(name, bits, group);
  s.data_type = "fp";
  s.act_data_type = "fp";
  return s;
}

std::vector<Scheme> MakeCatalogue() {
  std::vector<Scheme> all;
  for (int bits : {2, 3, 4, 5, 6, 8}) all.push_back(WeightInt(absl::StrCat("W", bits, "A16"), bits, 128));
  all.push_back(WeightInt("W4A16_MIXED", 4, 128));
  all.push_back(WeightInt("W2A16G64", 2, 64));
  all.push_back(WeightInt("W2A16G32", 2, 32));
  for (int bits : {4, 6, 8}) all.push_back(Both(absl::StrCat("MXFP", bits), bits, 32, "mx_fp", "mx_fp"));
  for (int bits : {4, 8}) all.push_back(Both(absl::StrCat("MXFP", bits, "_RCEIL"), bits, 32, "mx_fp", "mx_fp_rceil"));
  all.push_back(Both("MXINT4", 4, 32, "mx_int", "mx_int"));
  all.push_back(Both("NVFP4", 4, 16, "nv_fp", "nv_fp4_with_static_gs"));
  all.push_back(Both("NVFP4_E5M3", 4, 16, "nvfp4_v2", "nvfp4_v2"));
  all.back().act_dynamic.reset();
  all.push_back(WeightFloat("FPW8A16", 8, 0));
  all.push_back(Both("FP8_BLOCK", 8, 128, "fp", "fp"));
  all.back().group = {128, 128};
  all.push_back(Both("FP8_STATIC", 8, -1, "fp", "fp"));
  all.back().act_group = GroupSize{0, 0};
  all.back().act_dynamic = false;
  all.push_back(Both("INT8", 8, -1, "int", "int"));
  all.push_back(Both("INT8_W8A8", 8, -1, "int", "int"));
  all.push_back(Both("INT4", 4, -1, "int", "int"));
  all.push_back(WeightFloat("BF16", 16, 128));
  all.push_back(Gguf("Q4_0", 4, 32, true, "int"));
  all.push_back(Gguf("Q4_1", 4, 32, false, "int_asym_float_zp"));
  all.push_back(Gguf("Q5_0", 5, 32, true, "int"));
  all.push_back(Gguf("Q5_1", 5, 32, false, "int_asym_float_zp"));
  all.push_back(Gguf("Q8_0", 8, 32, true, "int"));
  for (const char* name : {"Q2_K_S", "Q2_K_MIXED"}) all.push_back(Gguf(name, 2, 16, false, "int_asym_dq", 4, 16));
  for (const char* name : {"Q3_K_S", "Q3_K_M", "Q3_K_L"}) all.push_back(Gguf(name, 3, 16, true, "int_sym_dq", 6, 16));
  for (const char* name : {"Q4_K_S", "Q4_K_M"}) all.push_back(Gguf(name, 4, 32, false, "int_asym_dq", 6, 8));
  for (const char* name : {"Q5_K_S", "Q5_K_M"}) all.push_back(Gguf(name, 5, 32, false, "int_asym_dq", 6, 8));
  all.push_back(Gguf("Q6_K", 6, 16, true, "int_sym_dq", 8, 16));
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
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown scheme ", Quoted(name), "; known are ",
      absl::StrJoin(SchemeCatalogue(), ", ", [](std::string* out, const Scheme& s) { absl::StrAppend(out, s.name); })));
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
  for (absl::string_view name : absl::StrSplit(comma_separated, ',')) {
    if (absl::StripAsciiWhitespace(name).empty()) {
      return absl::InvalidArgumentError(absl::StrCat("the list of schemes ", Quoted(comma_separated),
                                                     " has an empty entry; write names separated by commas, e.g. "
                                                     "W4A16,W8A16"));
    }
    absl::StatusOr<Scheme> scheme = FindScheme(name);
    if (!scheme.ok()) return scheme.status();
    bool seen = false;
    for (const Scheme& earlier : schemes) seen = seen || SameScheme(earlier, *scheme);
    if (!seen) schemes.push_back(*std::move(scheme));
  }
  return schemes;
}

}  // namespace autoscheme
