// The factories that registry.cc lists; each family's file defines one.
#pragma once

#include "model/decoder_spec.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateLlama(const Json& config);
absl::StatusOr<ModelSpec> CreateMistral(const Json& config);
absl::StatusOr<ModelSpec> CreateQwen2(const Json& config);
absl::StatusOr<ModelSpec> CreateQwen3(const Json& config);

}  // namespace autoscheme
