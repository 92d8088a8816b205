// Families that are Llama but for a few keys: SmolLM3 (layers without rotation), InternLM3 and Seed-OSS (biases of
// their own), Helium (neighbouring numbers that turn together) and Arcee (squared ReLU without gate).
#include "model/families.h"
#include "model/llama_like.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateSmolLm3(const Json& config) {
  DecoderBuilder d(config, "smollm3");
  d.ReadCommonKeys();
  LlamaLike family;
  family.qkv_bias = family.out_bias = d.Bool("attention_bias", false);
  family.mlp_bias = d.Bool("mlp_bias", false);
  family.theta = 2e6, family.tied_head = true;
  family.rotates = d.Flags("no_rope_layers");  // 1 where heads turn, whatever the name says
  const int64_t interval = d.Count("no_rope_layer_interval", 4);
  for (int64_t i = static_cast<int64_t>(family.rotates.size()); i < d.blocks; ++i) {
    family.rotates.push_back((i + 1) % interval != 0);
  }
  const int64_t given = d.SlidingWindow(0), window = d.Bool("use_sliding_window", false) ? given : 0;
  family.windows = d.WindowsByType(window);
  for (int64_t i = static_cast<int64_t>(family.windows.size()); i < d.blocks; ++i) {
    family.windows.push_back(family.rotates[i] ? 0 : window);
  }
  family.known = {"no_rope_layers", "no_rope_layer_interval"};
  return DescribeLlamaLike(d, family);
}

absl::StatusOr<ModelSpec> CreateInternLm3(const Json& config) {
  DecoderBuilder d(config, "internlm3");
  d.ReadCommonKeys();
  LlamaLike family;
  // By the keys of its own code, or by those that transformers has made of them.
  const bool bias = d.Bool("attention_bias", false);
  family.qkv_bias = d.Bool("qkv_bias", bias);
  family.out_bias = d.Bool("bias", bias), family.mlp_bias = d.Bool("bias", d.Bool("mlp_bias", false));
  return DescribeLlamaLike(d, family);
}

absl::StatusOr<ModelSpec> CreateSeedOss(const Json& config) {
  DecoderBuilder d(config, "seed_oss");
  d.ReadCommonKeys(/*head_dim=*/128);
  LlamaLike family;
  family.qkv_bias = d.Bool("attention_bias", true);
  family.out_bias = d.Bool("attention_out_bias", false);
  family.mlp_bias = d.Bool("mlp_bias", false);
  return DescribeLlamaLike(d, family);
}

absl::StatusOr<ModelSpec> CreateHelium(const Json& config) {
  DecoderBuilder d(config, "helium");
  d.ReadCommonKeys(/*head_dim=*/128);
  LlamaLike family;
  family.qkv_bias = d.Bool("attention_bias", false);
  family.mlp_bias = d.Bool("mlp_bias", false);
  family.interleaved = family.wide_norms = true, family.theta = 1e5, family.eps = 1e-8;
  return DescribeLlamaLike(d, family);
}

absl::StatusOr<ModelSpec> CreateArcee(const Json& config) {
  DecoderBuilder d(config, "arcee");
  d.ReadCommonKeys();
  LlamaLike family;
  family.qkv_bias = family.out_bias = d.Bool("attention_bias", false);
  family.mlp_bias = d.Bool("mlp_bias", false);
  family.activation = "relu2", family.gated = false, family.eps = 1e-5;
  return DescribeLlamaLike(d, family);
}

}  // namespace autoscheme
