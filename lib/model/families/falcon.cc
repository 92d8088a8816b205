// Falcon with rotary embedding: queries, key and value of each key head from one linear; attention and MLP side by side
// behind one norm or two, or one after the other.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateFalcon(const Json& config) {
  DecoderBuilder d(config, "falcon");
  d.RefuseUnless(!d.Bool("alibi", false), "alibi", "position biases (ALiBi) are not supported, rotary embedding is");
  d.hidden = d.Count("hidden_size"), d.blocks = d.Count("num_hidden_layers");
  d.heads = d.Count("num_attention_heads"), d.spec.vocab_size = d.Count("vocab_size");
  d.width = d.Count("ffn_hidden_size", 4 * d.hidden);
  d.spec.max_positions = d.Int("max_position_embeddings", 2048);
  const bool grouped = d.Bool("new_decoder_architecture", false), multi_query = d.Bool("multi_query", true);
  const bool parallel = grouped || d.Bool("parallel_attn", true), bias = d.Bool("bias", false);
  const bool two_norms = grouped && d.Int("num_ln_in_parallel_attn", 2) == 2;
  d.kv_heads = grouped ? d.Count("num_kv_heads", d.heads) : multi_query ? 1 : d.heads;
  d.SetHeadDim(0);
  d.SetEnds("transformer.word_embeddings", "lm_head");
  d.ReadTie(true);
  const NormStyle norm = d.Layer("layer_norm_epsilon", 1e-5, /*bias=*/true);
  const Activation activation = d.ActivationOf("activation", "gelu");
  AttentionNames names;
  names.q = "self_attention.query_key_value", names.k = "", names.out = "self_attention.dense";
  names.bias = names.out_bias = bias;
  const MlpNames mlp_names{"", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", bias};
  d.EachBlock("transformer.h", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.inputs = Attention::kGrouped, attention.rotary = d.MakeRotary({});
    const Mlp mlp = b.MakeMlp(activation, mlp_names);
    const Norm before = b.MakeNorm(norm, two_norms ? "ln_attn" : "input_layernorm");
    if (!parallel) {
      b.Add(before, attention);
      return b.Add(b.MakeNorm(norm, "post_attention_layernorm"), mlp);
    }
    const Norm before_mlp = two_norms ? b.MakeNorm(norm, "ln_mlp") : before;
    b.AddParallel({{before, attention, {}}, {before_mlp, mlp, {}}}, /*residual_last=*/true);
  });
  d.FinalNorm(norm, "transformer.ln_f");
  return d.Finish();
}

}  // namespace autoscheme
