// Multimodal models whose text_config leaves out what transformers takes from the defaults of its class.
#include "model/text_defaults.h"

#include <catch2/catch.hpp>
#include <string>
#include <variant>
#include <vector>

#include "model/decoder_spec.h"

namespace autoscheme {
namespace {

ModelSpec Read(const std::string& config) {
  const auto spec = ReadModelSpec(ParseJson(config, "config.json").value());
  INFO(spec.status().ToString());
  REQUIRE(spec.ok());
  return *spec;
}

struct Sizes {
  int64_t vocab, hidden, width, blocks, heads, kv_heads, head_dim, positions;
  bool operator==(const Sizes& o) const {
    return vocab == o.vocab && hidden == o.hidden && width == o.width && blocks == o.blocks && heads == o.heads &&
           kv_heads == o.kv_heads && head_dim == o.head_dim && positions == o.positions;
  }
};

const Attention& AttentionOf(const ModelSpec& spec, int block) {
  return std::get<Attention>(spec.blocks.at(block).sublayers[0].branches[0].body);
}

Sizes SizesOf(const ModelSpec& spec) {
  const Attention& a = AttentionOf(spec, 0);
  const Mlp& m = std::get<Mlp>(spec.blocks[0].sublayers[1].branches[0].body);
  return {spec.vocab_size, spec.hidden_size, m.width,    static_cast<int64_t>(spec.blocks.size()),
          a.heads,         a.kv_heads,       a.head_dim, spec.max_positions};
}

TEST_CASE("text defaults: LLaVA 1.5 7B says of its Llama what is not LlamaConfig's") {
  const ModelSpec spec = Read(R"({
    "architectures": ["LlavaForConditionalGeneration"], "image_token_index": 32000, "model_type": "llava",
    "tie_word_embeddings": false,
    "text_config": {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096, "model_type": "llama",
                    "rms_norm_eps": 1e-05, "torch_dtype": "float16", "vocab_size": 32064},
    "vision_config": {"hidden_size": 1024, "model_type": "clip_vision_model", "num_hidden_layers": 24}})");
  CHECK(SizesOf(spec) == Sizes{32064, 4096, 11008, 32, 32, 32, 128, 4096});
  CHECK(spec.output.norm.eps == 1e-5);
  CHECK(spec.tied_head_given);
}

TEST_CASE("text defaults: LLaVA 1.6 Mistral 7B says of its Mistral what is not MistralConfig's") {
  const ModelSpec spec = Read(R"({
    "model_type": "llava_next", "tie_word_embeddings": false,
    "text_config": {"intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
                    "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null,
                    "vocab_size": 32064}})");
  CHECK(SizesOf(spec) == Sizes{32064, 4096, 14336, 32, 32, 8, 128, 32768});
  CHECK(AttentionOf(spec, 0).window == 0);
  CHECK(spec.tables[0].rope.theta == 1e6);
}

TEST_CASE("text defaults: Gemma 3 4B says little of its text") {
  const ModelSpec spec = Read(R"({
    "architectures": ["Gemma3ForConditionalGeneration"], "mm_tokens_per_image": 256, "model_type": "gemma3",
    "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                    "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                    "sliding_window": 1024},
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"}})");
  CHECK(SizesOf(spec) == Sizes{262208, 2560, 10240, 34, 8, 4, 256, 131072});
  CHECK(spec.tied_head);
  CHECK(AttentionOf(spec, 0).scale == 1.0 / 16);
  for (int block = 0; block < 34; ++block) {
    const Attention& a = AttentionOf(spec, block);
    const RopeConfig& rope = spec.tables.at(a.rotary.table).rope;
    const bool global = block % 6 == 5;
    CHECK(a.window == (global ? 0 : 1024));
    CHECK(rope.theta == (global ? 1e6 : 1e4));
    CHECK(rope.factor == (global ? 8 : 1));
  }
}

TEST_CASE("text defaults: a Mistral 3 may have the text of a Ministral 3") {
  const ModelSpec spec = Read(R"({
    "model_type": "mistral3",
    "text_config": {"hidden_size": 3072, "intermediate_size": 9216, "model_type": "ministral3", "num_hidden_layers": 26,
                    "rope_parameters": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 16.0,
                                        "llama_4_scaling_beta": 0.1, "mscale": 1.0, "mscale_all_dim": 1.0,
                                        "original_max_position_embeddings": 16384, "rope_theta": 1000000.0,
                                        "rope_type": "yarn", "type": "yarn"}}})");
  CHECK(SizesOf(spec) == Sizes{131072, 3072, 9216, 26, 32, 8, 128, 262144});
  CHECK(spec.blocks[0].name == "model.language_model.layers.0");
  const Rotary& rotary = AttentionOf(spec, 0).rotary;
  CHECK(rotary.query_growth == 0.1);
  CHECK(rotary.growth_length == 16384);
  CHECK(spec.tables[0].rope.attention_scale == 1);
}

TEST_CASE("text defaults: what is given stays, null too, and a text model by itself must say all") {
  const ModelSpec heads = Read(R"({"model_type": "mistral3", "text_config": {"num_key_value_heads": null}})");
  CHECK(SizesOf(heads) == Sizes{32000, 4096, 14336, 32, 32, 32, 128, 131072});
  CHECK(AttentionOf(heads, 0).window == 4096);
  const ModelSpec qwen = Read(R"({"model_type": "qwen2_vl", "hidden_size": 1536, "num_attention_heads": 16,
                                  "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}})");
  CHECK(SizesOf(qwen) == Sizes{152064, 1536, 29568, 80, 16, 8, 96, 32768});
  CHECK(qwen.output.norm.eps == 1e-5);
  CHECK(qwen.tables[0].rope.theta == 1e6);
  const Json bare = ParseJson(R"({"model_type": "llava", "hidden_size": 64})", "config.json").value();
  CHECK_THAT(std::string(ReadModelSpec(bare).status().message()), Catch::Contains("config.json has no text_config"));
  const Json llama = ParseJson(R"({"model_type": "llama"})", "config.json").value();
  CHECK_THAT(std::string(ReadModelSpec(llama).status().message()), Catch::Contains("hidden_size"));
}

}  // namespace
}  // namespace autoscheme
