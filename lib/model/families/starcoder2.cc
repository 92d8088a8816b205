// StarCoder 2: layer norms, biases, an MLP without gate, one sliding window or none.
#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateStarcoder2(const Json& config) {
  DecoderBuilder d(config, "starcoder2");
  d.ReadCommonKeys();
  d.ReadTie(true);
  const NormStyle norm = d.Layer("norm_epsilon", 1e-5, /*bias=*/true);
  const Activation activation = d.ActivationOf("hidden_act", "gelu_pytorch_tanh");
  const bool bias = d.Bool("use_bias", true);
  const int64_t window = d.SlidingWindow(0);
  AttentionNames names;
  names.bias = names.out_bias = bias;
  d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.window = window, attention.rotary = d.MakeRotary({});
    const Mlp mlp = b.MakeMlp(activation, {"", "mlp.c_fc", "mlp.c_proj", bias});
    const Norm before = b.MakeNorm(norm, "input_layernorm");
    b.Add(before, attention);
    b.Add(b.MakeNorm(norm, "post_attention_layernorm"), mlp);
  });
  d.FinalNorm(norm, "model.norm");
  return d.Finish();
}

}  // namespace autoscheme
