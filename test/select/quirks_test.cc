// Where selection is better than the reference's by choice (docs/compatibility.md).
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "autoscheme/recipe.h"
#include "formats/bits.h"
#include "select/losses.h"

namespace autoscheme {
namespace {

struct Shape {
  const char* name;
  int64_t out, in;
};

// loss[s] of every layer under scheme s.
ScoreTable Table(const std::string& schemes, const std::vector<Shape>& shapes, const std::vector<double>& loss) {
  ScoreTable table;
  table.schemes = ParseSchemeList(schemes).value();
  for (const Shape& shape : shapes) {
    LayerInfo layer;
    layer.name = shape.name;
    layer.out_features = shape.out, layer.in_features = shape.in;
    layer.block = 0;
    layer.is_embedding = layer.name == "embed_tokens";
    if (layer.is_embedding) layer.block = -1;
    table.layers.push_back(layer);
  }
  for (double l : loss) table.scores.emplace_back(shapes.size(), LayerScore{l, l});
  return table;
}

TEST_CASE("the two terms count as the reference counts them, and a scorer's whole loss counts as it is") {
  ScoreTable table = Table("W4A16,MXFP8", {{"a", 128, 128}}, {1, 2});
  table.scores[1][0] = {2, 0.5};
  CHECK(MenuLosses(table, {0, 1}) == std::vector<std::vector<double>>{{1}, {2.5}});
  CHECK(MenuLosses(table, {1}) == std::vector<std::vector<double>>{{0.5}});
  table.scorer = "fisher";
  table.scores[0][0] = {1, 0};
  CHECK(MenuLosses(table, {0, 1}) == std::vector<std::vector<double>>{{1}, {2.5}});
  CHECK(MenuLosses(table, {1}) == std::vector<std::vector<double>>{{2.5}});
  SelectOptions options;
  options.avg_bits = {8}, options.reference_rules = true;
  const absl::Status status = SelectRecipes(table, options).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(absl::StrContains(status.message(), "from scores of deltaloss; these were made by \"fisher\""));
}

std::vector<std::string> Chosen(const ScoreTable& table, const SelectOptions& options,
                                std::string* warnings = nullptr) {
  Context context;
  context.log = [&](LogLevel level, absl::string_view text) {
    if (level == LogLevel::kWarning && warnings != nullptr) *warnings += std::string(text) + "\n";
  };
  const auto recipes = SelectRecipes(table, options, context);
  INFO(recipes.status().ToString());
  REQUIRE(recipes.ok());
  std::vector<std::string> names;
  for (const LayerChoice& choice : recipes->front().layers) names.push_back(choice.scheme.name);
  return names;
}

using Strings = std::vector<std::string>;

TEST_CASE("an option whose groups do not divide a layer is not chosen for it, whichever comes first on the menu") {
  const std::vector<Shape> shapes = {
      {"layers.0.even", 128, 128}, {"layers.0.odd_rows", 100, 128}, {"layers.0.odd_columns", 128, 72}};
  SelectOptions options;
  options.avg_bits = {7.6};
  std::string warnings;
  // Plenty of budget for one layer of 8 bits only; every layer would be better off with 4 bits.
  CHECK(Chosen(Table("FP8_STATIC,W4A16", shapes, {1, 0}), options, &warnings) ==
        Strings{"W4A16", "FP8_STATIC", "FP8_STATIC"});
  CHECK(absl::StrContains(warnings, "2 choices are left out"));
  CHECK(absl::StrContains(warnings, "\"layers.0.odd_rows\" under \"W4A16\""));
  // MX formats share scales along rows: only columns count.
  CHECK(Chosen(Table("FP8_STATIC,MXFP4", shapes, {1, 0}), options) == Strings{"MXFP4", "MXFP4", "FP8_STATIC"});
  CHECK(Chosen(Table("FP8_STATIC,NVFP4", shapes, {1, 0}), options) == Strings{"NVFP4", "NVFP4", "FP8_STATIC"});
}

TEST_CASE("layers that share a scheme get one that suits them all, and where none does they are named") {
  const std::vector<Shape> shapes = {{"layers.0.q_proj", 128, 128}, {"layers.0.k_proj", 40, 128}};
  SelectOptions options;
  options.avg_bits = {8.125};
  options.shared_layers = {{"q_proj", "k_proj"}};
  CHECK(Chosen(Table("FP8_STATIC,W4A16", shapes, {1, 0}), options) == Strings{"FP8_STATIC", "FP8_STATIC"});
  const absl::Status none = SelectRecipes(Table("W8A16,W4A16", shapes, {1, 0}), options).status();
  CHECK(none.code() == absl::StatusCode::kInvalidArgument);
  CHECK(none.message() ==
        "shared_layers: \"layers.0.k_proj\", \"layers.0.q_proj\" of block 0 must have one scheme, but none of "
        "\"W8A16\", \"W4A16\" suits "
        "all of them as one type; add a scheme that does, or take one out of the group");
  // The reference gives them one that does not suit.
  options.reference_rules = true;
  CHECK(Chosen(Table("W8A16,W4A16", shapes, {1, 0}), options) == Strings{"W4A16", "W4A16"});
}

TEST_CASE("every target gets what it would get alone, the embedding's scheme with it") {
  const ScoreTable table =
      Table("GGUF:Q2_K_S,GGUF:Q4_K_S,GGUF:Q6_K",
            {{"embed_tokens", 512, 256}, {"layers.0.a", 256, 256}, {"layers.0.b", 256, 256}}, {9, 3, 1});
  SelectOptions all;
  all.avg_bits = {2.9, 4.7, 7.2};
  const auto together = SelectRecipes(table, all).value();
  std::vector<std::string> embeddings;
  for (size_t i = 0; i < all.avg_bits.size(); ++i) {
    SelectOptions one;
    one.avg_bits = {all.avg_bits[i]};
    const Recipe alone = SelectRecipes(table, one)->front();
    for (size_t l = 0; l < alone.layers.size(); ++l)
      CHECK(together[i].layers[l].scheme.name == alone.layers[l].scheme.name);
    CHECK(together[i].total_bits == alone.total_bits);
    CHECK_FALSE(together[i].layers[0].fixed);
    embeddings.push_back(together[i].layers[0].scheme.name);
  }
  CHECK(embeddings.front() != embeddings.back());
  CHECK_FALSE(table.layers[0].fixed.has_value());
}

TEST_CASE("an embedding is given a scheme that fits with its scales") {
  // 6.9 bits would hold 6 bits for every weight of the embedding, but not its scales beside the cheapest of the layer.
  const ScoreTable table =
      Table("GGUF:Q2_K_S,GGUF:Q6_K", {{"embed_tokens", 1024, 256}, {"layers.0.a", 32, 256}}, {9, 1});
  SelectOptions options;
  options.avg_bits = {6.9};
  const auto recipes = SelectRecipes(table, options);
  REQUIRE(recipes.ok());
  CHECK(recipes->front().layers[0].scheme.name == "GGUF:Q2_K_S");
  CHECK(recipes->front().avg_bits <= 6.9);
}

}  // namespace
}  // namespace autoscheme
