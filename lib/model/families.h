// The factories that registry.cc lists; each family's file defines one.
#pragma once

#include "model/decoder_spec.h"

namespace autoscheme {

absl::StatusOr<ModelSpec> CreateArcee(const Json& config);
absl::StatusOr<ModelSpec> CreateCohere(const Json& config);
absl::StatusOr<ModelSpec> CreateCohere2(const Json& config);
absl::StatusOr<ModelSpec> CreateExaone4(const Json& config);
absl::StatusOr<ModelSpec> CreateFalcon(const Json& config);
absl::StatusOr<ModelSpec> CreateGemma1(const Json& config);
absl::StatusOr<ModelSpec> CreateGemma2(const Json& config);
absl::StatusOr<ModelSpec> CreateGemma3(const Json& config);
absl::StatusOr<ModelSpec> CreateGlm(const Json& config);
absl::StatusOr<ModelSpec> CreateGlm4(const Json& config);
absl::StatusOr<ModelSpec> CreateGpt2(const Json& config);
absl::StatusOr<ModelSpec> CreateGptJ(const Json& config);
absl::StatusOr<ModelSpec> CreateGptNeoX(const Json& config);
absl::StatusOr<ModelSpec> CreateGranite(const Json& config);
absl::StatusOr<ModelSpec> CreateHelium(const Json& config);
absl::StatusOr<ModelSpec> CreateInternLm3(const Json& config);
absl::StatusOr<ModelSpec> CreateLlama(const Json& config);
absl::StatusOr<ModelSpec> CreateMinistral3(const Json& config);
absl::StatusOr<ModelSpec> CreateMistral(const Json& config);
absl::StatusOr<ModelSpec> CreateNemotron(const Json& config);
absl::StatusOr<ModelSpec> CreateOlmo(const Json& config);
absl::StatusOr<ModelSpec> CreateOlmo2(const Json& config);
absl::StatusOr<ModelSpec> CreateOpt(const Json& config);
absl::StatusOr<ModelSpec> CreatePhi(const Json& config);
absl::StatusOr<ModelSpec> CreatePhi3(const Json& config);
absl::StatusOr<ModelSpec> CreateQwen2(const Json& config);
absl::StatusOr<ModelSpec> CreateQwen3(const Json& config);
absl::StatusOr<ModelSpec> CreateSeedOss(const Json& config);
absl::StatusOr<ModelSpec> CreateSmolLm3(const Json& config);
absl::StatusOr<ModelSpec> CreateStableLm(const Json& config);
absl::StatusOr<ModelSpec> CreateStarcoder2(const Json& config);

}  // namespace autoscheme
