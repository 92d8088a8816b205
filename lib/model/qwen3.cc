// Qwen3, dense: RMS norm on every query and key head; head_dim need not be hidden / heads.
#include "base/status_macros.h"
#include "model/decoder_config.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateQwen3(const Json& config) {
  AUTOSCHEME_ASSIGN_OR_RETURN(DecoderConfig c, ReadDecoderConfig(config, "qwen3", /*default_head_dim=*/128));
  AUTOSCHEME_ASSIGN_OR_RETURN(c.qkv_bias, JsonBoolOr(config, "attention_bias", false, "config.json"));
  c.o_bias = c.qkv_bias;
  c.qk_norm = true;
  AUTOSCHEME_RETURN_IF_ERROR(ReadQwenWindows(config, c));
  return MakeDecoder(config, std::move(c));
}

}  // namespace autoscheme
