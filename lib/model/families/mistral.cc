// Mistral and Ministral: no biases; one sliding window for all blocks, for some, or none.
#include "model/families.h"
#include "model/llama_like.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateMistral(const Json& config) {
  DecoderBuilder d(config, "mistral");
  d.ReadCommonKeys();
  LlamaLike family;
  const int64_t window = d.SlidingWindow(4096);
  // A config with layer_types is one that transformers calls ministral.
  family.windows = d.WindowsByType(window);
  if (family.windows.empty()) family.windows.assign(d.blocks, window);
  return DescribeLlamaLike(d, family);
}

}  // namespace autoscheme
