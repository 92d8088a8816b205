#include "formats/data_types.h"

#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "formats/bits.h"
#include "formats/rules.h"
#include "formats/stand_in.h"

namespace autoscheme {
namespace {

const DataType& Row(const char* name, int bits) {
  const DataType* type = FindDataType(name, bits);
  REQUIRE(type != nullptr);
  return *type;
}

TEST_CASE("a data type is found by its name and a width that it has") {
  CHECK(Row("int", 7).codec == Codec::kInt);
  CHECK(Row("mx_fp_rceil", 6).codec == Codec::kMxCeil);
  CHECK(Row("nv_fp4_with_static_gs", 4).codec == Codec::kNvfp4);
  CHECK(FindDataType("mx_fp", 5) == nullptr);
  CHECK(FindDataType("int", 16) == nullptr);
  CHECK(FindDataType("mx_fp4", 4) == nullptr);
  CHECK(FindDataType("", 4) == nullptr);
}

TEST_CASE("no two rows answer to one name and width") {
  std::set<std::pair<std::string, int>> seen;
  for (const DataType& type : DataTypes()) {
    INFO(type.name);
    CHECK_FALSE(type.bits.empty());
    CHECK_FALSE(type.groups.empty());
    for (const int bits : type.bits) CHECK(seen.insert({type.name, bits}).second);
  }
  CHECK(seen.size() == 30);
}

TEST_CASE("rows cost beside each element what the reference counts and what files hold") {
  struct Case {
    const char* name;
    int bits;
    double counted, stored;  // bits beside those of an element, of symmetric weight-only schemes in the usual groups
  };
  const Case cases[] = {{"int", 4, 20.0 / 128, 20.0 / 128},
                        {"int", 8, 24.0 / 128, 24.0 / 128},
                        {"mx_fp", 4, 8.0 / 32, 8.0 / 32},
                        {"mx_fp_rceil", 8, 8.0 / 32, 8.0 / 32},
                        {"mx_int", 4, 20.0 / 32, 8.0 / 32},
                        {"nv_fp", 4, 8.0 / 16, 8.0 / 16 + 32.0 / (1 << 20)},
                        {"nvfp4_v2", 4, 8.0 / 16, 8.0 / 16 + 32.0 / (1 << 20)},
                        {"fp", 8, 16.0 / 128, 32.0 / 128},
                        {"int_asym_dq", 2, 0.75, 0.625},
                        {"int_sym_dq", 3, 1.0, 0.4375},
                        {"int_asym_dq", 4, 0.625, 0.5},
                        {"int_asym_dq", 5, 0.625, 0.5},
                        {"int_sym_dq", 6, 1.25, 0.5625}};
  for (const Case& c : cases) {
    CAPTURE(c.name, c.bits);
    const DataType& type = Row(c.name, c.bits);
    Scheme scheme;
    scheme.data_type = c.name;
    scheme.bits = c.bits;
    scheme.group = {type.groups[0], 0};
    if (type.super.groups > 0) {
      scheme.sym = type.super.sym;
      scheme.super_bits = type.super.bits;
      scheme.super_group_size = type.super.groups;
    }
    REQUIRE(ValidateScheme(scheme).ok());
    const int64_t elements = 1 << 20;
    CHECK(LayerBits(scheme, 1024, 1024, false) == static_cast<int64_t>((c.bits + c.counted) * elements));
    CHECK(8 * FileBytes(scheme, 1024, 1024) == static_cast<int64_t>((c.bits + c.stored) * elements));
  }
}

TEST_CASE("the k-quants are those with super-groups, and only they are weighed by an importance matrix") {
  std::vector<std::string> names;
  for (const Scheme& scheme : SchemeCatalogue()) {
    INFO(scheme.name);
    CHECK(IsKQuant(scheme) == scheme.super_bits.has_value());
    CHECK(UsesImatrix(scheme) == scheme.super_bits.has_value());
    if (!IsKQuant(scheme)) continue;
    CHECK(TypeOf(scheme)->super.groups * scheme.group.size == 256);
    CHECK(TypeOf(scheme)->codec == Codec::kKQuant);
    names.push_back(scheme.name.substr(5, 4));
  }
  CHECK(std::set<std::string>(names.begin(), names.end()) ==
        std::set<std::string>{"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"});
}

TEST_CASE("every k-quant has stand-ins that exist and hold at least as many bits") {
  LayerInfo layer, embedding;
  layer.in_features = embedding.in_features = 96;
  layer.out_features = embedding.out_features = 64;
  embedding.is_embedding = true;
  const std::vector<std::vector<std::string>> expected = {{"GGUF:Q2_K_S", "GGUF:Q5_0", "GGUF:Q5_0"},
                                                          {"GGUF:Q3_K_S", "GGUF:Q5_0", "GGUF:Q5_0"},
                                                          {"GGUF:Q4_K_S", "GGUF:Q4_1", "GGUF:Q5_0"},
                                                          {"GGUF:Q5_K_S", "GGUF:Q5_1", "GGUF:Q5_0"},
                                                          {"GGUF:Q6_K", "GGUF:Q8_0", "GGUF:Q8_0"}};
  for (const std::vector<std::string>& names : expected) {
    INFO(names[0]);
    const Scheme scheme = FindScheme(names[0]).value();
    CHECK(StandIn(scheme, layer)->name == names[1]);
    CHECK(StandIn(scheme, embedding)->name == names[2]);
    CHECK(StandIn(scheme, layer)->bits >= scheme.bits);
    LayerInfo odd = layer;
    odd.in_features = 100;
    CHECK(StandIn(scheme, odd)->bits == 16);
    odd.in_features = 512;
    CHECK_FALSE(StandIn(scheme, odd).has_value());
  }
  CHECK_FALSE(StandIn(FindScheme("W4A16").value(), layer).has_value());
}

TEST_CASE("shapes must divide as the row says") {
  struct Case {
    const char* scheme;
    int64_t rows, columns;
    bool suits;
  };
  const Case cases[] = {{"W4A16", 64, 96, true},       {"W4A16", 64, 100, false},    {"W4A16", 60, 96, false},
                        {"INT8", 60, 100, true},       {"MXFP4", 60, 96, true},      {"MXFP4", 64, 100, false},
                        {"MXFP8_RCEIL", 1, 16, false}, {"NVFP4", 60, 48, true},      {"NVFP4", 64, 40, false},
                        {"NVFP4_E5M3", 64, 40, true},  {"MXINT4", 64, 40, true},     {"FP8_STATIC", 3, 5, true},
                        {"GGUF:Q4_0", 64, 100, false}, {"GGUF:Q4_1", 64, 100, true}, {"GGUF:Q4_K_S", 64, 100, true},
                        {"BF16", 3, 5, true}};
  for (const Case& c : cases) {
    CAPTURE(c.scheme, c.rows, c.columns);
    LayerInfo layer;
    layer.out_features = c.rows;
    layer.in_features = c.columns;
    CHECK(SuitsShape(FindScheme(c.scheme).value(), layer) == c.suits);
  }
}

TEST_CASE("what a scale spans decides what must be seen at once") {
  const auto whole = [](const char* name) {
    const Scheme scheme = FindScheme(name).value();
    return NeedsWholeTensor(*TypeOf(scheme), scheme.group);
  };
  CHECK(whole("NVFP4"));
  CHECK(whole("FPW8A16"));
  for (const char* name : {"W4A16", "MXFP4", "NVFP4_E5M3", "FP8_STATIC", "FP8_BLOCK", "INT8", "GGUF:Q4_K_S"}) {
    INFO(name);
    CHECK_FALSE(whole(name));
  }
  CHECK(SpansBatch(FindScheme("NVFP4").value()));
  CHECK(SpansBatch(FindScheme("FP8_STATIC").value()));
  for (const char* name : {"W4A16", "FPW8A16", "MXFP4", "NVFP4_E5M3", "FP8_BLOCK", "INT8", "BF16"}) {
    INFO(name);
    CHECK_FALSE(SpansBatch(FindScheme(name).value()));
  }
  Scheme integers = FindScheme("INT8").value();
  integers.act_group = GroupSize{0, 0};
  CHECK(SpansBatch(integers));
}

TEST_CASE("a width behind a name is that of the plain data types alone") {
  std::set<std::string> families, activations;
  for (const DataType& type : DataTypes()) {
    if (type.Has(DataType::kFamily)) families.insert(type.name);
    if (type.Has(DataType::kActivations)) activations.insert(type.name);
  }
  CHECK(families == std::set<std::string>{"int", "mx_fp", "mx_int", "nv_fp", "fp"});
  CHECK(activations == std::set<std::string>{"int", "mx_fp", "mx_fp_rceil", "mx_int", "nv_fp", "nv_fp4_with_static_gs",
                                             "nvfp4_v2", "fp"});
}

}  // namespace
}  // namespace autoscheme
