// Mistral: no biases, one sliding window for all blocks, or none.
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "skeleton/dense_decoder.h"
#include "skeleton/families.h"

namespace autoscheme {

absl::StatusOr<std::unique_ptr<Architecture>> CreateMistral(const Json& config) {
  AUTOSCHEME_ASSIGN_OR_RETURN(DenseDecoderConfig c, ReadDenseDecoderConfig(config, "mistral"));
  // null means none; a config that does not mention it means the family's first release, which has 4096.
  const int64_t unmentioned = config.HasMember("sliding_window") ? 0 : 4096;
  AUTOSCHEME_ASSIGN_OR_RETURN(int64_t window, JsonIntOr(config, "sliding_window", unmentioned, "config.json"));
  if (window < 0) return absl::InvalidArgumentError(absl::StrCat("config.json: sliding_window is ", window));
  c.window.assign(c.blocks, window);
  return MakeDenseDecoder(std::move(c));
}

}  // namespace autoscheme
