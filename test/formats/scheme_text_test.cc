#include "autoscheme/scheme_text.h"

#include <catch2/catch.hpp>
#include <string>

#include "absl/strings/str_cat.h"

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

TEST_CASE("an entry that names no scheme is refused, and an unknown one named by its place") {
  for (const char* entry : {"{}", R"({"name": "mine"})"}) {
    Refused(ParseLayerConfig(absl::StrCat(R"({"v_proj": )", entry, "}")).status(),
            "layer_config, layer \"v_proj\": the object is empty");
    Refused(ParseMenu(absl::StrCat("[\"W4A16\",", entry, "]")).status(), "[1]: the object is empty");
  }
  Refused(ParseLayerConfig(R"({"v_proj": ""})").status(), "layer_config, layer \"v_proj\": unknown scheme \"\"");
  Refused(ParseLayerConfig(R"({"v_proj": "W4A61"})").status(),
          "layer \"v_proj\": unknown scheme \"W4A61\"; nearest to it is \"W4A16\"");
  Refused(ParseMenu("W4A16,MXFP5").status(),
          "entry 2 of the list of schemes \"W4A16,MXFP5\": unknown scheme \"MXFP5\"; nearest to it is \"MXFP4\"");
}

}  // namespace
}  // namespace autoscheme
