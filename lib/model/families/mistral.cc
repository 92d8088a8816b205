// Mistral and Ministral: no biases; one sliding window for all blocks, for some, or none. Ministral 3: queries that
// grow with their position.
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

absl::StatusOr<ModelSpec> CreateMinistral3(const Json& config) {
  DecoderBuilder d(config, "ministral3");
  d.ReadCommonKeys(/*head_dim=*/128);
  LlamaLike family;
  family.queries_grow = true, family.theta = 1e6, family.eps = 1e-5;
  family.windows.assign(d.blocks, d.SlidingWindow(0));
  return DescribeLlamaLike(d, family);
}

}  // namespace autoscheme
