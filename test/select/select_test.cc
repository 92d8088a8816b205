// What SelectRecipes promises, on tables small enough to check by hand.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "autoscheme/recipe.h"
#include "formats/bits.h"
#include "select/groups.h"
#include "select/losses.h"

namespace autoscheme {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Layers of 128 x 128 weights, so that one group is one row: W2A16 takes 2.140625 bits per weight, W4A16 4.15625, W8A16
// 8.1875. weight[s][l] are the losses; no activation terms.
ScoreTable Table(const std::string& schemes, const std::vector<std::string>& names,
                 const std::vector<std::vector<double>>& weight) {
  ScoreTable table;
  table.schemes = ParseSchemeList(schemes).value();
  for (const std::string& name : names) {
    LayerInfo layer;
    layer.name = name;
    layer.out_features = layer.in_features = 128;
    layer.is_head = name == "lm_head";
    const size_t at = name.find("layers.");
    if (at != std::string::npos) layer.block = std::atoi(name.c_str() + at + 7);
    table.layers.push_back(layer);
  }
  for (const std::vector<double>& row : weight) {
    table.scores.emplace_back();
    for (double loss : row) table.scores.back().push_back({loss, 0});
  }
  return table;
}

std::vector<std::string> Chosen(const Recipe& recipe) {
  std::vector<std::string> names;
  for (const LayerChoice& choice : recipe.layers) names.push_back(choice.scheme.name);
  return names;
}

absl::StatusOr<std::vector<Recipe>> Select(const ScoreTable& table, std::vector<double> targets,
                                           const Context& context = {}) {
  SelectOptions options;
  options.avg_bits = std::move(targets);
  return SelectRecipes(table, options, context);
}

struct Warnings {
  std::vector<std::string> texts;
  Context context;
  Warnings() {
    context.log = [this](LogLevel level, absl::string_view text) {
      if (level == LogLevel::kWarning) texts.emplace_back(text);
    };
  }
};

using Strings = std::vector<std::string>;

TEST_CASE("several targets are answered from one table, a larger one never with more loss") {
  const ScoreTable table = Table("W2A16,W4A16,W8A16", {"layers.0.a", "layers.0.b", "layers.1.a"},
                                 {{9.0, 5.0, 1.0}, {2.0, 1.0, 0.3}, {0.1, 0.1, 0.1}});
  const auto recipes = Select(table, {2.140625, 3.0, 5.0, 8.1875}).value();
  REQUIRE(recipes.size() == 4);
  CHECK(Chosen(recipes[0]) == Strings{"W2A16", "W2A16", "W2A16"});
  CHECK(Chosen(recipes[1]) == Strings{"W4A16", "W2A16", "W2A16"});
  CHECK(Chosen(recipes[2]) == Strings{"W8A16", "W4A16", "W2A16"});
  CHECK(Chosen(recipes[3]) == Strings{"W8A16", "W8A16", "W8A16"});
  CHECK(recipes[1].target_avg_bits == 3.0);
  CHECK(recipes[1].loss == 8.0);
  CHECK(recipes[1].gap == 0);
  CHECK(recipes[1].total_params == 3 * 16384);
  CHECK(recipes[1].total_bits == 16384 * 4 + 128 * 20 + 2 * (16384 * 2 + 128 * 18));
  CHECK(recipes[1].avg_bits == static_cast<double>(recipes[1].total_bits) / (3 * 16384));
  CHECK(recipes[1].layers[2].layer == "layers.1.a");
}

TEST_CASE("a target out of reach names the range and every scheme's average") {
  const ScoreTable table = Table("W2A16,W4A16", {"layers.0.a"}, {{2.0}, {1.0}});
  for (double target : {1.9, 4.2, -1.0, kNan, std::numeric_limits<double>::infinity()}) {
    const auto status = Select(table, {target}).status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(absl::StrContains(status.message(), "[2.14062, 4.15625] (averages: W2A16 2.14062, W4A16 4.15625)"));
  }
  // Within 0.001 of an end the target is that end.
  CHECK(Chosen(Select(table, {2.1400}).value()[0]) == Strings{"W2A16"});
  CHECK(Chosen(Select(table, {4.1570}).value()[0]) == Strings{"W4A16"});
  CHECK(Select(table, {}).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("the cheapest scheme stays feasible at its own average, however that is rounded") {
  // The reference multiplies the average back and may fall one bit short.
  for (int64_t rows = 1; rows < 400; ++rows) {
    ScoreTable table = Table("INT8", {"layers.0.a", "layers.0.b"}, {{1.0, 1.0}});
    table.layers[0].out_features = rows;
    table.layers[0].in_features = 3 * rows + 1;
    int64_t bits = 0, weights = 0;
    for (const LayerInfo& layer : table.layers) {
      bits += LayerBits(table.schemes[0], layer.out_features, layer.in_features, false);
      weights += layer.out_features * layer.in_features;
    }
    const auto recipes = Select(table, {static_cast<double>(bits) / static_cast<double>(weights)});
    REQUIRE(recipes.ok());
    REQUIRE(recipes->front().total_bits == bits);
  }
}

TEST_CASE("the menu may be a part of the table, in an order of its own") {
  const ScoreTable table = Table("W2A16,W4A16,W8A16", {"layers.0.a"}, {{3.0}, {2.0}, {1.0}});
  SelectOptions options;
  options.avg_bits = {6.0};
  options.schemes = {"w8a16", "W2A16"};
  CHECK(Chosen(SelectRecipes(table, options).value()[0]) == Strings{"W2A16"});
  options.schemes = {"W3A16"};
  const auto status = SelectRecipes(table, options).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(absl::StrContains(status.message(), "\"W3A16\" was not scored; scored are \"W2A16\", \"W4A16\", \"W8A16\""));
}

TEST_CASE("the weight term counts for all schemes as soon as one of the menu is weight-only") {
  ScoreTable table = Table("MXFP4,MXFP8,W4A16", {"layers.0.a"}, {{10.0}, {4.0}, {20.0}});
  table.scores[0][0].activation = 1.0;
  table.scores[1][0].activation = 0.5;
  table.scores[2][0].activation = 99.0;  // W4A16 has none; what stands there must not count
  CHECK(MenuLosses(table, {0, 1}) == std::vector<std::vector<double>>{{1.0}, {0.5}});
  CHECK(MenuLosses(table, {0, 1, 2}) == std::vector<std::vector<double>>{{11.0}, {4.5}, {20.0}});
}

TEST_CASE("a scheme of 16 bits costs no loss, and alone it gives an all-16-bit recipe") {
  const ScoreTable table = Table("W4A16,BF16", {"layers.0.a", "layers.0.b"}, {{3.0, 1.0}, {7.0, 7.0}});
  const auto recipes = Select(table, {12.0}).value();
  CHECK(Chosen(recipes[0]) == Strings{"BF16", "W4A16"});
  CHECK(recipes[0].loss == 1.0);
  const auto plain = Select(Table("BF16", {"layers.0.a"}, {{0.0}}), {16.0}).value();
  CHECK(plain[0].avg_bits == 16.0);
  CHECK(plain[0].loss == 0.0);
}

TEST_CASE("fixed layers are charged first and keep their scheme") {
  ScoreTable table = Table("W2A16,W4A16", {"layers.0.a", "layers.0.b"}, {{0.0, 5.0}, {0.0, 1.0}});
  table.layers[0].fixed = FindScheme("W8A16").value();
  CHECK(Select(table, {5.0}).status().code() == absl::StatusCode::kInvalidArgument);  // (8.1875 + 2.140625) / 2
  const auto low = Select(table, {5.5}).value()[0], high = Select(table, {6.171875}).value()[0];
  CHECK(Chosen(low) == Strings{"W8A16", "W2A16"});
  CHECK(Chosen(high) == Strings{"W8A16", "W4A16"});
  CHECK(high.layers[0].fixed);
  CHECK(!high.layers[1].fixed);
  CHECK(high.loss == 1.0);
}

TEST_CASE("without scales only bits x weights count") {
  const ScoreTable table = Table("W2A16,W4A16", {"layers.0.a", "layers.0.b"}, {{2.0, 3.0}, {1.0, 1.0}});
  SelectOptions options;
  options.avg_bits = {3.0};
  options.ignore_scale_zp_bits = true;
  const auto recipes = SelectRecipes(table, options).value();
  CHECK(Chosen(recipes[0]) == Strings{"W2A16", "W4A16"});
  CHECK(recipes[0].total_bits == 16384 * 6);
}

TEST_CASE("a loss that is not finite drops the scheme for that layer alone, with a warning") {
  const ScoreTable table = Table("W2A16,W4A16", {"layers.0.a", "layers.0.b"}, {{kNan, 2.0}, {1.0, 1.0}});
  Warnings warnings;
  const auto recipes = Select(table, {3.5}, warnings.context);
  REQUIRE(recipes.ok());
  CHECK(Chosen(recipes->front()) == Strings{"W4A16", "W2A16"});
  REQUIRE(warnings.texts.size() == 1);
  CHECK(absl::StrContains(warnings.texts[0], "\"layers.0.a\" under \"W2A16\" is nan"));
  // The least that can be had is what is left, and the error says so: (2.140625 + 4.15625) / 2.
  const auto status = Select(table, {2.140625}).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(absl::StrContains(status.message(), "outside the reachable range [3.14844, 4.15625]"));
  CHECK(Select(table, {3.14844}).ok());
}

TEST_CASE("a layer without any finite loss is DATA_LOSS and named") {
  const double infinite = std::numeric_limits<double>::infinity();
  const ScoreTable table = Table("W2A16,W4A16", {"layers.0.a", "layers.0.b"}, {{1.0, infinite}, {1.0, kNan}});
  const auto status = Select(table, {3.0}).status();
  CHECK(status.code() == absl::StatusCode::kDataLoss);
  CHECK(absl::StrContains(status.message(), "\"layers.0.b\" under \"W2A16\" is inf"));
}

TEST_CASE("a head that is chosen gets six bits or more where the menu has them") {
  const Strings names = {"layers.0.a", "layers.0.b", "lm_head"};
  const ScoreTable one = Table("W2A16,W4A16,W8A16", names, {{5.0, 5.0, 0.0}, {2.0, 2.0, 0.0}, {1.0, 1.0, 0.0}});
  CHECK(Chosen(Select(one, {5.0}).value()[0]) == Strings{"W2A16", "W4A16", "W8A16"});
  // It must not starve the rest: then the scheme of least loss is allowed too, and so on.
  CHECK(Chosen(Select(one, {2.5}).value()[0]).back() == "W2A16");
  // Several wide schemes above six bits of target: the widest.
  const ScoreTable two = Table("W6A16,W8A16", names, {{2.0, 2.0, 0.0}, {1.0, 1.0, 0.0}});
  CHECK(Chosen(Select(two, {7.0}).value()[0]).back() == "W8A16");
  // No wide scheme: the one of least total loss.
  const ScoreTable none = Table("W2A16,W4A16", names, {{2.0, 2.0, 0.0}, {1.0, 1.0, 0.0}});
  CHECK(Chosen(Select(none, {3.0}).value()[0]).back() == "W4A16");
}

// The layers that are chosen together.
std::vector<std::vector<int>> Members(const std::vector<LayerGroup>& groups) {
  std::vector<std::vector<int>> members;
  for (const LayerGroup& group : groups) {
    if (!group.members.empty()) members.push_back(group.members);
  }
  return members;
}

TEST_CASE("layers that are shared get one scheme within each block") {
  const Strings names = {"layers.0.q_proj", "layers.0.k_proj", "layers.0.o_proj", "layers.1.q_proj", "layers.1.k_proj"};
  ScoreTable table = Table("W2A16,W4A16", names, {{9.0, 1.0, 3.0, 1.0, 1.0}, {1.0, 0.9, 1.0, 0.9, 0.9}});
  CHECK(Members(GroupLayers(table.layers, {{"q_proj", "k_proj"}})) ==
        std::vector<std::vector<int>>{{1, 0}, {4, 3}, {2}});  // sorted by name; groups before the rest
  SelectOptions options;
  options.avg_bits = {3.0};
  options.shared_layers = {{"q_proj", "k_proj"}};
  CHECK(Chosen(SelectRecipes(table, options).value()[0]) == Strings{"W4A16", "W4A16", "W2A16", "W2A16", "W2A16"});
  options.shared_layers.clear();
  CHECK(Chosen(SelectRecipes(table, options).value()[0]) == Strings{"W4A16", "W2A16", "W4A16", "W2A16", "W2A16"});
}

TEST_CASE("exact names group across the model, overlapping groups merge, fixed layers stay out") {
  ScoreTable table =
      Table("W2A16", {"layers.0.a", "layers.0.b", "layers.1.a", "layers.1.b", "head"}, {{1, 1, 1, 1, 1}});
  CHECK(Members(GroupLayers(table.layers, {{"layers.1.a", "layers.0.a", "head"}})) ==
        std::vector<std::vector<int>>{{2, 0, 4}, {1}, {3}});
  CHECK(Members(GroupLayers(table.layers, {{"layers.0.a", "layers.1.a"}, {"layers.1.a", "layers.1.b"}})) ==
        std::vector<std::vector<int>>{{0, 2, 3}, {1}, {4}});
  CHECK(Members(
            GroupLayers(table.layers, {{"layers.0.a", ".*b$"}})) ==  // an exact name beside a pattern joins all blocks
        std::vector<std::vector<int>>{{0, 1, 3}, {2}, {4}});
  table.layers[0].fixed = FindScheme("BF16").value();
  CHECK(Members(GroupLayers(table.layers, {{"a", "b"}})) == std::vector<std::vector<int>>{{1}, {2, 3}, {4}});
}

TEST_CASE("a shared pattern that is invalid or matches nothing is refused, and a runtime's name fits every model") {
  const ScoreTable table = Table("W2A16", {"layers.0.q_proj", "lm_head"}, {{1.0, 1.0}});
  SelectOptions options;
  options.avg_bits = {3};
  const auto refused = [&](const std::string& entry, const std::string& words) {
    options.shared_layers = {{"layers.0", entry}};
    const absl::Status status = SelectRecipes(table, options).status();
    INFO(status.message());
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(absl::StrContains(status.message(), words));
  };
  refused("*.self_attn.k_proj", "shared_layers: \"*.self_attn.k_proj\" matches no layer");
  refused("x(", "shared_layers: the pattern \"x(\" is not a valid regular expression");
  refused("k_proj", "shared_layers: \"k_proj\" matches no layer; nearest to it are \"q_proj\"");
  refused("", "a pattern is empty");
  refused("lm_hea", "\"lm_hea\" matches no layer");  // patterns reach the layers of blocks
  for (const char* runtime : {"vllm", "llama.cpp"}) {
    options.shared_layers = {{runtime}};
    CHECK(CheckSharedLayers(table.layers, options.shared_layers).ok());
  }
}

TEST_CASE("the experts of a block are chosen together and idle ones get the mean of the others") {
  const Strings names = {"layers.0.q",
                         "layers.0.experts.0.up",
                         "layers.0.experts.0.down",
                         "layers.0.experts.1.up",
                         "layers.0.experts.1.down",
                         "layers.0.experts.2.up",
                         "layers.0.shared_expert.up"};
  ScoreTable table = Table("W2A16,W4A16", names, {{1, 4, 2, 0, 0, 7, 1}, {0, 1, 0, 0, 0, 3, 0}});
  CHECK(Members(GroupLayers(table.layers, {})) == std::vector<std::vector<int>>{{2, 1, 4, 3, 5}, {0}, {6}});
  // Means over the losses that are not zero: (4 + 2) / 2 and 7, so 5; then 1 and 3, so 2.
  CHECK(MenuLosses(table, {0, 1}) == std::vector<std::vector<double>>{{1, 4, 2, 5, 5, 7, 1}, {0, 1, 0, 2, 2, 3, 0}});
  CHECK(ExpertKey("model.layers.0.mlp.experts.12.up_proj") == "model.layers.0.mlp.experts.12");
  CHECK(ExpertKey("layers.0.moe.gate_proj") == "layers.0.moe");
  CHECK(!ExpertKey("layers.0.experts.x.up").has_value());
  CHECK(!ExpertKey("layers.0.shared_experts.up").has_value());
}

TEST_CASE("tables that make no sense are refused before anything is solved") {
  const ScoreTable good = Table("W2A16,W4A16", {"layers.0.a", "layers.0.b"}, {{2.0, 2.0}, {1.0, 1.0}});
  const auto refused = [](const ScoreTable& table, const std::string& why) {
    const auto status = Select(table, {3.0}).status();
    return status.code() == absl::StatusCode::kInvalidArgument && absl::StrContains(status.message(), why);
  };
  ScoreTable table = good;
  table.layers[1].name = "layers.0.a";
  CHECK(refused(table, "\"layers.0.a\" twice"));
  table = good;
  table.scores.pop_back();
  CHECK(refused(table, "2 schemes but results for 1"));
  table = good;
  table.scores[1].pop_back();
  CHECK(refused(table, "\"W4A16\" cover 1 layer; the model has 2"));
  table = good;
  table.layers[0].out_features = 0;
  CHECK(refused(table, "the shape [0, 128]"));
  table.layers[0].out_features = table.layers[0].in_features = int64_t{1} << 40;
  CHECK(refused(table, "at most 2^53"));
  table = good;
  table.schemes[0].bits = 9;
  CHECK(refused(table, "bits is 9"));
  CHECK(refused(ScoreTable(), "no scheme"));
}

TEST_CASE("progress is reported for every target and may stop the selection") {
  const ScoreTable table = Table("W2A16,W4A16", {"layers.0.a"}, {{2.0}, {1.0}});
  Context context;
  int calls = 0;
  context.progress = [&](const Progress& progress) {
    CHECK(progress.stage == "select");
    CHECK(progress.total == 3);
    return ++calls == 2 ? absl::AbortedError("enough") : absl::OkStatus();
  };
  CHECK(Select(table, {2.5, 3.0, 3.5}, context).status() == absl::AbortedError("enough"));
  CHECK(calls == 2);
}

}  // namespace
}  // namespace autoscheme
