// Qwen2 and Qwen2.5: bias on q, k and v only.
#include "base/status_macros.h"
#include "model/dense_decoder.h"
#include "model/families.h"

namespace autoscheme {

absl::StatusOr<std::unique_ptr<Architecture>> CreateQwen2(const Json& config) {
  AUTOSCHEME_ASSIGN_OR_RETURN(DenseDecoderConfig c, ReadDenseDecoderConfig(config, "qwen2"));
  c.qkv_bias = true;
  AUTOSCHEME_RETURN_IF_ERROR(ReadQwenWindows(config, c));
  return MakeDenseDecoder(config, std::move(c));
}

}  // namespace autoscheme
