// Qwen2 and Qwen2.5: bias on q, k and v only.
#include "model/families.h"
#include "model/llama_like.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateQwen2(const Json& config) {
  DecoderBuilder d(config, "qwen2");
  d.ReadCommonKeys();
  LlamaLike family;
  family.qkv_bias = true;
  family.windows = QwenWindows(d);
  return DescribeLlamaLike(d, family);
}

}  // namespace autoscheme
