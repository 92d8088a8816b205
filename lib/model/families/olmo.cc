// OLMo: norms without weights, clamped projections. OLMo 2: norms behind attention and MLP alone, and over all queries
// and all keys.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateOlmo(const Json& config) {
  DecoderBuilder d(config, "olmo");
  d.ReadCommonKeys();
  d.ReadTie(false);
  NormStyle norm;
  norm.kind = Norm::kLayer, norm.eps = 1e-5, norm.weight = false;
  const Activation activation = d.ActivationOf("hidden_act", "silu");
  const double clip = d.NotNegative("clip_qkv", 0);
  DecoderBuilder::RotaryOptions rotation;
  rotation.wide = true;
  AttentionNames names;
  names.bias = names.out_bias = d.Bool("attention_bias", false);
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.clip = clip, attention.rotary = d.MakeRotary(rotation);
    const Mlp mlp = b.MakeMlp(activation);
    b.Add(b.MakeNorm(norm, "input_layernorm"), attention);
    b.Add(b.MakeNorm(norm, "post_attention_layernorm"), mlp);
  });
  d.FinalNorm(norm, "model.norm");
  return d.Finish();
}

absl::StatusOr<ModelSpec> CreateOlmo2(const Json& config) {
  DecoderBuilder d(config, "olmo2");
  d.ReadCommonKeys();
  d.ReadTie(false);
  NormStyle rms = d.Rms("rms_norm_eps", 1e-5);
  rms.wide = true;
  const Activation activation = d.ActivationOf("hidden_act", "silu");
  DecoderBuilder::RotaryOptions rotation;
  rotation.wide = true;
  AttentionNames names;
  names.bias = names.out_bias = d.Bool("attention_bias", false);
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.rotary = d.MakeRotary(rotation);
    attention.q_norm = b.MakeNorm(rms, "self_attn.q_norm", {d.heads * d.head_dim});
    attention.k_norm = b.MakeNorm(rms, "self_attn.k_norm", {d.kv_heads * d.head_dim});
    const Mlp mlp = b.MakeMlp(activation);
    b.Add({}, attention, b.MakeNorm(rms, "post_attention_layernorm"));
    b.Add({}, mlp, b.MakeNorm(rms, "post_feedforward_layernorm"));
  });
  d.FinalNorm(rms, "model.norm");
  return d.Finish();
}

}  // namespace autoscheme
