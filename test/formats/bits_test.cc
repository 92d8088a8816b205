#include "formats/bits.h"

#include <catch2/catch.hpp>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "formats/data_types.h"

namespace autoscheme {
namespace {

Scheme Preset(const std::string& name) { return FindScheme(name).value(); }

TEST_CASE("bits per weight of every preset are those of docs/algorithm.md 7.1") {
  // 1024 x 2048: divisible by every group and tile.
  const int64_t out = 1024, in = 2048, n = out * in;
  const std::vector<std::pair<const char*, double>> table = {{"W2A16", 2.140625},
                                                             {"W2A16G64", 2.28125},
                                                             {"W2A16G32", 2.5625},
                                                             {"W3A16", 3.1484375},
                                                             {"W4A16", 4.15625},
                                                             {"W5A16", 5.1640625},
                                                             {"W6A16", 6.171875},
                                                             {"W8A16", 8.1875},
                                                             {"MXFP4", 4.25},
                                                             {"MXFP6", 6.25},
                                                             {"MXFP8", 8.25},
                                                             {"MXINT4", 4.625},
                                                             {"NVFP4", 4.5},
                                                             {"NVFP4_E5M3", 4.5},
                                                             {"BF16", 16},
                                                             {"INT8", 8 + 24.0 / in},
                                                             {"INT4", 4 + 20.0 / in},
                                                             {"FPW8A16", 8 + 16.0 / n},
                                                             {"FP8_STATIC", 8 + 16.0 / in},
                                                             {"FP8_BLOCK", 8 + 16.0 / (128 * 128)},
                                                             {"GGUF:Q4_0", 4.625},
                                                             {"GGUF:Q4_1", 4.625},
                                                             {"GGUF:Q5_0", 5.65625},
                                                             {"GGUF:Q5_1", 5.65625},
                                                             {"GGUF:Q8_0", 8.75},
                                                             {"GGUF:Q2_K_S", 2.75},
                                                             {"GGUF:Q3_K_S", 4.0},
                                                             {"GGUF:Q4_K_S", 4.625},
                                                             {"GGUF:Q5_K_S", 5.625},
                                                             {"GGUF:Q6_K", 7.25}};
  for (const auto& [name, bits] : table) {
    INFO(name);
    CHECK(LayerBits(Preset(name), out, in, false) == static_cast<int64_t>(bits * n));
    CHECK(LayerBits(Preset(name), out, in, true) == Preset(name).bits * n);
  }
}

TEST_CASE("a group at the end of a row that is not full is paid in full") {
  // 3 rows x ceil(200 / 128) groups of 16 + 4 bits beside the weights.
  CHECK(LayerBits(Preset("W4A16"), 3, 200, false) == 4 * 600 + 6 * 20);
  // 2 x 2 tiles.
  CHECK(LayerBits(Preset("FP8_BLOCK"), 130, 130, false) == 8 * 16900 + 4 * 16);
  // 4 x 13 groups of 16 in ceil(52 / 16) super-groups.
  CHECK(LayerBits(Preset("GGUF:Q2_K_S"), 4, 200, false) == 2 * 800 + 2 * 4 * 52 + 64 * 4);
}

TEST_CASE("bits of a layer with more than 2^31 weights do not wrap") {
  const int64_t n = int64_t{262144} * 16384;
  CHECK(LayerBits(Preset("W4A16"), 262144, 16384, false) == 4 * n + n / 128 * 20);
}

TEST_CASE("asymmetric schemes pay for zero points, symmetric floats do not") {
  Scheme fp = Preset("FP8_STATIC");
  CHECK(LayerBits(fp, 2, 128, false) == 8 * 256 + 2 * 16);
  fp.sym = false;
  CHECK(LayerBits(fp, 2, 128, false) == 8 * 256 + 2 * (16 + 8));
}

TEST_CASE("16-bit schemes cost 16 bits even with super-groups") {
  Scheme scheme = Preset("GGUF:Q4_K_S");
  scheme.bits = 16;
  CHECK(LayerBits(scheme, 4, 256, false) == 16 * 1024);
}

TEST_CASE("the weight term counts as soon as one option is weight-only") {
  CHECK_FALSE(NeedWeightTerm(std::vector<Scheme>{Preset("MXFP4"), Preset("MXFP8")}));
  CHECK_FALSE(NeedWeightTerm(std::vector<Scheme>{Preset("MXFP4"), Preset("BF16")}));
  CHECK(NeedWeightTerm(std::vector<Scheme>{Preset("MXFP4"), Preset("W4A16")}));
  CHECK(NeedWeightTerm(std::vector<Scheme>{Preset("GGUF:Q4_K_S")}));
  CHECK_FALSE(NeedWeightTerm({}));
}

TEST_CASE("every preset is valid") {
  for (const Scheme& scheme : SchemeCatalogue()) CHECK(ValidateScheme(scheme).ok());
}

TEST_CASE("a bad field is named, with what it may be") {
  const auto message = [](const std::function<void(Scheme*)>& change, const char* preset = "MXFP4") {
    Scheme scheme = Preset(preset);
    change(&scheme);
    const absl::Status status = ValidateScheme(scheme);
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  using Catch::Matchers::Contains;
  CHECK_THAT(message([](Scheme* s) { s->bits = 9; }, "W4A16"), Contains("bits is 9") && Contains("2 to 8"));
  CHECK_THAT(message([](Scheme* s) { s->bits = 1; }, "W4A16"), Contains("bits is 1"));
  CHECK_THAT(message([](Scheme* s) { s->bits = 5; }), Contains("bits is 5") && Contains("4, 6, 8"));
  CHECK_THAT(message([](Scheme* s) { s->act_bits = 7; }), Contains("act_bits is 7"));
  CHECK_THAT(message([](Scheme* s) { s->data_type = "mxfp"; }), Contains("data_type is \"mxfp\"") && Contains("mx_fp"));
  CHECK_THAT(message([](Scheme* s) { s->act_data_type = "int_asym_dq"; }), Contains("act_data_type"));
  CHECK_THAT(message([](Scheme* s) { s->group = {-2, 0}; }), Contains("group_size is -2"));
  CHECK_THAT(message([](Scheme* s) { s->group = {32, 32}; }), Contains("tile"));
  CHECK_THAT(message([](Scheme* s) { s->group = {32, 0}; }, "NVFP4"), Contains("group_size is 32") && Contains("16"));
  CHECK_THAT(message([](Scheme* s) { s->group = {32, 0}; }, "GGUF:Q2_K_S"), Contains("k-quant"));
  CHECK_THAT(message([](Scheme* s) { s->super_group_size.reset(); }, "GGUF:Q2_K_S"), Contains("super_group_size"));
  CHECK_THAT(message([](Scheme* s) {
               s->super_bits = 4;
               s->super_group_size = 8;
             }),
             Contains("super_bits is 4"));
}

}  // namespace
}  // namespace autoscheme
