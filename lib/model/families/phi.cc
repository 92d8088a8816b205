// Phi 1 and 2: attention and MLP side by side behind one norm, biases everywhere, heads that turn in part.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreatePhi(const Json& config) {
  DecoderBuilder d(config, "phi");
  d.ReadCommonKeys();
  d.ReadTie(false);
  const NormStyle norm = d.Layer("layer_norm_eps", 1e-5, /*bias=*/true);
  const Activation activation = d.ActivationOf("hidden_act", "gelu_new");
  const bool qk_norms = d.Bool("qk_layernorm", false);
  DecoderBuilder::RotaryOptions rotation;
  rotation.part = 0.5, rotation.may_be_partial = true;
  AttentionNames names;
  names.out = "self_attn.dense", names.bias = names.out_bias = true;
  MlpNames mlp_names{"", "mlp.fc1", "mlp.fc2", /*bias=*/true};
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.rotary = d.MakeRotary(rotation);
    if (qk_norms) {
      attention.q_norm = b.MakeNorm(norm, "self_attn.q_layernorm", {d.head_dim});
      attention.k_norm = b.MakeNorm(norm, "self_attn.k_layernorm", {d.head_dim});
    }
    const Mlp mlp = b.MakeMlp(activation, mlp_names);
    const Norm before = b.MakeNorm(norm, "input_layernorm");
    b.AddParallel({{before, attention, {}}, {before, mlp, {}}}, /*residual_last=*/true);
  });
  d.FinalNorm(norm, "model.final_layernorm");
  d.spec.head.bias = true;
  return d.Finish();
}

}  // namespace autoscheme
