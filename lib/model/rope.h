// Rotary position embedding: what config.json says of its frequencies, and the tables made from them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/json.h"

namespace autoscheme {

struct RopeConfig {
  double theta = 10000.0;
  std::string type = "default";  // "default", "linear" or "llama3"
  double factor = 1, low_freq_factor = 1, high_freq_factor = 1;
  double original_max_positions = 0;
};

// Reads rope_theta, rope_scaling (transformers 4) and rope_parameters (transformers 5) as transformers does where its
// versions agree: rope_scaling, where it says anything, decides alone; the theta inside of the object that decides goes
// before the one beside it. An object may be nested by attention type; `attention_types` are those that the blocks have
// ("full_attention", "sliding_attention"), and all must have the same frequencies. What the config says twice or in
// vain is added to `warnings`. Errors name the key: INVALID_ARGUMENT where it contradicts itself or a number is
// impossible, UNIMPLEMENTED for another type, for frequencies that differ between blocks, and for heads that are
// rotated in part (partial_rotary_factor).
absl::StatusOr<RopeConfig> ReadRopeConfig(const Json& config, absl::Span<const std::string> attention_types,
                                          std::vector<std::string>* warnings);

}  // namespace autoscheme
