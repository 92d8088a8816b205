// Rotary position embedding: what config.json says of its frequencies.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/architecture.h"
#include "base/json.h"

namespace autoscheme {

// Reads rope_theta, rope_scaling (transformers 4) and rope_parameters (transformers 5) as transformers does where its
// versions agree: rope_scaling, where it says anything, decides alone; the theta inside of the object that decides goes
// before the one beside it. An object may be nested by attention type ("full_attention", "sliding_attention"): then
// what it has for `attention_type` is read. Sets `part`. What the config says twice or in vain is added to `warnings`.
// Errors name the key: INVALID_ARGUMENT where it contradicts itself, a number is impossible or a member unknown,
// UNIMPLEMENTED for another type and for heads that are rotated in part in a family that rotates them whole.
absl::StatusOr<RopeConfig> ReadRopeConfig(const Json& config, const std::string& attention_type,
                                          const RopeDefaults& defaults, double* part,
                                          std::vector<std::string>* warnings);

// Whether RopeConfig::type may be that.
bool IsRopeType(const std::string& type);

}  // namespace autoscheme
