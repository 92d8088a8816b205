#include "autoscheme/scheme_text.h"

#include <catch2/catch.hpp>
#include <string>

namespace autoscheme {
namespace {

using Catch::Matchers::Contains;

void Refused(const absl::Status& status, const std::string& words) {
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()), Contains(words));
}

TEST_CASE("layers may be fixed by a recipe, or by a file that holds one") {
  const std::string layers = R"({"a.q_proj": {"scheme": "W4A16", "bits": 4}, "a.k_proj": "W8A16"})";
  const std::string recipe = R"({"target_avg_bits": 4.5, "layer_config": )" + layers + "}";
  for (const std::string& text :
       {layers, recipe, R"({"format": "autoscheme-recipe", "version": 1, "recipes": [)" + recipe + "]}"}) {
    CAPTURE(text);
    const auto fixed = ParseLayerConfig(text);
    REQUIRE(fixed.ok());
    REQUIRE(fixed->size() == 2);
    CHECK(fixed->at(0).first == "a.q_proj");
    CHECK(fixed->at(0).second.bits == 4);
    CHECK(fixed->at(1).first == "a.k_proj");
    CHECK(fixed->at(1).second.bits == 8);
  }
  const std::string two =
      R"({"format": "autoscheme-recipe", "version": 1, "recipes": [)" + recipe + "," + recipe + "]}";
  Refused(ParseLayerConfig(two).status(), "2 recipes");
  Refused(ParseLayerConfig(two).status(), "jq");
  Refused(ParseLayerConfig(R"({"format": "autoscheme-recipe"})").status(), "0 recipes");
}

TEST_CASE("other files of this library are recognized where layers or schemes belong") {
  Refused(ParseLayerConfig(R"({"format": "autoscheme-scores", "version": 1})").status(), "autoscheme select --scores");
  Refused(ParseLayerConfig(R"({"format": "autoscheme-pareto", "version": 1})").status(), "\"autoscheme-pareto\"");
  Refused(ParseLayerConfig("[]").status(), "not a JSON object");
  Refused(ParseMenu(R"({"format": "autoscheme-scores", "version": 1})").status(), "\"autoscheme-scores\"");
  CHECK(ParseLayerConfig("{}")->empty());
}

}  // namespace
}  // namespace autoscheme
