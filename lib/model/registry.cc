#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "autoscheme/meta_skeleton.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "model/decoder_spec.h"
#include "model/families.h"

namespace autoscheme {
namespace {

struct Entry {
  const char* model_type;
  Family family;
};
constexpr Entry kRegistry[] = {
    {"arcee", CreateArcee},       {"cohere", CreateCohere},
    {"cohere2", CreateCohere2},   {"exaone4", CreateExaone4},
    {"falcon", CreateFalcon},     {"gemma", CreateGemma1},
    {"gemma2", CreateGemma2},     {"gemma3_text", CreateGemma3},
    {"glm", CreateGlm},           {"glm4", CreateGlm4},
    {"gpt2", CreateGpt2},         {"gptj", CreateGptJ},
    {"gpt_neox", CreateGptNeoX},  {"granite", CreateGranite},
    {"helium", CreateHelium},     {"internlm3", CreateInternLm3},
    {"llama", CreateLlama},       {"mistral", CreateMistral},
    {"nemotron", CreateNemotron}, {"olmo", CreateOlmo},
    {"olmo2", CreateOlmo2},       {"opt", CreateOpt},
    {"phi", CreatePhi},           {"phi3", CreatePhi3},
    {"qwen2", CreateQwen2},       {"qwen3", CreateQwen3},
    {"seed_oss", CreateSeedOss},  {"smollm3", CreateSmolLm3},
    {"stablelm", CreateStableLm}, {"starcoder2", CreateStarcoder2},
    {"ministral", CreateMistral},
};

}  // namespace

std::vector<std::string> SupportedModelTypes() {
  std::vector<std::string> names;
  for (const Entry& entry : kRegistry) names.push_back(entry.model_type);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<ModelSpec> ReadModelSpec(const Json& config) {
  AUTOSCHEME_ASSIGN_OR_RETURN(std::string model_type, JsonString(config, "model_type", "config.json"));
  if (JsonFind(config, "quantization_config") != nullptr) {
    return absl::UnimplementedError(
        "config.json has a quantization_config: the model is quantized already; give the original 16- or 32-bit "
        "checkpoint");
  }
  for (const Entry& entry : kRegistry) {
    if (model_type == entry.model_type) return entry.family(config);
  }
  return absl::UnimplementedError(absl::StrCat(
      "model_type ", Quoted(model_type), " is not supported; supported: ", absl::StrJoin(SupportedModelTypes(), ", ")));
}

}  // namespace autoscheme
