// The GPT line: GPT-2 (learned positions, transposed weights), GPT-J and GPT-NeoX (Pythia), which have attention and
// MLP side by side and turn heads in part.
#include <algorithm>

#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {
namespace {

// The keys that GPT-2 and GPT-J spell alike.
void ReadKeys(DecoderBuilder& d) {
  d.hidden = d.Count("n_embd"), d.blocks = d.Count("n_layer"), d.heads = d.kv_heads = d.Count("n_head");
  d.spec.vocab_size = d.Count("vocab_size"), d.spec.max_positions = d.Count("n_positions");
  d.width = d.Count("n_inner", 4 * d.hidden);
  d.SetHeadDim(0);
  d.SetEnds("transformer.wte", "lm_head");
}

}  // namespace

absl::StatusOr<ModelSpec> CreateGpt2(const Json& config) {
  DecoderBuilder d(config, "gpt2");
  ReadKeys(d);
  d.ReadTie(true);
  d.RefuseUnless(!d.Bool("scale_attn_by_inverse_layer_idx", false), "scale_attn_by_inverse_layer_idx", "only false");
  d.RefuseUnless(!d.Bool("add_cross_attention", false), "add_cross_attention", "only decoders alone");
  const NormStyle norm = d.Layer("layer_norm_epsilon", 1e-5, /*bias=*/true);
  const Activation activation = d.ActivationOf("activation_function", "gelu_new");
  const double scale = d.Bool("scale_attn_weights", true) ? 0 : 1;
  d.spec.input.positions = d.Other("transformer.wpe.weight", {d.spec.max_positions, d.hidden});
  AttentionNames names;
  names.q = "attn.c_attn", names.k = "", names.out = "attn.c_proj", names.bias = names.out_bias = true;
  d.EachBlock("transformer.h", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.scale = scale;
    const Mlp mlp = b.MakeMlp(activation, {"", "mlp.c_fc", "mlp.c_proj", /*bias=*/true});
    for (LinearSpec& linear : b.block().linears) linear.transposed = true;
    const Norm before = b.MakeNorm(norm, "ln_1");
    b.Add(before, attention);
    b.Add(b.MakeNorm(norm, "ln_2"), mlp);
  });
  d.FinalNorm(norm, "transformer.ln_f");
  return d.Finish();
}

absl::StatusOr<ModelSpec> CreateGptJ(const Json& config) {
  DecoderBuilder d(config, "gptj");
  ReadKeys(d);
  d.ReadTie(false);
  const NormStyle norm = d.Layer("layer_norm_epsilon", 1e-5, /*bias=*/true);
  const Activation activation = d.ActivationOf("activation_function", "gelu_new");
  DecoderBuilder::RotaryOptions rotation;
  const int64_t dims = d.Count("rotary_dim", d.head_dim);
  if (dims > d.head_dim) {
    d.Fail(absl::InvalidArgumentError("config.json: rotary_dim is larger than n_embd / n_head"));
    return d.Finish();
  }
  // Half a number more, so that no rounding loses one.
  rotation.part = std::min((static_cast<double>(dims) + 0.5) / static_cast<double>(d.head_dim), 1.0);
  rotation.may_be_partial = rotation.interleaved = true;
  AttentionNames names;
  names.q = "attn.q_proj", names.k = "attn.k_proj", names.v = "attn.v_proj", names.out = "attn.out_proj";
  names.order = "kvqo";
  d.EachBlock("transformer.h", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.rotary = d.MakeRotary(rotation);
    const Mlp mlp = b.MakeMlp(activation, {"", "mlp.fc_in", "mlp.fc_out", /*bias=*/true});
    const Norm before = b.MakeNorm(norm, "ln_1");
    b.AddParallel({{before, attention, {}}, {before, mlp, {}}}, /*residual_last=*/true);
  });
  d.FinalNorm(norm, "transformer.ln_f");
  d.spec.head.bias = true;
  return d.Finish();
}

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
