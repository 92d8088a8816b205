// GLM-4: half of each head turns, neighbouring numbers together; gate and up from one linear. The 0414 series (glm4)
// has norms behind attention and MLP too.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {
namespace {

absl::StatusOr<ModelSpec> Describe(const Json& config, const char* model_type, bool norms_behind) {
  DecoderBuilder d(config, model_type);
  d.ReadCommonKeys(/*head_dim=*/128);
  d.ReadTie(false);
  const NormStyle rms = d.Rms("rms_norm_eps", 1.5625e-7);
  const Activation activation = d.ActivationOf("hidden_act", "silu");
  DecoderBuilder::RotaryOptions rotation;
  rotation.part = 0.5, rotation.may_be_partial = true, rotation.interleaved = true;
  AttentionNames names;
  names.bias = d.Bool("attention_bias", false);
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.rotary = d.MakeRotary(rotation);
    const Mlp mlp = b.MakeMlp(activation, {"", "mlp.gate_up_proj", "mlp.down_proj", false, /*fused=*/true});
    const auto behind = [&](const char* name) { return norms_behind ? b.MakeNorm(rms, name) : Norm(); };
    const Norm before = b.MakeNorm(rms, "input_layernorm");
    b.Add(before, attention, behind("post_self_attn_layernorm"));
    const Norm before_mlp = b.MakeNorm(rms, "post_attention_layernorm");
    b.Add(before_mlp, mlp, behind("post_mlp_layernorm"));
  });
  d.FinalNorm(rms, "model.norm");
  return d.Finish();
}

}  // namespace

absl::StatusOr<ModelSpec> CreateGlm(const Json& config) { return Describe(config, "glm", false); }
absl::StatusOr<ModelSpec> CreateGlm4(const Json& config) { return Describe(config, "glm4", true); }

}  // namespace autoscheme
