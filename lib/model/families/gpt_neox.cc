// GPT-NeoX (Pythia): queries, key and value of each head from one linear, heads that turn in part; attention and MLP
// side by side or one after the other.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateGptNeoX(const Json& config) {
  DecoderBuilder d(config, "gpt_neox");
  d.ReadCommonKeys();
  d.kv_heads = d.heads;
  d.SetEnds("gpt_neox.embed_in", "embed_out");
  d.ReadTie(false);
  const NormStyle norm = d.Layer("layer_norm_eps", 1e-5, /*bias=*/true);
  const Activation activation = d.ActivationOf("hidden_act", "gelu");
  const bool parallel = d.Bool("use_parallel_residual", true);
  DecoderBuilder::RotaryOptions rotation;
  rotation.part = 0.25, rotation.may_be_partial = true, rotation.part_key = "rotary_pct";
  rotation.theta = d.Positive("rotary_emb_base", 10000);
  AttentionNames names;
  names.q = "attention.query_key_value", names.k = "", names.out = "attention.dense";
  names.bias = names.out_bias = d.Bool("attention_bias", true);
  d.EachBlock("gpt_neox.layers", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.inputs = Attention::kGrouped, attention.rotary = d.MakeRotary(rotation);
    const Mlp mlp = b.MakeMlp(activation, {"", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", /*bias=*/true});
    const Norm before = b.MakeNorm(norm, "input_layernorm"), before_mlp = b.MakeNorm(norm, "post_attention_layernorm");
    if (parallel) return b.AddParallel({{before, attention, {}}, {before_mlp, mlp, {}}}, /*residual_last=*/true);
    b.Add(before, attention);
    b.Add(before_mlp, mlp);
  });
  d.FinalNorm(norm, "gpt_neox.final_layer_norm");
  return d.Finish();
}

}  // namespace autoscheme
