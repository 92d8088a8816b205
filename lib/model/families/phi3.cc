// Phi 3 and 4: q, k and v from one linear, gate and up from another; longrope.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreatePhi3(const Json& config) {
  DecoderBuilder d(config, "phi3");
  d.ReadCommonKeys();
  d.ReadTie(false);
  const NormStyle rms = d.Rms("rms_norm_eps", 1e-5);
  const Activation activation = d.ActivationOf("hidden_act", "silu");
  const int64_t window = d.SlidingWindow(0);
  DecoderBuilder::RotaryOptions rotation;
  rotation.may_be_partial = true;
  AttentionNames names;
  names.q = "self_attn.qkv_proj", names.k = "", names.order = "oq";
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.window = window, attention.rotary = d.MakeRotary(rotation);
    const Mlp mlp = b.MakeMlp(activation, {"", "mlp.gate_up_proj", "mlp.down_proj", false, /*fused=*/true});
    const Norm before = b.MakeNorm(rms, "input_layernorm");
    b.Add(before, attention);
    b.Add(b.MakeNorm(rms, "post_attention_layernorm"), mlp);
  });
  d.FinalNorm(rms, "model.norm");
  return d.Finish();
}

}  // namespace autoscheme
