#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <vector>

#include "autoscheme/scheme.h"

namespace autoscheme {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("the catalogue holds every preset of the reference once") {
  std::set<std::string> names;
  for (const Scheme& scheme : SchemeCatalogue()) CHECK(names.insert(scheme.name).second);
  for (const char* name : {"W2A16",           "W3A16",       "W4A16",       "W5A16",       "W6A16",       "W8A16",
                           "W4A16_MIXED",     "W2A16G64",    "W2A16G32",    "MXFP4",       "MXFP6",       "MXFP8",
                           "MXFP4_RCEIL",     "MXFP8_RCEIL", "MXINT4",      "NVFP4",       "NVFP4_E5M3",  "FPW8A16",
                           "FP8_BLOCK",       "FP8_STATIC",  "INT8",        "INT8_W8A8",   "INT4",        "BF16",
                           "GGUF:Q4_0",       "GGUF:Q4_1",   "GGUF:Q5_0",   "GGUF:Q5_1",   "GGUF:Q8_0",   "GGUF:Q2_K_S",
                           "GGUF:Q2_K_MIXED", "GGUF:Q3_K_S", "GGUF:Q3_K_M", "GGUF:Q3_K_L", "GGUF:Q4_K_S", "GGUF:Q4_K_M",
                           "GGUF:Q5_K_S",     "GGUF:Q5_K_M", "GGUF:Q6_K"}) {
    INFO(name);
    CHECK(names.erase(name) == 1);
  }
  CHECK(names.empty());
}

TEST_CASE("a weight-only preset leaves its activation fields unset") {
  const Scheme scheme = FindScheme("W3A16").value();
  CHECK(scheme.bits == 3);
  CHECK(scheme.group == GroupSize{128, 0});
  CHECK(scheme.sym);
  CHECK(scheme.data_type == "int");
  CHECK(scheme.act_bits == 16);
  CHECK_FALSE(scheme.act_group.has_value());
  CHECK_FALSE(scheme.act_sym.has_value());
  CHECK_FALSE(scheme.act_data_type.has_value());
  CHECK_FALSE(scheme.act_dynamic.has_value());
  CHECK(scheme.QuantizesWeight());
  CHECK_FALSE(scheme.QuantizesActivation());
}

TEST_CASE("the FP8 presets differ in groups and in when activation scales are known") {
  const Scheme block = FindScheme("FP8_BLOCK").value(), fixed = FindScheme("FP8_STATIC").value();
  CHECK(block.group == GroupSize{128, 128});
  CHECK(block.act_group == GroupSize{128, 0});
  CHECK(fixed.group == GroupSize{-1, 0});
  CHECK(fixed.act_group == GroupSize{0, 0});
  CHECK(fixed.act_dynamic == false);
}

TEST_CASE("BF16 quantizes nothing") { CHECK(FindScheme("BF16")->IsPassThrough()); }

TEST_CASE("names are found whatever their case and blanks around them") {
  CHECK(FindScheme(" mxfp4_rceil ")->name == "MXFP4_RCEIL");
  CHECK(FindScheme("gguf:q4_k_s")->super_bits == 6);
}

TEST_CASE("an unknown name is refused with the list of known ones") {
  const absl::Status status = FindScheme("W4A17").status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()), Contains("\"W4A17\"") && Contains("W4A16") && Contains("GGUF:Q6_K"));
}

TEST_CASE("a list keeps its order and drops later equals") {
  const std::vector<Scheme> list = ParseSchemeList("w8a16, W4A16,W4A16_MIXED,INT8,INT8_W8A8,mxfp4").value();
  std::vector<std::string> names;
  for (const Scheme& scheme : list) names.push_back(scheme.name);
  CHECK(names == std::vector<std::string>{"W8A16", "W4A16", "INT8", "MXFP4"});
}

TEST_CASE("empty lists, empty entries and unknown names are refused") {
  for (const char* text : {"", " ", "W4A16,", ",W4A16", "W4A16,,W8A16", "W4A16,X"}) {
    INFO(text);
    CHECK(ParseSchemeList(text).status().code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("activation fields tell schemes apart only where activations are quantized") {
  Scheme a = FindScheme("W4A16").value(), b = a;
  b.act_group = GroupSize{32, 0};
  b.act_bits.reset();
  CHECK(SameScheme(a, b));
  b.act_bits = 8;
  CHECK_FALSE(SameScheme(a, b));
  CHECK_FALSE(SameScheme(FindScheme("MXFP4").value(), FindScheme("MXFP4_RCEIL").value()));
  CHECK_FALSE(SameScheme(FindScheme("GGUF:Q4_0").value(), FindScheme("GGUF:Q4_K_S").value()));
}

}  // namespace
}  // namespace autoscheme
