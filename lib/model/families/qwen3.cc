// Qwen3, dense: RMS norm on every query and key head; head_dim need not be hidden / heads.
#include "model/families.h"
#include "model/llama_like.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateQwen3(const Json& config) {
  DecoderBuilder d(config, "qwen3");
  d.ReadCommonKeys(/*head_dim=*/128);
  LlamaLike family;
  family.qkv_bias = family.out_bias = d.Bool("attention_bias", false);
  family.qk_norm = true;
  family.windows = QwenWindows(d);
  return DescribeLlamaLike(d, family);
}

}  // namespace autoscheme
