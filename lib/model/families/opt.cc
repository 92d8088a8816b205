// OPT: learned positions from the third row on, ReLU; the 350M model has narrower embeddings, and norms behind the
// residual.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateOpt(const Json& config) {
  DecoderBuilder d(config, "opt");
  d.hidden = d.Count("hidden_size"), d.blocks = d.Count("num_hidden_layers"), d.width = d.Count("ffn_dim");
  d.heads = d.kv_heads = d.Count("num_attention_heads"), d.spec.vocab_size = d.Count("vocab_size");
  d.spec.max_positions = d.Count("max_position_embeddings", 2048);
  d.SetHeadDim(0);
  d.SetEnds("model.decoder.embed_tokens", "lm_head");
  d.ReadTie(true);
  NormStyle norm;
  norm.kind = Norm::kLayer, norm.eps = 1e-5;
  norm.weight = norm.bias = d.Bool("layer_norm_elementwise_affine", true);
  const Activation activation = d.ActivationOf("activation_function", "relu");
  const bool before = d.Bool("do_layer_norm_before", true), bias = d.Bool("enable_bias", true);
  d.spec.input.positions = d.Other("model.decoder.embed_positions.weight", {d.spec.max_positions + 2, d.hidden});
  d.spec.input.first_position = 2;
  if (const int64_t width = d.Count("word_embed_proj_dim", d.hidden); width != d.hidden) {
    d.spec.input.width = d.spec.head.in_features = width;
    d.spec.input.projection = d.Other("model.decoder.project_in.weight", {d.hidden, width});
    d.spec.output.projection = d.Other("model.decoder.project_out.weight", {width, d.hidden});
  }
  AttentionNames names;
  names.out = "self_attn.out_proj", names.order = "kvqo", names.bias = names.out_bias = bias;
  d.EachBlock("model.decoder.layers", [&](BlockBuilder& b, int64_t) {
    const Attention attention = b.MakeAttention(names);
    const Mlp mlp = b.MakeMlp(activation, {"", "fc1", "fc2", bias});
    const Norm of_attention = b.MakeNorm(norm, "self_attn_layer_norm"), of_mlp = b.MakeNorm(norm, "final_layer_norm");
    b.Add(before ? of_attention : Norm(), attention);
    b.Add(before ? of_mlp : Norm(), mlp);
    if (!before) b.block().sublayers[0].after_sum = of_attention, b.block().sublayers[1].after_sum = of_mlp;
  });
  if (before && !d.Bool("_remove_final_layer_norm", false)) d.FinalNorm(norm, "model.decoder.final_layer_norm");
  return d.Finish();
}

}  // namespace autoscheme
