#include "model/llama_like.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> DescribeLlamaLike(DecoderBuilder& d, const LlamaLike& family) {
  NormStyle rms = d.Rms("rms_norm_eps", family.eps);
  rms.wide = family.wide_norms;
  const Activation activation = d.ActivationOf("hidden_act", family.activation);
  d.ReadTie(family.tied_head);
  WarnOfForeignKeys(d, family.known);
  DecoderBuilder::RotaryOptions rotation;
  rotation.theta = family.theta, rotation.interleaved = family.interleaved;
  rotation.queries_grow = family.queries_grow;
  AttentionNames attention_names;
  attention_names.bias = family.qkv_bias, attention_names.out_bias = family.out_bias;
  MlpNames mlp_names;
  mlp_names.bias = family.mlp_bias;
  if (!family.gated) mlp_names.gate = "";
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t i) {
    Attention attention = b.MakeAttention(attention_names);
    attention.window = family.windows.empty() ? 0 : family.windows[i];
    if (family.rotates.empty() || family.rotates[i]) {
      attention.rotary = d.MakeRotary(rotation, attention.window > 0 ? "sliding_attention" : "full_attention");
    }
    const Mlp mlp = b.MakeMlp(activation, mlp_names);
    const Norm before_attention = b.MakeNorm(rms, "input_layernorm");
    const Norm before_mlp = b.MakeNorm(rms, "post_attention_layernorm");
    if (family.qk_norm) {
      attention.q_norm = b.MakeNorm(rms, "self_attn.q_norm", {d.head_dim});
      attention.k_norm = b.MakeNorm(rms, "self_attn.k_norm", {d.head_dim});
    }
    b.Add(before_attention, attention);
    b.Add(before_mlp, mlp);
  });
  d.FinalNorm(rms, "model.norm");
  return d.Finish();
}

}  // namespace autoscheme
