// Llama 1 to 3.x, and models that publish under its name (TinyLlama, SmolLM2, ...).
#include "base/status_macros.h"
#include "model/decoder_config.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateLlama(const Json& config) {
  AUTOSCHEME_ASSIGN_OR_RETURN(DecoderConfig c, ReadDecoderConfig(config, "llama"));
  AUTOSCHEME_ASSIGN_OR_RETURN(c.qkv_bias, JsonBoolOr(config, "attention_bias", false, "config.json"));
  AUTOSCHEME_ASSIGN_OR_RETURN(c.mlp_bias, JsonBoolOr(config, "mlp_bias", false, "config.json"));
  c.o_bias = c.qkv_bias;
  if (JsonFind(config, "sliding_window") != nullptr) {
    c.warnings.push_back(
        "config.json: a llama model has no \"sliding_window\", ignored here as in transformers: every block attends to "
        "all");
  }
  return MakeDecoder(config, std::move(c));
}

}  // namespace autoscheme
