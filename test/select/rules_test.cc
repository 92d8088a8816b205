// Which layers take part, and which are fixed: docs/algorithm.md 2.
#include "formats/rules.h"

#include <catch2/catch.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/bits.h"

namespace autoscheme {
namespace {

LayerInfo Linear(const std::string& name, int block, int64_t out = 64, int64_t in = 64) {
  LayerInfo layer;
  layer.name = name;
  layer.block = block;
  layer.out_features = out;
  layer.in_features = in;
  return layer;
}

// Blocks 0, 1, 10 with two layers each, and a head.
std::vector<LayerInfo> Model() {
  std::vector<LayerInfo> layers;
  for (int block : {0, 1, 10}) {
    for (const char* leaf : {"self_attn.q_proj", "mlp.down_proj"}) {
      layers.push_back(Linear(absl::StrCat("model.layers.", block, ".", leaf), block));
    }
  }
  layers.push_back(Linear("lm_head", -1, 320, 64));
  layers.back().is_head = true;
  return layers;
}

RuleOptions Menu(const std::string& schemes) {
  RuleOptions options;
  options.menu = ParseSchemeList(schemes).value();
  return options;
}

std::vector<std::string> Names(const std::vector<LayerInfo>& layers, bool fixed) {
  std::vector<std::string> names;
  for (const LayerInfo& layer : layers) {
    if (layer.fixed.has_value() == fixed) names.push_back(layer.name);
  }
  return names;
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

TEST_CASE("by default every layer of the blocks takes part and the head does not") {
  const auto layers = ResolveLayers(Model(), Menu("W4A16")).value();
  CHECK(layers.size() == 6);
  CHECK(Names(layers, true).empty());
}

TEST_CASE("an ignored layer stays at 16 bits on both sides, other fields as the default has them") {
  RuleOptions options = Menu("W2A16,W4A16");
  options.ignore_layers = " layers.0.self_attn.q_proj , mlp";
  const auto layers = ResolveLayers(Model(), options).value();
  CHECK(Names(layers, true) == std::vector<std::string>{"model.layers.0.self_attn.q_proj",
                                                        "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj",
                                                        "model.layers.10.mlp.down_proj"});
  const Scheme& fixed = *layers[0].fixed;
  CHECK(fixed.bits == 16);
  CHECK(fixed.act_bits == 16);
  CHECK(fixed.data_type == "float");
  CHECK(fixed.act_data_type == "float");
  CHECK(fixed.group == GroupSize{128, 0});
  CHECK(fixed.act_group == GroupSize{128, 0});
  CHECK(fixed.act_sym == true);
  CHECK(fixed.act_dynamic == true);
  CHECK(LayerBits(fixed, 64, 64, false) == 16 * 64 * 64);
}

TEST_CASE("an entry that ends in a digit means that number alone") {
  RuleOptions options = Menu("W4A16");
  options.ignore_layers = "layers.1";
  CHECK(Names(ResolveLayers(Model(), options).value(), true) ==
        std::vector<std::string>{"model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj"});
}

TEST_CASE("layer_config takes names, parts of names and expressions, and a later pattern wins") {
  RuleOptions options = Menu("W2A16,W4A16");
  const Scheme w8 = FindScheme("W8A16").value(), mx = FindScheme("MXFP8").value();
  options.layer_config = {{"model.layers.0.mlp.down_proj", w8}, {"layers\\.(1|10)\\.mlp", w8}, {"10.mlp", mx}};
  const auto layers = ResolveLayers(Model(), options).value();
  CHECK(Names(layers, true) == std::vector<std::string>{"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj",
                                                        "model.layers.10.mlp.down_proj"});
  CHECK(layers[1].fixed->name == "W8A16");
  CHECK(layers[1].fixed->act_bits == 16);  // filled from the default
  CHECK(layers[3].fixed->name == "W8A16");
  CHECK(layers[5].fixed->name == "MXFP8");
  CHECK(layers[5].fixed->act_bits == 8);
}

TEST_CASE("ignore_layers wins over a pattern of layer_config") {
  RuleOptions options = Menu("W2A16");
  options.layer_config = {{"down_proj", FindScheme("W8A16").value()}};
  options.ignore_layers = "layers.0.mlp";
  const auto layers = ResolveLayers(Model(), options).value();
  CHECK(layers[1].fixed->bits == 16);
  CHECK(layers[3].fixed->bits == 8);
}

TEST_CASE("a pattern that matches nothing is refused with the nearest names, as an invalid one is") {
  RuleOptions options = Menu("W4A16");
  const auto refused = [&](const std::string& words) {
    const absl::Status status = ResolveLayers(Model(), options).status();
    INFO(status.message());
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(absl::StrContains(status.message(), words));
  };
  options.ignore_layers = "q_porj";
  refused("ignore_layers: \"q_porj\" matches no layer; nearest to it are \"q_proj\"");
  options.ignore_layers = "q_proj, layers.3";  // quoted as it was written
  refused("ignore_layers: \"layers.3\" matches no layer");
  options.ignore_layers = "";
  options.layer_config = {{"model.layers.0.mlp.dwn_proj", FindScheme("W8A16").value()}};
  refused(
      "layer_config: \"model.layers.0.mlp.dwn_proj\" matches no layer; nearest to it are "
      "\"model.layers.0.mlp.down_proj\"");
  options.layer_config = {{"", FindScheme("W8A16").value()}};
  refused("layer_config: a pattern is empty, which would match every layer");

  // What is left alone anyway may be named.
  options.layer_config = {};
  options.ignore_layers = "vision_tower";
  options.other_names = {"vision_tower.patch"};
  Warnings warnings;
  REQUIRE(ResolveLayers(Model(), options, warnings.context).ok());
  CHECK(warnings.texts ==
        std::vector<std::string>{"ignore_layers: \"vision_tower\" matches tensors that take no part, and no layer that "
                                 "does; it has no effect"});

  options.layer_config = {{"*.q_proj(", FindScheme("W8A16").value()}};
  const auto status = ResolveLayers(Model(), options).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(absl::StrContains(status.message(), "layer_config: the pattern \"*.q_proj(\""));
  CHECK(ResolveLayers(Model(), RuleOptions()).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("the head takes part when asked for or named, and never when it is tied") {
  RuleOptions options = Menu("W4A16");
  options.quant_lm_head = true;
  auto layers = ResolveLayers(Model(), options).value();
  REQUIRE(layers.back().is_head);
  CHECK(!layers.back().fixed.has_value());

  options.quant_lm_head = false;
  options.ignore_layers = "lm_head";
  layers = ResolveLayers(Model(), options).value();
  REQUIRE(layers.back().is_head);
  CHECK(layers.back().fixed->bits == 16);

  options.tied_head = true;
  Warnings warnings;
  layers = ResolveLayers(Model(), options, warnings.context).value();
  CHECK(layers.size() == 6);
  CHECK(warnings.texts.empty());  // staying as it is was the wish
  options.ignore_layers = "";
  options.layer_config = {{"lm_head", ParseSchemeList("W8A16").value()[0]}};
  layers = ResolveLayers(Model(), options, warnings.context).value();
  CHECK(layers.size() == 6);
  CHECK(warnings.texts == std::vector<std::string>{"\"lm_head\" is tied to the embedding and stays as it is"});
}

TEST_CASE("an integer default fixes ragged shapes at 16 bits, the head's too, as the reference does") {
  std::vector<LayerInfo> model = {Linear("model.layers.0.a", 0, 64, 72), Linear("model.layers.0.b", 0, 50, 64),
                                  Linear("model.layers.0.c", 0), Linear("lm_head", -1, 321, 64)};
  model.back().is_head = true;
  auto layers = ResolveLayers(model, Menu("W4A16,MXFP8")).value();
  CHECK(Names(layers, true) == std::vector<std::string>{"model.layers.0.a", "model.layers.0.b", "lm_head"});
  CHECK(layers[0].fixed->bits == 16);
  CHECK(layers[0].fixed->data_type == "fp");
  // An MX default looks at the columns alone.
  layers = ResolveLayers(model, Menu("MXFP8,W4A16")).value();
  CHECK(Names(layers, true) == std::vector<std::string>{"model.layers.0.a"});
  CHECK(layers[0].fixed->act_bits == 16);
  CHECK(layers[0].fixed->act_data_type == "fp");
  // Groups of 16 fit 72 columns no better; FP8 and BF16 defaults have no such rule.
  CHECK(Names(ResolveLayers(model, Menu("NVFP4")).value(), true) == std::vector<std::string>{"model.layers.0.a"});
  CHECK(Names(ResolveLayers(model, Menu("FP8_STATIC")).value(), true).empty());
  CHECK(Names(ResolveLayers(model, Menu("BF16,W4A16")).value(), true).empty());
}

TEST_CASE("routers of a mixture of experts stay at 16 bits") {
  std::vector<LayerInfo> model = {Linear("model.layers.0.mlp.gate", 0, 32, 64),
                                  Linear("model.layers.0.mlp.experts.0.gate_proj", 0)};
  RuleOptions options = Menu("W4A16");
  CHECK(Names(ResolveLayers(model, options).value(), true).empty());
  options.config_text = R"({"model_type": "qwen3_moe"})";
  CHECK(Names(ResolveLayers(model, options).value(), true) == std::vector<std::string>{"model.layers.0.mlp.gate"});
}

TEST_CASE("with a k-quant as the default the head and the embedding take part, a tied head does not") {
  std::vector<LayerInfo> model = Model();
  model.push_back(Linear("model.embed_tokens", -1, 320, 64));
  model.back().is_embedding = true;
  RuleOptions options = Menu("GGUF:Q4_K_S,GGUF:Q6_K");
  auto layers = ResolveLayers(model, options).value();
  REQUIRE(layers.size() == 8);
  CHECK(layers[6].is_head);
  CHECK(layers[7].is_embedding);
  options.tied_head = true;
  layers = ResolveLayers(model, options).value();
  REQUIRE(layers.size() == 7);
  CHECK(layers[6].is_embedding);
  // Q4_0 counts as an integer type.
  CHECK(ResolveLayers(model, Menu("GGUF:Q4_0,GGUF:Q8_0")).value().size() == 6);
}

}  // namespace
}  // namespace autoscheme
