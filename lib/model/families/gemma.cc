// Gemma 1 to 3 (text): norms whose weight is an offset from 1, embeddings scaled by sqrt(hidden). Gemma 2 and 3 have
// norms behind attention and MLP too, and local and global layers; Gemma 2 caps scores and logits; Gemma 3 has norms of
// queries and keys, and another theta in local layers.
#include <cmath>

#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {
namespace {

Activation ActivationOf(DecoderBuilder& d) {
  if (d.Has("hidden_activation")) return d.ActivationOf("hidden_activation", "");
  // The first configs say "gelu" and mean the approximation by tanh.
  if (d.Text("hidden_act", "gelu") == "gelu") return Activation::kGeluTanh;
  return d.ActivationOf("hidden_act", "");
}

absl::StatusOr<ModelSpec> CreateGemma(const Json& config, int version) {
  DecoderBuilder d(config, version == 1 ? "gemma" : version == 2 ? "gemma2" : "gemma3_text");
  d.ReadCommonKeys(/*head_dim=*/256);
  d.ReadTie(true);
  d.RefuseUnless(!d.Bool("use_bidirectional_attention", false), "use_bidirectional_attention", "only causal ones");
  NormStyle rms = d.Rms();
  rms.offset = 1, rms.wide = true;
  const Activation activation = ActivationOf(d);
  const double scale = version == 1 ? 0 : 1 / std::sqrt(d.Positive("query_pre_attn_scalar", 256));
  const double softcap = version == 2 ? d.NotNegativeOrNull("attn_logit_softcapping", 50) : 0;
  if (version == 2) d.spec.output.softcap = d.NotNegativeOrNull("final_logit_softcapping", 30);
  d.spec.input.scale = std::sqrt(static_cast<double>(d.hidden));
  AttentionNames names;
  names.bias = names.out_bias = d.Bool("attention_bias", false);
  std::vector<int64_t> windows;
  if (version > 1) {
    windows = d.WindowsByPattern(d.SlidingWindow(4096), version == 2 ? 2 : d.Count("sliding_window_pattern", 6));
  }
  DecoderBuilder::RotaryOptions global, local;
  if (version == 3) global.theta = 1e6, local.theta_key = "rope_local_base_freq";
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t i) {
    Attention attention = b.MakeAttention(names);
    attention.scale = scale, attention.softcap = softcap;
    attention.window = windows.empty() ? 0 : windows[i];
    attention.rotary =
        attention.window > 0 ? d.MakeRotary(local, "sliding_attention") : d.MakeRotary(global, "full_attention");
    if (version == 3) {
      attention.q_norm = b.MakeNorm(rms, "self_attn.q_norm", {d.head_dim});
      attention.k_norm = b.MakeNorm(rms, "self_attn.k_norm", {d.head_dim});
    }
    const Mlp mlp = b.MakeMlp(activation);
    const Norm before = b.MakeNorm(rms, "input_layernorm"), between = b.MakeNorm(rms, "post_attention_layernorm");
    if (version == 1) {
      b.Add(before, attention);
      b.Add(between, mlp);
    } else {
      b.Add(before, attention, between);
      const Norm before_mlp = b.MakeNorm(rms, "pre_feedforward_layernorm");
      b.Add(before_mlp, mlp, b.MakeNorm(rms, "post_feedforward_layernorm"));
    }
  });
  d.FinalNorm(rms, "model.norm");
  return d.Finish();
}

}  // namespace

absl::StatusOr<ModelSpec> CreateGemma1(const Json& config) { return CreateGemma(config, 1); }
absl::StatusOr<ModelSpec> CreateGemma2(const Json& config) { return CreateGemma(config, 2); }
absl::StatusOr<ModelSpec> CreateGemma3(const Json& config) { return CreateGemma(config, 3); }

}  // namespace autoscheme
