// Llama 1 to 3.x, and models that publish under its name (TinyLlama, SmolLM2, Yi, ...).
#include "model/families.h"
#include "model/llama_like.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateLlama(const Json& config) {
  DecoderBuilder d(config, "llama");
  d.ReadCommonKeys();
  LlamaLike family;
  family.qkv_bias = family.out_bias = d.Bool("attention_bias", false);
  family.mlp_bias = d.Bool("mlp_bias", false);
  return DescribeLlamaLike(d, family);
}

}  // namespace autoscheme
