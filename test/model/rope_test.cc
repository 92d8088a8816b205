// What config.json says of rotary frequencies, in the spellings that transformers knows.
#include "model/rope.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace autoscheme {
namespace {

using Catch::Contains;
using Types = std::vector<std::string>;

const Types kFull = {"full_attention"}, kBoth = {"full_attention", "sliding_attention"};

struct Read {
  absl::StatusOr<RopeConfig> rope;
  std::vector<std::string> warnings;
};

Read ReadConfig(const std::string& config, const Types& types = kFull) {
  const Json json = ParseJson(config, "config.json", NonFiniteNumbers::kRead).value();
  Read read{RopeConfig(), {}};
  RopeDefaults defaults;
  defaults.max_positions = 64;
  double part = 1;
  for (const std::string& type : types) {
    read.rope = ReadRopeConfig(json, type, defaults, &part, &read.warnings);
    if (!read.rope.ok()) break;
  }
  INFO(config << ": " << read.rope.status().ToString());
  return read;
}

// The message of a config that must be refused.
std::string Refusal(const std::string& config, absl::StatusCode code, const Types& types = kFull) {
  const Read read = ReadConfig(config, types);
  INFO(config << ": " << read.rope.status().ToString());
  CHECK(read.rope.status().code() == code);
  return std::string(read.rope.status().message());
}
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST_CASE("rope: the theta is 10000, the one of the config, or the one inside of the object") {
  struct Row {
    const char* config;
    double theta;
    size_t warnings;
  };
  for (const Row& row :
       {Row{"{}", 10000, 0},
        {R"({"rope_theta": 5e5})", 5e5, 0},
        {R"({"rope_theta": null, "rope_scaling": null})", 10000, 0},
        {R"({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}})", 1e6, 0},
        {R"({"rope_parameters": {"rope_type": "default"}, "rope_theta": 1e6})", 1e6, 0},
        {R"({"rope_parameters": {"rope_theta": 1e6}, "rope_theta": 1e6})", 1e6, 0},
        {R"({"rope_parameters": {"rope_theta": 1e6}, "rope_theta": 1e4})", 1e6, 1},
        {R"({"rope_scaling": {"rope_type": "default", "rope_theta": 1e6}, "rope_theta": 1e4})", 1e6, 1}}) {
    INFO(row.config);
    const Read read = ReadConfig(row.config);
    REQUIRE(read.rope.ok());
    CHECK(read.rope->theta == row.theta);
    CHECK(read.rope->type == "default");
    CHECK(read.warnings.size() == row.warnings);
  }
}

TEST_CASE("rope: rope_scaling decides alone where both objects are given, and an empty one says nothing") {
  const Read both = ReadConfig(R"({"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0},
                                   "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}})");
  REQUIRE(both.rope.ok());
  CHECK(both.rope->type == "linear");
  CHECK(both.rope->factor == 4);
  CHECK(both.rope->theta == 10000);
  REQUIRE(both.warnings.size() == 1);
  CHECK_THAT(both.warnings[0], Contains("rope_scaling") && Contains("rope_parameters"));

  const Read empty =
      ReadConfig(R"({"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 7e5}})");
  REQUIRE(empty.rope.ok());
  CHECK(empty.rope->type == "linear");
  CHECK(empty.rope->theta == 7e5);
  CHECK(empty.warnings.empty());

  const Read same = ReadConfig(
      R"({"rope_scaling": {"rope_type": "linear", "factor": 2},
          "rope_parameters": {"factor": 2, "rope_type": "linear"}})");
  REQUIRE(same.rope.ok());
  CHECK(same.warnings.empty());
}

TEST_CASE("rope: of an object nested by attention type that type is read") {
  const char* nested =
      R"({"rope_theta": 3e4, "rope_parameters": {
            "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
            "sliding_attention": {"rope_type": "linear", "factor": 8}}})";
  CHECK(ReadConfig(nested).rope->theta == 1e6);
  const Read sliding = ReadConfig(nested, {"sliding_attention"});
  REQUIRE(sliding.rope.ok());
  CHECK(sliding.rope->theta == 3e4);
  CHECK(sliding.rope->factor == 8);

  const char* equal =
      R"({"rope_parameters": {"full_attention": {"rope_theta": 5e5}, "sliding_attention": {"rope_theta": 5e5}}})";
  CHECK(ReadConfig(equal, kBoth).rope->theta == 5e5);
  const char* half = R"({"rope_parameters": {"full_attention": {"rope_theta": 5e5}, "sliding_attention": null}})";
  CHECK_THAT(Refusal(half, kInvalid, kBoth), Contains("rope_parameters") && Contains("nothing for sliding_attention"));
  CHECK(ReadConfig(half).rope->theta == 5e5);
  CHECK_THAT(Refusal(R"({"rope_parameters": {"full_attention": {"rope_theta": 5e5}, "rope_theta": 1e4}})", kInvalid),
             Contains("rope_parameters has \"rope_theta\" beside"));
  CHECK_THAT(Refusal(R"({"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}})", kUnimplemented),
             Contains("rope_parameters.full_attention") && Contains("partial_rotary_factor is 0.5"));
}

TEST_CASE("rope: heads that are rotated in part are refused by the key, wherever it stands") {
  for (const char* config : {R"({"partial_rotary_factor": 0.5})",
                             R"({"rope_scaling": {"type": "linear", "factor": 2, "partial_rotary_factor": 0.5}})",
                             R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})"}) {
    CHECK_THAT(Refusal(config, kUnimplemented), Contains("partial_rotary_factor is 0.5"));
  }
  CHECK(ReadConfig(R"({"partial_rotary_factor": 1, "rope_parameters": {"partial_rotary_factor": 1.0}})")
            .warnings.empty());
}

TEST_CASE("rope: contradictions and impossible numbers are refused by the key") {
  const auto refused = [](const std::string& fields, const char* key) {
    CHECK_THAT(Refusal(R"({"rope_scaling": )" + fields + "}", kInvalid), Contains("rope_scaling") && Contains(key));
  };
  refused(R"({"type": "linear", "rope_type": "default", "factor": 2})",
          "rope_type is \"default\", but type is \"linear\"");
  refused(R"({"factor": 2})", "factor, but no rope_type");
  refused(R"({"type": "linear", "factor": 0})", "factor is 0");
  refused(R"({"type": "linear", "factor": "2"})", "\"factor\" is a string");
  refused(R"({"type": "linear", "factor": Infinity})", "\"factor\" is inf");
  refused(R"({"type": 3})", "\"type\" is a number");
  refused(
      R"({"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
          "original_max_position_embeddings": 32})",
      "high_freq_factor > low_freq_factor");
  refused("7", "must be an object");
  CHECK_THAT(Refusal(R"({"rope_theta": -1})", kInvalid), Contains("rope_theta is -1"));
  CHECK_THAT(Refusal(R"({"rope_theta": NaN})", kInvalid), Contains("\"rope_theta\" is nan"));
  CHECK_THAT(Refusal(R"({"rope_scaling": {"type": "spiral"}})", kUnimplemented),
             Contains("\"spiral\"") && Contains("llama3"));
  refused(R"({"type": "linear", "factor": 2, "fctor": 3})", "\"fctor\", which rope type linear does not know");
  refused(R"({"type": "yarn", "factor": 2, "beta_fast": 0})", "beta_fast");
  refused(R"({"type": "longrope", "short_factor": [1, 2]})", "long_factor");
  refused(R"({"type": "longrope", "short_factor": [1, 2], "long_factor": [1, -2]})", "long_factor");
}

TEST_CASE("rope: a type may be said twice, by its old name and its new one") {
  for (const char* names : {R"("type": "mrope", "rope_type": "default")", R"("rope_type": "mrope")"}) {
    const Read read = ReadConfig(R"({"rope_parameters": {)" + std::string(names) + R"(, "mrope_section": [2, 1, 1]}})");
    REQUIRE(read.rope.ok());
    CHECK(read.rope->type == "default");
  }
  const Read su = ReadConfig(
      R"({"rope_scaling": {"type": "su", "rope_type": "longrope", "short_factor": [1], "long_factor": [2]}})");
  REQUIRE(su.rope.ok());
  CHECK(su.rope->type == "longrope");
}

TEST_CASE("rope: the original length stands inside of the object, beside it, or in both alike") {
  const std::string llama3 = R"("rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4)";
  const std::string inside = R"(, "original_max_position_embeddings": 32)";
  CHECK(ReadConfig(R"({"rope_scaling": {)" + llama3 + inside + "}}").rope->original_max_positions == 32);
  CHECK(ReadConfig(R"({"original_max_position_embeddings": 64, "rope_scaling": {)" + llama3 + "}}")
            .rope->original_max_positions == 64);
  CHECK_THAT(
      Refusal(R"({"original_max_position_embeddings": 64, "rope_scaling": {)" + llama3 + inside + "}}", kInvalid),
      Contains("original_max_position_embeddings of 32") && Contains("64"));
}

TEST_CASE("rope: how queries grow is read where they do, and refused elsewhere") {
  const std::string yarn = R"("rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 16)";
  RopeDefaults defaults;
  defaults.queries_grow = true;
  const auto read = [&](const std::string& fields) {
    double part = 1;
    std::vector<std::string> warnings;
    const Json config = ParseJson(R"({"rope_parameters": {)" + fields + "}}", "config.json").value();
    return ReadRopeConfig(config, "full_attention", defaults, &part, &warnings);
  };
  const auto rope = read(yarn + R"(, "llama_4_scaling_beta": 0.25)");
  REQUIRE(rope.ok());
  CHECK(rope->query_growth == 0.25);
  CHECK_THAT(std::string(read(yarn).status().message()), Contains("llama_4_scaling_beta"));
  CHECK_THAT(std::string(read(R"("llama_4_scaling_beta": 0.25)").status().message()), Contains("rope type yarn"));
  CHECK_THAT(Refusal(R"({"rope_parameters": {)" + yarn + R"(, "llama_4_scaling_beta": 0.25}})", kInvalid),
             Contains("llama_4_scaling_beta") && Contains("does not know"));
}

TEST_CASE("rope: keys that the type does not know are named") {
  const Read read = ReadConfig(
      R"({"rope_scaling": {"type": "linear", "factor": 2, "beta_fast": 32, "mscale": null, "attention_factor": 1.2}})");
  REQUIRE(read.rope.ok());
  REQUIRE(read.warnings.size() == 1);
  CHECK_THAT(read.warnings[0], Contains("\"beta_fast\", \"attention_factor\" mean nothing for rope type linear"));
}

}  // namespace
}  // namespace autoscheme
