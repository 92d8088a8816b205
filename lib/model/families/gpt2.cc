// GPT-2: learned positions, transposed weights.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateGpt2(const Json& config) {
  DecoderBuilder d(config, "gpt2");
  d.ReadGptKeys();
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

}  // namespace autoscheme
