// What follows from a description of a model alone.
#include "model/decoder_spec.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace autoscheme {
namespace {

ModelSpec Read(const std::string& type, const std::string& more = "") {
  const Json config =
      ParseJson(R"({"model_type": ")" + type +
                    R"(", "hidden_size": 8, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 16,
                                       "num_attention_heads": 2, "head_dim": 4)" +
                    more + "}",
                "config.json")
          .value();
  return ReadModelSpec(config).value();
}

TEST_CASE("a block's linears and params belong to the sublayers that read them") {
  const BlockSpec block = Read("qwen3").blocks[1];
  CHECK(block.name == "model.layers.1");
  REQUIRE(block.sublayers.size() == 2);
  CHECK(LinearsOf(block.sublayers[0]) == std::vector<int>{0, 1, 2, 3});
  CHECK(LinearsOf(block.sublayers[1]) == std::vector<int>{4, 5, 6});
  CHECK(ParamsOf(block.sublayers[0]) == std::vector<int>{0, 2, 3});  // its norm, and those of the heads
  CHECK(ParamsOf(block.sublayers[1]) == std::vector<int>{1});
  for (const LinearSpec& linear : block.linears) CHECK(linear.sublayer == (linear.name.rfind("mlp.", 0) == 0 ? 1 : 0));
  CHECK(block.params[3].sublayer == 0);
}

TEST_CASE("a norm of parts reads a param for each") {
  const BlockSpec block =
      Read("stablelm", R"(, "qk_layernorm": true, "num_key_value_heads": 1, "partial_rotary_factor": 0.5)").blocks[1];
  std::vector<std::string> names;
  for (const int param : ParamsOf(block.sublayers[0])) names.push_back(block.params[param].name);
  CHECK(names == std::vector<std::string>{
                     "input_layernorm.weight", "input_layernorm.bias", "self_attn.q_layernorm.norms.0.weight",
                     "self_attn.q_layernorm.norms.1.weight", "self_attn.k_layernorm.norms.0.weight"});
}

TEST_CASE("the last product of each branch is o_proj or down_proj, and no other") {
  const BlockSpec block = Read("llama").blocks[0];
  CHECK(block.linears[LastProducts(block.sublayers[0]).at(0)].name == "self_attn.o_proj");
  CHECK(block.linears[LastProducts(block.sublayers[1]).at(0)].name == "mlp.down_proj");
  CHECK(LastProducts(block.sublayers[0]).size() == 1);
  CHECK(LastProducts(block.sublayers[1]).size() == 1);
}

TEST_CASE("runs may be longer than max_position_embeddings where the rope scaling is made for it") {
  const auto positions = [](const std::string& scaling) {
    return Read("llama", R"(, "max_position_embeddings": 64, "rope_scaling": {"factor": 4, )" + scaling + "}")
        .max_positions;
  };
  CHECK(positions(R"("rope_type": "linear")") == 256);
  CHECK(positions(R"("rope_type": "dynamic")") == 256);
  CHECK(positions(R"("rope_type": "yarn", "original_max_position_embeddings": 32)") == 128);
  CHECK(positions(R"("rope_type": "yarn", "original_max_position_embeddings": 8)") == 64);  // never fewer
  CHECK(positions(R"("rope_type": "llama3", "low_freq_factor": 1, "high_freq_factor": 4,
                     "original_max_position_embeddings": 32)") == 64);
}

TEST_CASE("a product that a norm follows is no last product: gradients depend on its values") {
  const BlockSpec block = Read("gemma2").blocks[0];  // norms behind attention and MLP
  for (const Sublayer& sublayer : block.sublayers) {
    REQUIRE(LinearsOf(sublayer).size() >= 3);
    CHECK(LastProducts(sublayer).empty());
  }
  Norm norm;
  norm.kind = Norm::kRms, norm.weight = 0;
  Attention attention;
  attention.q = 0, attention.k = 1, attention.v = 2, attention.out = 3;
  Mlp mlp;
  mlp.up = 4, mlp.down = 5;
  Sublayer sublayer;
  sublayer.branches = {{norm, attention, {}}, {norm, mlp, {}}};
  CHECK(LastProducts(sublayer) == std::vector<int>{3, 5});
  sublayer.branches[0].after = norm;
  CHECK(LastProducts(sublayer) == std::vector<int>{5});
  sublayer.branches[1].after = norm;
  CHECK(LastProducts(sublayer).empty());
  sublayer.branches = {{norm, attention, {}}, {norm, mlp, {}}};
  sublayer.after_sum = norm;
  CHECK(LastProducts(sublayer).empty());
}

TEST_CASE("families say which linears have a bias") {
  const auto biases = [](const ModelSpec& spec) {
    std::string text;
    for (const LinearSpec& linear : spec.blocks[0].linears) text += linear.bias ? '1' : '0';
    return text;
  };
  CHECK(biases(Read("llama")) == "0000000");
  CHECK(biases(Read("llama", R"(, "attention_bias": true, "mlp_bias": true)")) == "1111111");
  CHECK(biases(Read("qwen2")) == "1110000");
  CHECK(biases(Read("qwen3", R"(, "attention_bias": true)")) == "1111000");
}

}  // namespace
}  // namespace autoscheme
