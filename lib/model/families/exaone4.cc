// EXAONE 4: norms behind attention and MLP alone, norms of every query and key head; where some layers are local, only
// those turn their heads.
#include <string>

#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateExaone4(const Json& config) {
  DecoderBuilder d(config, "exaone4");
  d.ReadCommonKeys();
  d.ReadTie(false);
  const NormStyle rms = d.Rms("rms_norm_eps", 1e-5);
  const Activation activation = d.ActivationOf("hidden_act", "silu");
  const int64_t window = d.SlidingWindow(4096);
  // "LLLG", local layers and a global one in turns, or the length of such a turn.
  const JsonValue* given = JsonFind(d.config, "sliding_window_pattern");
  const std::string turn = given != nullptr && given->IsString() ? given->GetString() : "G";
  d.RefuseUnless(turn.find('G') + 1 == turn.size(), "sliding_window_pattern", "only the last of a turn may be global");
  const int64_t pattern = turn == "G" ? d.Int("sliding_window_pattern", 4) : static_cast<int64_t>(turn.size());
  const std::vector<int64_t> windows = d.WindowsByPattern(window, window > 0 ? pattern : 0);
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t i) {
    Attention attention = b.MakeAttention();
    attention.window = windows[i];
    if (window == 0 || windows[i] > 0) {
      attention.rotary = d.MakeRotary({}, windows[i] > 0 ? "sliding_attention" : "full_attention");
    }
    attention.q_norm = b.MakeNorm(rms, "self_attn.q_norm", {d.head_dim});
    attention.k_norm = b.MakeNorm(rms, "self_attn.k_norm", {d.head_dim});
    const Mlp mlp = b.MakeMlp(activation);
    b.Add({}, attention, b.MakeNorm(rms, "post_attention_layernorm"));
    b.Add({}, mlp, b.MakeNorm(rms, "post_feedforward_layernorm"));
  });
  d.FinalNorm(rms, "model.norm");
  return d.Finish();
}

}  // namespace autoscheme
