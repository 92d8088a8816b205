#include "autoscheme/pareto.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "formats/bits.h"

namespace autoscheme {
namespace {

// Layers of random shapes and losses that fall with bits, not smoothly.
ScoreTable RandomTable(int layers, const char* menu, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform(0.5, 2.0);
  ScoreTable table;
  table.schemes = ParseSchemeList(menu).value();
  table.other_bytes = 1000;
  table.scores.resize(table.schemes.size());
  for (int l = 0; l < layers; ++l) {
    LayerInfo layer;
    layer.name = "layers." + std::to_string(l) + ".a";
    layer.block = l;
    layer.out_features = 64 * (1 + static_cast<int64_t>(random() % 3)), layer.in_features = 128;
    table.layers.push_back(layer);
    for (size_t s = 0; s < table.schemes.size(); ++s) {
      table.scores[s].push_back({uniform(random) * 100 / (1 << table.schemes[s].bits), 0});
    }
  }
  return table;
}

struct Choice {
  int64_t bits = 0, bytes = 0;
  double loss = 0;
};

// Every choice there is.
std::vector<Choice> All(const ScoreTable& table) {
  std::vector<Choice> all = {{}};
  for (size_t l = 0; l < table.layers.size(); ++l) {
    std::vector<Choice> longer;
    for (const Choice& choice : all) {
      for (size_t s = 0; s < table.schemes.size(); ++s) {
        const LayerInfo& layer = table.layers[l];
        longer.push_back({choice.bits + LayerBits(table.schemes[s], layer.out_features, layer.in_features, false),
                          choice.bytes + FileBytes(table.schemes[s], layer.out_features, layer.in_features),
                          choice.loss + table.scores[s][l].weight});
      }
    }
    all.swap(longer);
  }
  return all;
}

TEST_CASE("the front holds every efficient choice, by brute force") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const ScoreTable table = RandomTable(7, "W2A16,W3A16,W4A16,W8A16", seed);
    std::map<int64_t, double> least;  // loss by bits
    for (const Choice& choice : All(table)) {
      const auto [at, is_new] = least.emplace(choice.bits, choice.loss);
      if (!is_new) at->second = std::min(at->second, choice.loss);
    }
    std::vector<std::pair<int64_t, double>> efficient;
    for (const auto& [bits, loss] : least) {
      if (efficient.empty() || loss < efficient.back().second) efficient.emplace_back(bits, loss);
    }
    const ParetoFront front = FindParetoFront(table, {}).value();
    CHECK(front.complete);
    REQUIRE(front.points.size() == efficient.size());
    for (size_t i = 0; i < efficient.size(); ++i) {
      CHECK(front.points[i].total_bits == efficient[i].first);
      CHECK(front.points[i].loss == Approx(efficient[i].second).epsilon(1e-12));
      if (i + 1 < efficient.size()) {
        const double saved = efficient[i].second - efficient[i + 1].second;
        CHECK(front.points[i].marginal_value * (efficient[i + 1].first - efficient[i].first) ==
              Approx(saved).epsilon(1e-6));
      } else {
        CHECK(front.points[i].marginal_value == 0);
      }
    }
  }
}

TEST_CASE("a front too large to list becomes the corners of its convex hull") {
  const ScoreTable table = RandomTable(7, "W2A16,W3A16,W4A16,W8A16", 3);
  const ParetoFront whole = FindParetoFront(table, {}).value();
  const ParetoFront hull = FindParetoFront(table, {}, /*max_points=*/10).value();
  CHECK_FALSE(hull.complete);
  REQUIRE(hull.points.size() >= 3);
  REQUIRE(hull.points.size() < whole.points.size());
  CHECK(hull.points.front().total_bits == whole.points.front().total_bits);
  CHECK(hull.points.back().total_bits == whole.points.back().total_bits);
  for (size_t i = 0; i < hull.points.size(); ++i) {
    // A corner is an efficient choice.
    const bool efficient = std::any_of(whole.points.begin(), whole.points.end(), [&](const ParetoPoint& p) {
      return p.total_bits == hull.points[i].total_bits && p.loss == Approx(hull.points[i].loss).epsilon(1e-9);
    });
    CHECK(efficient);
    if (i > 1) CHECK(hull.points[i - 1].marginal_value < hull.points[i - 2].marginal_value);
    // No choice lies below the line to the next one.
    if (i + 1 == hull.points.size()) break;
    for (const ParetoPoint& p : whole.points) {
      const double line = hull.points[i].loss -
                          hull.points[i].marginal_value * static_cast<double>(p.total_bits - hull.points[i].total_bits);
      CHECK(p.loss >= line - 1e-9);
    }
  }
}

TEST_CASE("a recipe for a point's bits has its loss") {
  const ScoreTable table = RandomTable(30, "W2A16,W4A16,W8A16", 5);
  const ParetoFront front = FindParetoFront(table, {}).value();
  SelectOptions options;
  for (size_t i = 0; i < front.points.size(); i += front.points.size() / 7) {
    options.avg_bits.push_back(front.points[i].avg_bits + 1e-9);
  }
  const auto recipes = SelectRecipes(table, options).value();
  for (size_t i = 0, j = 0; i < front.points.size(); i += front.points.size() / 7, ++j) {
    CHECK(recipes[j].loss == Approx(front.points[i].loss).epsilon(1e-12));
  }
}

TEST_CASE("a target size is kept in stored bytes, and met by the best choice") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const ScoreTable table = RandomTable(7, "W2A16,MXFP4,W4A16,W8A16", seed);
    const std::vector<Choice> all = All(table);
    const auto [smallest, largest] =
        std::minmax_element(all.begin(), all.end(), [](const Choice& a, const Choice& b) { return a.bytes < b.bytes; });
    for (const double part : {0.0, 0.1, 0.5, 0.9, 1.0, 2.0}) {
      SelectOptions options;
      options.target_bytes = {table.other_bytes + smallest->bytes +
                              static_cast<int64_t>(part * static_cast<double>(largest->bytes - smallest->bytes))};
      const auto recipes = SelectRecipes(table, options);
      INFO(recipes.status().ToString());
      REQUIRE(recipes.ok());
      const Recipe& recipe = recipes->front();
      CHECK(recipe.model_bytes <= options.target_bytes[0]);
      CHECK(recipe.model_bytes == recipe.layer_bytes + 1000);
      CHECK(recipe.target_bytes == options.target_bytes[0]);
      double best = 1e300;
      for (const Choice& choice : all) {
        if (choice.bytes + table.other_bytes <= options.target_bytes[0]) best = std::min(best, choice.loss);
      }
      CHECK(recipe.loss == Approx(best).epsilon(1e-12));
    }
    SelectOptions options;
    options.target_bytes = {table.other_bytes + smallest->bytes - 1};
    const absl::Status status = SelectRecipes(table, options).status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Catch::Contains(std::to_string(table.other_bytes + smallest->bytes)));
  }
}

TEST_CASE("a target size needs to know what else the model holds") {
  ScoreTable table = RandomTable(3, "W2A16,W4A16", 1);
  table.other_bytes = -1;
  SelectOptions options;
  options.target_bytes = {1 << 20};
  CHECK_THAT(std::string(SelectRecipes(table, options).status().message()), Catch::Contains("score again"));
}

TEST_CASE("a head that is the embedding is stored again only when it is quantized") {
  ScoreTable table = RandomTable(2, "W4A16", 1);
  table.layers[1].is_head = true, table.layers[1].block = -1;
  table.layers[1].fixed = FindScheme("BF16").value();
  SelectOptions options;
  options.avg_bits = {4.15625};
  const auto average = [&](const Recipe& r) { return r.layer_bytes; };
  const int64_t first = FileBytes(table.schemes[0], table.layers[0].out_features, 128);
  const int64_t head = table.layers[1].out_features * 128;
  options.avg_bits = {
      static_cast<double>(LayerBits(table.schemes[0], table.layers[0].out_features, 128, false) + 16 * head) /
      static_cast<double>(head + table.layers[0].out_features * 128)};
  CHECK(average(SelectRecipes(table, options).value()[0]) == first + 2 * head);
  table.tied_head = true;
  CHECK(average(SelectRecipes(table, options).value()[0]) == first);
}

TEST_CASE("a runtime's name ties what it fuses") {
  ScoreTable table;
  table.schemes = ParseSchemeList("W2A16,W8A16").value();
  table.scores.resize(2);
  for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    LayerInfo layer;
    layer.name = std::string("model.layers.0.self_attn.") + name, layer.block = 0;
    layer.out_features = 64, layer.in_features = 128;
    table.layers.push_back(layer);
  }
  for (const char* name : {"gate_proj", "up_proj", "down_proj"}) {
    LayerInfo layer = table.layers[0];
    layer.name = std::string("model.layers.0.mlp.") + name;
    table.layers.push_back(layer);
  }
  const std::vector<double> losses = {9, 1, 1, 5, 7, 1, 6};
  for (const double loss : losses) table.scores[0].push_back({loss, 0}), table.scores[1].push_back({0.1, 0});
  const auto chosen = [&](const std::string& runtime) {
    SelectOptions options;
    options.avg_bits = {5.0};
    options.shared_layers = {{runtime}};
    std::string bits;
    const std::vector<Recipe> recipes = SelectRecipes(table, options).value();
    for (const LayerChoice& choice : recipes[0].layers) bits += std::to_string(choice.scheme.bits);
    return bits;
  };
  for (const char* runtime : {"vllm", "sglang", "tensorrt-llm", "vLLM"}) {
    const std::string bits = chosen(runtime);
    CHECK(bits[0] == bits[1]);
    CHECK(bits[1] == bits[2]);
    CHECK(bits[4] == bits[5]);
  }
  CHECK(chosen("llama.cpp") == "8222828");
}

}  // namespace
}  // namespace autoscheme
