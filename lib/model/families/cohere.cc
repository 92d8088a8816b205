// Cohere (Command-R) and Cohere 2: attention and MLP side by side, norms without bias by plain operators, neighbouring
// numbers that turn together, scaled logits. Cohere 2 turns heads in its local layers only.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {
namespace {

absl::StatusOr<ModelSpec> Describe(DecoderBuilder& d, const std::vector<int64_t>& windows, bool turns_locally) {
  d.ReadTie(true);
  NormStyle norm = d.Layer("layer_norm_eps", 1e-5, /*bias=*/false);
  norm.plain = true;
  const Activation activation = d.ActivationOf("hidden_act", "silu");
  const bool qk_norms = d.Bool("use_qk_norm", false);
  d.spec.output.multiplier = d.Positive("logit_scale", 0.0625);
  DecoderBuilder::RotaryOptions rotation;
  rotation.interleaved = rotation.wide = true;
  AttentionNames names;
  names.bias = names.out_bias = d.Bool("attention_bias", false);
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t i) {
    Attention attention = b.MakeAttention(names);
    attention.window = windows[i];
    if (!turns_locally || windows[i] > 0) {
      attention.rotary = d.MakeRotary(rotation, windows[i] > 0 ? "sliding_attention" : "full_attention");
    }
    if (qk_norms) {
      attention.q_norm = b.MakeNorm(norm, "self_attn.q_norm", {d.heads, d.head_dim});
      attention.k_norm = b.MakeNorm(norm, "self_attn.k_norm", {d.kv_heads, d.head_dim});
    }
    const Mlp mlp = b.MakeMlp(activation);
    const Norm before = b.MakeNorm(norm, "input_layernorm");
    b.AddParallel({{before, attention, {}}, {before, mlp, {}}});
  });
  d.FinalNorm(norm, "model.norm");
  return d.Finish();
}

}  // namespace

absl::StatusOr<ModelSpec> CreateCohere(const Json& config) {
  DecoderBuilder d(config, "cohere");
  d.ReadCommonKeys();
  return Describe(d, std::vector<int64_t>(d.blocks, 0), false);
}

absl::StatusOr<ModelSpec> CreateCohere2(const Json& config) {
  DecoderBuilder d(config, "cohere2");
  d.ReadCommonKeys();
  const int64_t window = d.SlidingWindow(4096), pattern = d.Count("sliding_window_pattern", 4);
  return Describe(d, d.WindowsByPattern(window, pattern), true);
}

}  // namespace autoscheme
