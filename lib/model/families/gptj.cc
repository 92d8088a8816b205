// GPT-J: attention and MLP side by side, heads that turn in part, neighbouring numbers together.
#include <algorithm>

#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateGptJ(const Json& config) {
  DecoderBuilder d(config, "gptj");
  d.ReadGptKeys();
  d.ReadTie(false);
  const NormStyle norm = d.Layer("layer_norm_epsilon", 1e-5, /*bias=*/true);
  const Activation activation = d.ActivationOf("activation_function", "gelu_new");
  DecoderBuilder::RotaryOptions rotation;
  const int64_t dims = d.Count("rotary_dim", d.head_dim);
  if (dims > d.head_dim) {
    d.Fail(absl::InvalidArgumentError("config.json: rotary_dim is larger than n_embd / n_head"));
    return d.Finish();
  }
  // Half a number more, so that no rounding loses one.
  rotation.part = std::min((static_cast<double>(dims) + 0.5) / static_cast<double>(d.head_dim), 1.0);
  rotation.may_be_partial = rotation.interleaved = true;
  AttentionNames names;
  names.q = "attn.q_proj", names.k = "attn.k_proj", names.v = "attn.v_proj", names.out = "attn.out_proj";
  names.order = "kvqo";
  d.EachBlock("transformer.h", [&](BlockBuilder& b, int64_t) {
    Attention attention = b.MakeAttention(names);
    attention.rotary = d.MakeRotary(rotation);
    const Mlp mlp = b.MakeMlp(activation, {"", "mlp.fc_in", "mlp.fc_out", /*bias=*/true});
    const Norm before = b.MakeNorm(norm, "ln_1");
    b.AddParallel({{before, attention, {}}, {before, mlp, {}}}, /*residual_last=*/true);
  });
  d.FinalNorm(norm, "transformer.ln_f");
  d.spec.head.bias = true;
  return d.Finish();
}

}  // namespace autoscheme
