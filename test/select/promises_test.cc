// What every recipe keeps to, whatever the table: its budget, its groups, fixed layers, shapes; and more bits never
// give more loss.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "autoscheme/pareto.h"
#include "autoscheme/recipe.h"
#include "formats/bits.h"
#include "formats/rules.h"
#include "formats/stand_in.h"
#include "select/groups.h"
#include "select/losses.h"

namespace autoscheme {
namespace {

using Strings = std::vector<std::string>;

LayerInfo Layer(const std::string& name, int64_t out, int64_t in, int block = 0) {
  LayerInfo layer;
  layer.name = name;
  layer.out_features = out, layer.in_features = in;
  layer.block = block;
  return layer;
}

// Every layer loses loss[s] under scheme s, as measured with its stand-in where it has one.
ScoreTable Table(const std::string& schemes, std::vector<LayerInfo> layers, const std::vector<double>& loss) {
  ScoreTable table;
  table.schemes = ParseSchemeList(schemes).value();
  table.layers = std::move(layers);
  for (size_t s = 0; s < table.schemes.size(); ++s) {
    table.scores.emplace_back();
    for (const LayerInfo& layer : table.layers) {
      LayerScore score;
      score.weight = loss[s];
      score.stand_in = StandIn(table.schemes[s], layer).has_value();
      table.scores.back().push_back(score);
    }
  }
  return table;
}

Strings Chosen(const Recipe& recipe) {
  Strings names;
  for (const LayerChoice& choice : recipe.layers) names.push_back(choice.scheme.name);
  return names;
}

absl::StatusOr<Recipe> SelectOne(const ScoreTable& table, double target, SelectOptions options = {},
                                 std::string* warnings = nullptr) {
  Context context;
  context.log = [&](LogLevel, absl::string_view text) {
    if (warnings != nullptr) absl::StrAppend(warnings, text, "\n");
  };
  options.avg_bits = {target};
  auto recipes = SelectRecipes(table, options, context);
  if (!recipes.ok()) return recipes.status();
  return recipes->front();
}

TEST_CASE("what stands in for a k-quant is charged before the choice") {
  // Rows of 576: Q2_K becomes Q5_0 (5.65625 bits), Q4_K Q4_1 (4.625); rows of 512 keep Q2_K (2.75) and Q4_K (4.625).
  const ScoreTable table =
      Table("GGUF:Q2_K_S,GGUF:Q4_K_S", {Layer("layers.0.a", 64, 576), Layer("layers.0.b", 64, 512)}, {9, 1});
  std::string warnings;
  const Recipe recipe = SelectOne(table, 4.0, {}, &warnings).value();
  CHECK(Chosen(recipe) == Strings{"GGUF:Q4_1", "GGUF:Q2_K_S"});
  CHECK(recipe.total_bits == 64 * 576 * 37 / 8 + 64 * 512 * 11 / 4);
  CHECK(recipe.avg_bits <= 4.0);
  CHECK(recipe.loss == 10);
  CHECK(absl::StrContains(warnings,
                          "others take their place and are charged, such as in \"layers.0.a\" with rows of 576: "
                          "\"GGUF:Q5_0\" for \"GGUF:Q2_K_S\""));
  // The least is Q4_1 and Q2_K, not what Q2_K alone would take.
  const absl::Status low = SelectOne(table, 3.0).status();
  CHECK(low.code() == absl::StatusCode::kInvalidArgument);
  CHECK(absl::StrContains(low.message(), "outside the reachable range [3.7426"));
  // The reference charges Q2_K and then stores Q5_0.
  ScoreTable plain = table;
  for (auto& row : plain.scores) row[0].stand_in = false;
  SelectOptions reference;
  reference.reference_rules = true;
  const Recipe exceeding = SelectOne(plain, 2.75, reference).value();
  CHECK(Chosen(exceeding) == Strings{"GGUF:Q5_0", "GGUF:Q2_K_S"});
  CHECK(exceeding.avg_bits > 4);
  CHECK(absl::StrContains(SelectOne(table, 2.75, reference).status().message(), "score again with reference_rules"));
}

TEST_CASE("scores without those of stand-ins are solved with the k-quant's, and that is said") {
  ScoreTable table =
      Table("GGUF:Q2_K_S,GGUF:Q4_K_S", {Layer("layers.0.a", 64, 576), Layer("layers.0.b", 64, 512)}, {9, 1});
  for (auto& row : table.scores) row[0].stand_in = false;
  std::string warnings;
  const Recipe recipe = SelectOne(table, 4.0, {}, &warnings).value();
  CHECK(Chosen(recipe) == Strings{"GGUF:Q4_1", "GGUF:Q2_K_S"});
  CHECK(absl::StrContains(warnings, "the scores lack the loss of 2 stand-ins"));
}

TEST_CASE("a fixed k-quant that its layer cannot hold is replaced by name, and charged as what it becomes") {
  ScoreTable table = Table("W4A16,W8A16", {Layer("layers.0.a", 64, 576), Layer("layers.0.b", 64, 512)}, {9, 1});
  table.layers[0].fixed = FindScheme("GGUF:Q6_K").value();
  std::string warnings;
  const Recipe recipe = SelectOne(table, 7.0, {}, &warnings).value();
  CHECK(Chosen(recipe) == Strings{"GGUF:Q8_0", "W4A16"});
  CHECK(recipe.total_bits == 64 * 576 * 35 / 4 + LayerBits(table.schemes[0], 64, 512, false));
  CHECK(absl::StrContains(warnings, "1 fixed layer gets another scheme than the one asked for"));
  CHECK(absl::StrContains(warnings,
                          "\"layers.0.a\", whose rows of 576 weights \"GGUF:Q6_K\" cannot hold, gets \"GGUF:Q8_0\""));
}

TEST_CASE("free layers of a shared group take the scheme of a fixed one") {
  ScoreTable table = Table("W4A16,W8A16",
                           {Layer("layers.0.self_attn.q_proj", 128, 128), Layer("layers.0.self_attn.k_proj", 64, 128),
                            Layer("layers.0.self_attn.v_proj", 64, 128), Layer("layers.0.self_attn.o_proj", 128, 128)},
                           {8, 1});
  SelectOptions options;
  options.shared_layers = {{"vllm"}};
  table.layers[2].fixed = FindScheme("W8A16").value();
  std::string warnings;
  Recipe recipe = SelectOne(table, 7.0, options, &warnings).value();
  CHECK(Chosen(recipe) == Strings{"W8A16", "W8A16", "W8A16", "W4A16"});
  CHECK(recipe.layers[0].fixed);
  CHECK(recipe.loss == 1 + 1 + 8);
  CHECK(absl::StrContains(warnings, "2 layers are fixed because another of the same shared group is"));
  CHECK(absl::StrContains(warnings, "takes \"W8A16\" from \"layers.0.self_attn.v_proj\""));
  // As when v stays at 16 bits, or its shape keeps it there.
  table.layers[2].fixed = FindScheme("BF16").value();
  recipe = SelectOne(table, 12.5, options).value();
  CHECK(Chosen(recipe) == Strings{"BF16", "BF16", "BF16", "W4A16"});
  CHECK(recipe.loss == 8);
  // A scheme off the menu: its loss is not known, which is said.
  table.layers[2].fixed = FindScheme("W6A16").value();
  warnings.clear();
  CHECK(Chosen(SelectOne(table, 6.0, options, &warnings).value()) == Strings{"W6A16", "W6A16", "W6A16", "W4A16"});
  CHECK(absl::StrContains(warnings, "the predicted loss leaves out 2 layers"));
  CHECK(absl::StrContains(warnings, "\"layers.0.self_attn.k_proj\" under \"W6A16\"; score with that scheme"));
  // Scored, but not among the schemes that are chosen from: it counts.
  ScoreTable wider = Table("W4A16,W6A16,W8A16", table.layers, {8, 3, 1});
  options.schemes = {"W4A16", "W8A16"};
  warnings.clear();
  recipe = SelectOne(wider, 6.0, options, &warnings).value();
  CHECK(Chosen(recipe) == Strings{"W6A16", "W6A16", "W6A16", "W4A16"});
  CHECK(recipe.loss == 3 + 3 + 8);
  CHECK(!absl::StrContains(warnings, "leaves out"));
  options.schemes.clear();
  // Two that contradict each other.
  table.layers[0].fixed = FindScheme("W4A16").value();
  const absl::Status both = SelectOne(table, 6.0, options).status();
  CHECK(both.code() == absl::StatusCode::kInvalidArgument);
  CHECK(absl::StrContains(both.message(), "of block 0 must have one scheme"));
  CHECK(absl::StrContains(both.message(), "\"layers.0.self_attn.q_proj\" is fixed at \"W4A16\""));
  CHECK(absl::StrContains(both.message(), "\"layers.0.self_attn.v_proj\" is fixed at \"W6A16\""));
}

TEST_CASE("a fixed scheme that does not suit the rest of its group is refused by name") {
  ScoreTable table = Table("FP8_STATIC", {Layer("layers.0.q_proj", 40, 128), Layer("layers.0.k_proj", 64, 128)}, {1});
  table.layers[1].fixed = FindScheme("W4A16").value();
  SelectOptions options;
  options.shared_layers = {{"q_proj", "k_proj"}};
  const absl::Status status = SelectOne(table, 8.125, options).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(
      absl::StrContains(status.message(), "is fixed at \"W4A16\", which does not suit \"layers.0.q_proj\" [40, 128]"));
}

TEST_CASE("a shared group whose layers would get different stand-ins does not get that scheme") {
  const ScoreTable table =
      Table("GGUF:Q4_K_S,W8A16", {Layer("layers.0.q_proj", 64, 576), Layer("layers.0.k_proj", 64, 512)}, {0, 1});
  SelectOptions options;
  options.shared_layers = {{"q_proj", "k_proj"}};
  CHECK(Chosen(SelectOne(table, 8.19853, options).value()) == Strings{"W8A16", "W8A16"});
}

TEST_CASE("a larger target never gives more loss, though the embedding and the head would take the difference") {
  // The embedding wants a scheme of the target's whole bits: at 4 bits it would take two bits more from the layers.
  std::vector<LayerInfo> layers = {Layer("embed", 2048, 256, -1), Layer("layers.0.a", 256, 256),
                                   Layer("layers.0.b", 256, 256)};
  layers[0].is_embedding = true;
  const ScoreTable table =
      Table("GGUF:Q2_K_S,GGUF:Q3_K_S,GGUF:Q4_K_S,GGUF:Q5_K_S,GGUF:Q6_K", layers, {100, 50, 20, 5, 1});
  SelectOptions reference;
  reference.reference_rules = true;
  bool reference_rises = false;
  double last = std::numeric_limits<double>::infinity(), reference_last = last;
  for (double target = 2.75; target <= 7.25; target += 0.01) {
    INFO(target);
    const Recipe recipe = SelectOne(table, target).value();
    CHECK(recipe.avg_bits <= target + 1e-5);
    CHECK(recipe.loss <= last);
    last = recipe.loss;
    const Recipe theirs = SelectOne(table, target, reference).value();
    reference_rises = reference_rises || theirs.loss > reference_last;
    reference_last = theirs.loss;
    CHECK(recipe.loss <= theirs.loss);
  }
  CHECK(reference_rises);
}

TEST_CASE("a front under the reference's rules is what they select at its points") {
  std::vector<LayerInfo> layers = {Layer("embed", 2048, 256, -1), Layer("layers.0.a", 256, 256),
                                   Layer("layers.0.b", 256, 512), Layer("lm_head", 2048, 256, -1)};
  layers[0].is_embedding = true, layers[3].is_head = true;
  const ScoreTable table =
      Table("GGUF:Q2_K_S,GGUF:Q3_K_S,GGUF:Q4_K_S,GGUF:Q5_K_S,GGUF:Q6_K", layers, {100, 50, 20, 5, 1});
  for (const bool reference : {true, false}) {
    SelectOptions options;
    options.reference_rules = reference;
    const ParetoFront front = FindParetoFront(table, options).value();
    REQUIRE(front.points.size() > 5);
    for (const ParetoPoint& point : front.points) {
      const Recipe recipe = SelectOne(table, point.avg_bits, options).value();
      CHECK(recipe.total_bits == point.total_bits);
      CHECK(recipe.loss == point.loss);
      CHECK(recipe.avg_bits == point.avg_bits);
      CHECK(recipe.gap == 0);
    }
  }
}

TEST_CASE("a recipe never reports more bits than its target, to the last digit, and meets it where it can") {
  // One weight of 3 x 7 elements: averages that no double holds, as 100/21.
  for (int64_t rows = 3; rows < 200; rows += 4) {
    std::vector<LayerInfo> layers;
    for (int b = 0; b < 6; ++b) layers.push_back(Layer(absl::StrCat("layers.", b, ".a"), rows, 7 * (b + 1), b));
    const ScoreTable table = Table("INT4,INT8", layers, {8, 1});
    const ParetoFront front = FindParetoFront(table, {}).value();
    for (const ParetoPoint& point : front.points) {
      const Recipe met = SelectOne(table, point.avg_bits).value();
      CHECK(met.total_bits == point.total_bits);
      CHECK(met.avg_bits == point.avg_bits);
      if (&point == &front.points.front()) continue;
      const double below = std::nextafter(point.avg_bits, 0.0), above = std::nextafter(point.avg_bits, 99.0);
      CHECK(SelectOne(table, below).value().avg_bits <= below);
      CHECK(SelectOne(table, above).value().avg_bits == point.avg_bits);
    }
  }
}

// ---- random tables ----

struct Random {
  std::mt19937_64 engine;
  int Below(int n) { return static_cast<int>(engine() % static_cast<uint64_t>(n)); }
  bool Chance(int one_in) { return Below(one_in) == 0; }
  template <typename T>
  T Of(const std::vector<T>& values) {
    return values[static_cast<size_t>(Below(static_cast<int>(values.size())))];
  }
  double Loss() {
    if (Chance(60)) return std::numeric_limits<double>::quiet_NaN();
    if (Chance(20)) return 0;
    return std::exp(std::uniform_real_distribution<double>(-6, 6)(engine));
  }
};

const Strings kSchemes = {"W2A16",     "W3A16",       "W4A16",       "W5A16",       "W6A16",       "W8A16",
                          "W2A16G64",  "W4A16_MIXED", "MXFP4",       "MXFP8",       "NVFP4",       "FP8_STATIC",
                          "BF16",      "INT8",        "GGUF:Q2_K_S", "GGUF:Q3_K_S", "GGUF:Q4_K_S", "GGUF:Q5_K_S",
                          "GGUF:Q6_K", "GGUF:Q4_0",   "GGUF:Q4_1",   "GGUF:Q5_0",   "GGUF:Q8_0"};

struct Instance {
  ScoreTable table;
  SelectOptions options;
};

Instance RandomInstance(Random& random) {
  Instance made;
  ScoreTable& table = made.table;
  while (table.schemes.empty() || random.Below(5) > 0) {
    const auto scheme = FindScheme(random.Of(kSchemes));
    if (!scheme.ok()) continue;
    const bool known = std::any_of(table.schemes.begin(), table.schemes.end(),
                                   [&](const Scheme& s) { return SameScheme(s, *scheme); });
    if (!known) table.schemes.push_back(*scheme);
  }
  const std::vector<int64_t> rows = {32, 40, 64, 96, 256}, columns = {32, 48, 72, 128, 256, 512, 576, 768};
  const int64_t hidden = random.Of(columns), inner = random.Of(columns), kv = random.Of(rows);
  std::vector<LayerInfo> candidates;
  if (random.Chance(2)) {
    candidates.push_back(Layer("model.embed_tokens", random.Of(rows) * 8, hidden, -1));
    candidates.back().is_embedding = true;
  }
  const int blocks = 1 + random.Below(3);
  for (int b = 0; b < blocks; ++b) {
    const std::string prefix = absl::StrCat("model.layers.", b, ".");
    candidates.push_back(Layer(prefix + "self_attn.q_proj", random.Chance(3) ? random.Of(rows) : 64, hidden, b));
    candidates.push_back(Layer(prefix + "self_attn.k_proj", kv, hidden, b));
    candidates.push_back(Layer(prefix + "self_attn.v_proj", kv, hidden, b));
    if (random.Chance(2)) candidates.push_back(Layer(prefix + "mlp.gate_proj", 64, hidden, b));
    candidates.push_back(Layer(prefix + "mlp.up_proj", 64, hidden, b));
    candidates.push_back(Layer(prefix + "mlp.down_proj", hidden, inner, b));
  }
  candidates.push_back(Layer("lm_head", 256, hidden, -1));
  candidates.back().is_head = true;
  RuleOptions rules;
  rules.menu = table.schemes;
  rules.quant_lm_head = random.Chance(2);
  rules.other_names = {"vision.gate_proj"};
  rules.tied_head = table.tied_head = random.Chance(3);
  if (random.Chance(4))
    rules.ignore_layers = random.Of<std::string>({"v_proj", "layers.0", "down_proj", "q_proj,up_proj", "lm_head"});
  if (random.Chance(4)) {
    rules.layer_config = {{random.Of<std::string>({"k_proj", "gate_proj", "layers.0.mlp", "down_proj"}),
                           FindScheme(random.Of(kSchemes)).value_or(Scheme{})}};
  }
  table.layers = ResolveLayers(candidates, rules).value();
  table.other_bytes = random.Below(1000);
  const bool measured = random.Chance(2);
  for (const Scheme& scheme : table.schemes) {
    table.scores.emplace_back();
    for (const LayerInfo& layer : table.layers) {
      LayerScore score;
      if (!layer.fixed.has_value()) {
        if (scheme.QuantizesWeight()) score.weight = random.Loss();
        if (scheme.QuantizesActivation()) score.activation = random.Loss();
        score.stand_in = measured && StandIn(scheme, layer).has_value();
      }
      table.scores.back().push_back(score);
    }
  }
  made.options.ignore_scale_zp_bits = random.Chance(5);
  if (table.schemes.size() > 1 && random.Chance(3)) {  // a part of the menu
    for (const Scheme& scheme : table.schemes) {
      if (random.Below(3) > 0) made.options.schemes.push_back(scheme.name);
    }
  }
  if (random.Chance(2)) {
    made.options.shared_layers = random.Of<std::vector<Strings>>({{{"vllm"}},
                                                                  {{"q_proj", "down_proj"}},
                                                                  {{"up_proj", "down_proj"}, {"k_proj", "v_proj"}},
                                                                  {{"lm_head", "model.layers.0.mlp.up_proj"}}});
    if (!CheckSharedLayers(table.layers, made.options.shared_layers).ok()) made.options.shared_layers.clear();
  }
  return made;
}

// What must be true of any recipe.
void CheckRecipe(const Instance& instance, const Recipe& recipe) {
  const ScoreTable& table = instance.table;
  REQUIRE(recipe.layers.size() == table.layers.size());
  int64_t bits = 0;
  std::vector<int> menu;
  for (size_t s = 0; s < table.schemes.size(); ++s) {
    const Strings& asked = instance.options.schemes;
    if (asked.empty() || std::find(asked.begin(), asked.end(), table.schemes[s].name) != asked.end())
      menu.push_back(static_cast<int>(s));
  }
  const std::vector<std::vector<double>> losses = MenuLosses(table, menu);
  double least_loss = 0, most_loss = 0;  // where options share a type, it may have been chosen by the loss of either
  for (size_t l = 0; l < table.layers.size(); ++l) {
    const LayerInfo& layer = table.layers[l];
    const Scheme& scheme = recipe.layers[l].scheme;
    INFO(layer.name << " [" << layer.out_features << ", " << layer.in_features << "]: " << scheme.name);
    bits += LayerBits(scheme, layer.out_features, layer.in_features, instance.options.ignore_scale_zp_bits);
    CHECK(!StandIn(scheme, layer).has_value());
    if (layer.fixed.has_value()) {
      CHECK(recipe.layers[l].fixed);
      CHECK(SameScheme(scheme, StoredScheme(*layer.fixed, layer)));
      continue;
    }
    bool on_menu = recipe.layers[l].fixed, suits = recipe.layers[l].fixed;
    double least = std::numeric_limits<double>::infinity(), most = 0;
    for (size_t k = 0; k < menu.size(); ++k) {
      const Scheme& option = table.schemes[menu[k]];
      if (!SameScheme(scheme, StoredScheme(option, layer))) continue;
      on_menu = true, suits = suits || layer.is_embedding || SuitsShape(option, layer);
      if (!std::isfinite(losses[k][l])) continue;
      least = std::min(least, losses[k][l]), most = std::max(most, losses[k][l]);
    }
    CHECK(on_menu);
    CHECK(suits);
    for (size_t s = 0; s < table.schemes.size() && recipe.layers[l].fixed && most == 0; ++s) {
      if (!SameScheme(scheme, StoredScheme(table.schemes[s], layer))) continue;
      std::vector<int> longer = menu;
      longer.push_back(static_cast<int>(s));
      const double loss = MenuLosses(table, longer).back()[l];
      if (std::isfinite(loss)) most_loss += loss;
    }
    // What a group has fixed counts as far as it was measured, and nothing at 16 bits.
    if (std::isfinite(least)) least_loss += recipe.layers[l].fixed ? 0 : least, most_loss += most;
  }
  CHECK(bits == recipe.total_bits);
  CHECK(recipe.loss >= least_loss * (1 - 1e-12));
  CHECK(recipe.loss <= most_loss * (1 + 1e-12));
  for (const LayerGroup& group : GroupLayers(table.layers, instance.options.shared_layers)) {
    if (!group.shared) continue;
    std::vector<int> all = group.members;
    all.insert(all.end(), group.bystanders.begin(), group.bystanders.end());
    for (int l : all) {
      const Scheme &a = recipe.layers[all[0]].scheme, &b = recipe.layers[l].scheme;
      INFO(table.layers[all[0]].name << ": " << a.name << ", " << table.layers[l].name << ": " << b.name);
      CHECK((SameScheme(a, b) || (a.IsPassThrough() && b.IsPassThrough())));
    }
  }
}

// The two ends that an error about the range names.
std::pair<double, double> Range(const absl::Status& status) {
  const std::string text(status.message());
  const size_t at = text.find("reachable range [");
  REQUIRE(at != std::string::npos);
  const char* low = text.c_str() + at + 17;
  char* end = nullptr;
  const double least = std::strtod(low, &end);
  return {least, std::strtod(end + 2, nullptr)};
}

// The front and the recipes are one: a point's bits as the target give that choice, and no recipe beats the front.
void CheckFront(const Instance& instance, const std::vector<Recipe>& recipes, int* compared) {
  for (const int64_t most : {int64_t{1} << 40, int64_t{20}}) {
    const auto front = FindParetoFront(instance.table, instance.options, most);
    INFO(front.status().ToString());
    REQUIRE(front.ok());
    REQUIRE(!front->points.empty());
    INFO("front of " << front->points.size() << " points, complete " << front->complete);
    SelectOptions options = instance.options;
    for (size_t i = 0; i < front->points.size(); i += 1 + front->points.size() / 7) {
      options.avg_bits.push_back(front->points[i].avg_bits);
    }
    options.avg_bits.push_back(front->points.back().avg_bits);
    const auto chosen = SelectRecipes(instance.table, options);
    INFO(chosen.status().ToString());
    REQUIRE(chosen.ok());
    for (size_t i = 0, j = 0; j < chosen->size(); i += 1 + front->points.size() / 7, ++j) {
      const ParetoPoint& point = front->points[std::min(i, front->points.size() - 1)];
      const Recipe& recipe = chosen->at(j);
      if (recipe.gap > 0) continue;
      INFO("point of " << point.total_bits << " bits and loss " << point.loss);
      CHECK(recipe.loss == Approx(point.loss).epsilon(1e-9).margin(1e-9));
      if (front->complete) CHECK(recipe.total_bits == point.total_bits);
      ++*compared;
    }
    if (!front->complete) continue;
    for (const Recipe& recipe : recipes) {
      double best = std::numeric_limits<double>::infinity();
      for (const ParetoPoint& point : front->points) {
        if (point.total_bits <= recipe.total_bits) best = point.loss;
      }
      CHECK(recipe.loss >= best);
      CHECK(recipe.loss - recipe.gap <= best * (1 + 1e-12));
    }
  }
}

TEST_CASE("ten thousand random tables: recipes keep their promises, and more bits never lose more") {
  Random random{std::mt19937_64(20261128)};
  int solved = 0, refused = 0, by_size = 0, compared = 0;
  for (int round = 0; round < 10000; ++round) {
    INFO("round " << round);
    const Instance instance = RandomInstance(random);
    const absl::Status outside = SelectOne(instance.table, 0.2, instance.options).status();
    REQUIRE(!outside.ok());
    if (!absl::StrContains(outside.message(), "reachable range")) {
      CHECK((absl::StrContains(outside.message(), "must have one scheme") ||
             absl::StrContains(outside.message(), "suits") ||
             absl::StrContains(outside.message(), "no other scheme gives it a finite one")));
      ++refused;
      continue;
    }
    const auto [low, high] = Range(outside);
    SelectOptions options = instance.options;
    options.avg_bits = {low, high};
    for (int i = 0; i < 4; ++i)
      options.avg_bits.push_back(std::uniform_real_distribution<double>(low, high)(random.engine));
    std::sort(options.avg_bits.begin(), options.avg_bits.end());
    const auto recipes = SelectRecipes(instance.table, options);
    INFO(recipes.status().ToString());
    REQUIRE(recipes.ok());
    // The lower end as it was printed may be a last digit below the least.
    const double least_bits = recipes->front().avg_bits;
    CHECK(least_bits <= low + 1e-4);
    double last = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < recipes->size(); ++i) {
      const Recipe& recipe = recipes->at(i);
      INFO("target " << options.avg_bits[i] << ", " << recipe.avg_bits << " bits, loss " << recipe.loss);
      CheckRecipe(instance, recipe);
      CHECK(recipe.avg_bits <= std::max(options.avg_bits[i], least_bits));
      CHECK(recipe.loss - recipe.gap <= last * (1 + 1e-12));
      last = std::min(last, recipe.loss);
      ++solved;
    }
    if (round % 4 == 0) CheckFront(instance, *recipes, &compared);
    // The same for sizes, where the least is named in bytes.
    SelectOptions sizes = instance.options;
    sizes.target_bytes = {1};
    const absl::Status too_small = SelectRecipes(instance.table, sizes).status();
    const size_t at = too_small.message().find("is below the ");
    REQUIRE(at != absl::string_view::npos);
    const int64_t least = std::atoll(std::string(too_small.message().substr(at + 13)).c_str());
    sizes.target_bytes = {least, least + random.Below(20000), int64_t{1} << 40};
    const auto sized = SelectRecipes(instance.table, sizes);
    INFO(sized.status().ToString());
    REQUIRE(sized.ok());
    last = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < sized->size(); ++i) {
      CheckRecipe(instance, sized->at(i));
      CHECK(sized->at(i).model_bytes <= sizes.target_bytes[i]);
      CHECK(sized->at(i).loss - sized->at(i).gap <= last * (1 + 1e-12));
      last = std::min(last, sized->at(i).loss);
      ++by_size;
    }
  }
  CHECK(solved > 40000);
  CHECK(by_size > 20000);
  CHECK(refused > 100);
  CHECK(compared > 10000);
}

}  // namespace
}  // namespace autoscheme
