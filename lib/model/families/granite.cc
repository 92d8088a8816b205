// Granite: Llama with multipliers for embeddings, scores, residuals and logits.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateGranite(const Json& config) {
  DecoderBuilder d(config, "granite");
  d.ReadCommonKeys();
  d.ReadTie(false);
  const NormStyle rms = d.Rms();
  const Activation activation = d.ActivationOf("hidden_act", "silu");
  const double residual = d.Positive("residual_multiplier", 1), scores = d.Positive("attention_multiplier", 1);
  d.spec.input.scale = d.Positive("embedding_multiplier", 1);
  d.spec.output.multiplier = 1 / d.Positive("logits_scaling", 1);
  AttentionNames names;
  names.bias = names.out_bias = d.Bool("attention_bias", false);
  MlpNames mlp_names;
  mlp_names.bias = d.Bool("mlp_bias", false);
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.scale = scores, attention.rotary = d.MakeRotary({});
    const Mlp mlp = b.MakeMlp(activation, mlp_names);
    b.Add(b.MakeNorm(rms, "input_layernorm"), attention);
    b.Add(b.MakeNorm(rms, "post_attention_layernorm"), mlp);
    for (Sublayer& sublayer : b.block().sublayers) sublayer.scale = residual;
  });
  d.FinalNorm(rms, "model.norm");
  return d.Finish();
}

}  // namespace autoscheme
