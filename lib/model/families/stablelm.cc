// StableLM: layer norms, heads of which a quarter turns, attention and MLP one after the other or side by side; the 12B
// model has a norm for every query and key head.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateStableLm(const Json& config) {
  DecoderBuilder d(config, "stablelm");
  d.ReadCommonKeys();
  d.ReadTie(false);
  const NormStyle norm = d.Layer("layer_norm_eps", 1e-5, /*bias=*/true);
  const Activation activation = d.ActivationOf("hidden_act", "silu");
  const bool of_heads = d.Bool("qk_layernorm", false);
  const bool parallel = d.Bool("use_parallel_residual", false);
  DecoderBuilder::RotaryOptions rotation;
  rotation.part = 0.25, rotation.may_be_partial = true;
  AttentionNames names;
  names.bias = d.Bool("use_qkv_bias", false);
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.rotary = d.MakeRotary(rotation);
    if (of_heads) {
      attention.q_norm = b.MakeNormOfHeads(norm, "self_attn.q_layernorm.norms", d.heads);
      attention.k_norm = b.MakeNormOfHeads(norm, "self_attn.k_layernorm.norms", d.kv_heads);
    }
    const Mlp mlp = b.MakeMlp(activation);
    const Norm before = b.MakeNorm(norm, "input_layernorm");
    if (parallel) return b.AddParallel({{before, attention, {}}, {before, mlp, {}}});
    b.Add(before, attention);
    b.Add(b.MakeNorm(norm, "post_attention_layernorm"), mlp);
  });
  d.FinalNorm(norm, "model.norm");
  return d.Finish();
}

}  // namespace autoscheme
