// Qwen2 and Qwen2.5: bias on q, k and v only.
#include "base/status_macros.h"
#include "model/decoder_config.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateQwen2(const Json& config) {
  AUTOSCHEME_ASSIGN_OR_RETURN(DecoderConfig c, ReadDecoderConfig(config, "qwen2"));
  c.qkv_bias = true;
  AUTOSCHEME_RETURN_IF_ERROR(ReadQwenWindows(config, c));
  return MakeDecoder(config, std::move(c));
}

}  // namespace autoscheme
