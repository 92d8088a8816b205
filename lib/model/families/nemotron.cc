// Nemotron: layer norms whose weight is an offset from 1, squared ReLU without gate, heads of which half turns.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateNemotron(const Json& config) {
  DecoderBuilder d(config, "nemotron");
  d.ReadCommonKeys();
  d.ReadTie(false);
  NormStyle norm = d.Layer("norm_eps", 1e-5, /*bias=*/true);
  norm.offset = 1;
  const Activation activation = d.ActivationOf("hidden_act", "relu2");
  DecoderBuilder::RotaryOptions rotation;
  rotation.part = 0.5, rotation.may_be_partial = true;
  AttentionNames names;
  names.bias = names.out_bias = d.Bool("attention_bias", false);
  const MlpNames mlp_names{"", "mlp.up_proj", "mlp.down_proj", d.Bool("mlp_bias", false)};
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.rotary = d.MakeRotary(rotation);
    const Mlp mlp = b.MakeMlp(activation, mlp_names);
    const Norm before = b.MakeNorm(norm, "input_layernorm");
    b.Add(before, attention);
    b.Add(b.MakeNorm(norm, "post_attention_layernorm"), mlp);
  });
  d.FinalNorm(norm, "model.norm");
  return d.Finish();
}

}  // namespace autoscheme
