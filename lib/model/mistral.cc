// Mistral: no biases; one sliding window for all blocks, for some, or none.
#include "base/status_macros.h"
#include "model/decoder_config.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateMistral(const Json& config) {
  AUTOSCHEME_ASSIGN_OR_RETURN(DecoderConfig c, ReadDecoderConfig(config, "mistral"));
  AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t window, ReadSlidingWindow(config));
  // A config with layer_types is one that transformers calls ministral.
  AUTOSCHEME_ASSIGN_OR_RETURN(const bool by_type, ReadLayerTypes(config, window, c));
  if (!by_type) c.window.assign(c.blocks, window);
  return MakeDecoder(config, std::move(c));
}

}  // namespace autoscheme
