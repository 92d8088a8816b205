// The factories that registry.cc lists; each family's file defines one.
#ifndef AUTOSCHEME_MODEL_FAMILIES_H_
#define AUTOSCHEME_MODEL_FAMILIES_H_

#include <memory>

#include "model/architecture.h"

namespace autoscheme {

absl::StatusOr<std::unique_ptr<Architecture>> CreateLlama(const Json& config);
absl::StatusOr<std::unique_ptr<Architecture>> CreateMistral(const Json& config);
absl::StatusOr<std::unique_ptr<Architecture>> CreateQwen2(const Json& config);
absl::StatusOr<std::unique_ptr<Architecture>> CreateQwen3(const Json& config);

}  // namespace autoscheme

#endif  // AUTOSCHEME_MODEL_FAMILIES_H_
