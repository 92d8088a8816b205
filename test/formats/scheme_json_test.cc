#include "formats/scheme_json.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace autoscheme {
namespace {

using Catch::Matchers::Contains;

absl::StatusOr<Scheme> FromText(const std::string& text) {
  const absl::StatusOr<Json> json = ParseJson(text, "test");
  REQUIRE(json.ok());
  return SchemeFromJson(*json, "test");
}

TEST_CASE("a preset is written with the fields that it sets") {
  CHECK(SchemeToJson(FindScheme("W4A16").value()) ==
        R"({"bits":4,"group_size":128,"sym":true,"data_type":"int","act_bits":16})");
  CHECK(SchemeToJson(FindScheme("FP8_BLOCK").value()) ==
        R"({"bits":8,"group_size":[128,128],"sym":true,"data_type":"fp","act_bits":8,"act_group_size":128,)"
        R"("act_sym":true,"act_data_type":"fp","act_dynamic":true})");
  CHECK(SchemeToJson(FindScheme("GGUF:Q6_K").value()) ==
        R"({"bits":6,"group_size":16,"sym":true,"data_type":"int_sym_dq","act_bits":16,"super_bits":8,)"
        R"("super_group_size":16})");
}

TEST_CASE("every preset reads back from what it wrote") {
  for (const Scheme& preset : SchemeCatalogue()) {
    INFO(preset.name);
    const std::string fields = SchemeToJson(preset);
    const Scheme named = FromText(R"({"scheme":")" + preset.name + "\"," + fields.substr(1)).value();
    CHECK(named.name == preset.name);
    CHECK(SameScheme(named, preset));
    CHECK(FromText("\"" + preset.name + "\"")->name == preset.name);
  }
}

TEST_CASE("an object without a preset starts from 4-bit groups of 128 and gets every activation field") {
  const Scheme scheme = FromText(R"({"name":"mine","bits":3,"sym":false})").value();
  CHECK(scheme.name == "mine");
  CHECK(scheme.bits == 3);
  CHECK(scheme.group == GroupSize{128, 0});
  CHECK_FALSE(scheme.sym);
  CHECK(scheme.data_type == "int");
  CHECK(scheme.act_bits == 16);
  CHECK(scheme.act_group == GroupSize{128, 0});
  CHECK(scheme.act_sym == false);
  CHECK(scheme.act_data_type == "float");
  CHECK(scheme.act_dynamic == true);
}

TEST_CASE("overrides change a preset, and its name says what it became") {
  const Scheme scheme = FromText(R"({"scheme":"W4A16","group_size":32})").value();
  CHECK(scheme.group == GroupSize{32, 0});
  CHECK(scheme.name == SchemeToJson(scheme));
  CHECK(FromText(R"({"scheme":"W4A16","group_size":null})")->name == "W4A16");
  CHECK(FromText(R"({"scheme":"FP8_BLOCK","group_size":[64,32]})")->group == GroupSize{32, 64});
}

TEST_CASE("activations quantized like the weights take the weights' data type") {
  CHECK(FromText(R"({"bits":8,"group_size":-1,"act_bits":8})")->act_data_type == "int");
  CHECK(FromText(R"({"bits":4,"group_size":32,"data_type":"mx_fp","act_bits":4})")->act_data_type == "mx_fp");
}

TEST_CASE("digits in a data type decide the bits") {
  const Scheme scheme = FromText(R"({"bits":4,"data_type":"mx_fp8","group_size":32,"act_data_type":"mx_fp6"})").value();
  CHECK(scheme.bits == 8);
  CHECK(scheme.data_type == "mx_fp");
  CHECK(scheme.act_bits == 6);
  CHECK(scheme.act_data_type == "mx_fp");
}

TEST_CASE("a k-quant by its data type becomes that preset, and GGUF presets take no overrides") {
  CHECK(FromText(R"({"bits":4,"data_type":"int_asym_dq"})")->name == "GGUF:Q4_K_S");
  CHECK(FromText(R"({"bits":6,"data_type":"int_sym_dq"})")->name == "GGUF:Q6_K");
  const Scheme scheme = FromText(R"({"scheme":"gguf:q4_k_s","bits":8})").value();
  CHECK(scheme.bits == 4);
  CHECK(scheme.name == "GGUF:Q4_K_S");
}

TEST_CASE("bad schemes are refused with the field's name") {
  const auto message = [](const std::string& text) {
    const absl::Status status = FromText(text).status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  CHECK_THAT(message(R"({"bit":4})"), Contains("\"bit\"") && Contains("group_size"));
  CHECK_THAT(message(R"({"bits":"4"})"), Contains("bits"));
  CHECK_THAT(message(R"({"bits":4.5})"), Contains("bits"));
  CHECK_THAT(message(R"({"bits":12})"), Contains("bits is 12"));
  CHECK_THAT(message(R"({"group_size":[128]})"), Contains("group_size"));
  CHECK_THAT(message(R"({"group_size":[0,4]})"), Contains("group_size"));
  CHECK_THAT(message(R"({"scheme":"W4"})"), Contains("\"W4\""));
  CHECK_THAT(message(R"({"bits":99999999999})"), Contains("out of range"));
  CHECK_THAT(message("[]"), Contains("name or an object"));
  CHECK(FromText(R"({"rotation_config":{"kind":"hadamard"}})").status().code() == absl::StatusCode::kUnimplemented);
  CHECK(FromText(R"({"rotation_config":{}})").ok());
}

TEST_CASE("a list may mix names and objects, equals are dropped, and two of one name are refused") {
  const Json list = ParseJson(R"(["W4A16",{"bits":4},{"name":"x","bits":2}])", "test").value();
  const std::vector<Scheme> schemes = SchemesFromJson(list, "test").value();
  REQUIRE(schemes.size() == 2);
  CHECK(schemes[0].name == "W4A16");
  CHECK(schemes[1].name == "x");
  const Json named = ParseJson(R"({"a":{"bits":2},"b":"W8A16"})", "test").value();
  CHECK(SchemesFromJson(named, "test")->at(1).name == "b");
  const Json twice = ParseJson(R"([{"name":"x","bits":3},{"name":"x","bits":2}])", "test").value();
  CHECK(SchemesFromJson(twice, "test").status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_FALSE(SchemesFromJson(ParseJson("[]", "test").value(), "test").ok());
}

}  // namespace
}  // namespace autoscheme
