#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "autoscheme/meta_skeleton.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "model/decoder_spec.h"
#include "model/families.h"
#include "model/text_defaults.h"

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
    {"ministral", CreateMistral}, {"ministral3", CreateMinistral3},
};

// Multimodal models: the family of their text decoder, unless its text_config says another, and the module that it is.
struct Wrapper {
  const char* model_type;
  const char* text_type;
  const char* module;        // in the place of "model."
  bool may_be_flat = false;  // the first configs have the text's keys beside the others, and no text_config
};
constexpr Wrapper kWrappers[] = {
    {"gemma3", "gemma3_text", "model.language_model."},
    {"idefics3", "llama", "model.text_model."},
    {"llava", "llama", "model.language_model."},
    {"llava_next", "llama", "model.language_model."},
    {"mistral3", "mistral", "model.language_model."},
    {"qwen2_vl", "qwen2", "model.language_model.", /*may_be_flat=*/true},
    {"qwen2_5_vl", "qwen2", "model.language_model.", /*may_be_flat=*/true},
    {"qwen3_vl", "qwen3", "model.language_model."},
    {"smolvlm", "llama", "model.text_model."},
};

// `where`: the part of config.json that `config` is.
absl::Status RefuseQuantized(const JsonValue& config, absl::string_view where) {
  const JsonValue* quantization = JsonFind(config, "quantization_config");
  if (quantization == nullptr) return absl::OkStatus();
  const JsonValue* method = quantization->IsObject() ? JsonFind(*quantization, "quant_method") : nullptr;
  const bool named = method != nullptr && method->IsString();
  return absl::UnimplementedError(absl::StrCat(
      "config.json has a quantization_config", where, ": the model is quantized already",
      named ? absl::StrCat(" (", Quoted(JsonText(*method)), ")") : "", "; give the original 16- or 32-bit checkpoint"));
}

absl::StatusOr<ModelSpec> DescribeText(const Json& config, const std::string& model_type,
                                       absl::Span<const Architecture> given) {
  for (const Architecture& architecture : given) {
    if (model_type != architecture.model_type) continue;
    if (architecture.describe == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("the architecture ", Quoted(model_type), " has no function that describes it"));
    }
    AUTOSCHEME_ASSIGN_OR_RETURN(ModelSpec spec, architecture.describe(config));
    spec.model_type = model_type;
    return spec;
  }
  for (const Entry& entry : kRegistry) {
    if (model_type != entry.model_type) continue;
    AUTOSCHEME_ASSIGN_OR_RETURN(ModelSpec spec, entry.family(config));
    spec.model_type = spec.family = model_type;  // one family may serve several
    return spec;
  }
  for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"}) {
    if (JsonFind(config, key) == nullptr) continue;
    return absl::UnimplementedError(absl::StrCat("model_type ", Quoted(model_type), " is a mixture of experts (", key,
                                                 " in config.json), which is not supported yet; dense models are: ",
                                                 absl::StrJoin(SupportedTypes(given), ", ")));
  }
  return absl::UnimplementedError(absl::StrCat(
      "model_type ", Quoted(model_type), " is not supported; supported: ", absl::StrJoin(SupportedTypes(given), ", "),
      "; many new models are one of these under another name, which an alias can say (docs/models.md)"));
}

// "qwen2_vl_text" is the text part of "qwen2_vl".
std::string TextType(const Json& text, const Wrapper& wrapper) {
  const std::string type = JsonStringOr(text, "model_type", wrapper.text_type, "config.json").value_or("");
  const bool own = type == wrapper.model_type || type == absl::StrCat(wrapper.model_type, "_text");
  return own ? wrapper.text_type : type;
}

absl::StatusOr<ModelSpec> DescribeWrapped(const Json& config, const Wrapper& wrapper,
                                          absl::Span<const Architecture> given) {
  Json text;
  const JsonValue* inner = JsonFind(config, "text_config");
  if (inner == nullptr && !wrapper.may_be_flat) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json has no text_config, the part that says what the text decoder of a ",
                     wrapper.model_type, " model is; is the model_type right?"));
  }
  if (inner != nullptr && !inner->IsObject()) {
    return absl::InvalidArgumentError("config.json: text_config must be an object");
  }
  if (inner != nullptr) AUTOSCHEME_RETURN_IF_ERROR(RefuseQuantized(*inner, " in text_config"));
  text.CopyFrom(inner != nullptr ? *inner : static_cast<const JsonValue&>(config), text.GetAllocator());
  if (const JsonValue* tie = JsonFind(config, "tie_word_embeddings"); tie != nullptr) {
    text.RemoveMember("tie_word_embeddings");
    text.AddMember("tie_word_embeddings", JsonValue(*tie, text.GetAllocator()), text.GetAllocator());
  }
  const std::string type = TextType(text, wrapper);
  if (type == wrapper.text_type) AddTextDefaults(wrapper.model_type, text);
  AddTextDefaults(type, text);
  AUTOSCHEME_ASSIGN_OR_RETURN(ModelSpec spec, DescribeText(text, type, given));
  spec.model_type = wrapper.model_type, spec.multimodal = true;
  const auto rename = [&](std::string& name) {
    if (absl::StartsWith(name, "model.")) name = wrapper.module + name.substr(6);
  };
  rename(spec.input.embedding);
  for (BlockSpec& block : spec.blocks) rename(block.name);
  for (ParamSpec& other : spec.others) rename(other.name);
  return spec;
}

}  // namespace

std::vector<std::string> SupportedTypes(absl::Span<const Architecture> given) {
  std::vector<std::string> names;
  for (const Architecture& architecture : given) names.push_back(architecture.model_type);
  for (const Entry& entry : kRegistry) names.push_back(entry.model_type);
  for (const Wrapper& wrapper : kWrappers) names.push_back(wrapper.model_type);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::vector<std::string> SupportedModelTypes() { return SupportedTypes({}); }

absl::StatusOr<ModelSpec> Describe(const Json& config, const std::string& model_type,
                                   absl::Span<const Architecture> given) {
  const bool own = std::any_of(given.begin(), given.end(),
                               [&](const Architecture& architecture) { return architecture.model_type == model_type; });
  for (const Wrapper& wrapper : kWrappers) {
    if (!own && model_type == wrapper.model_type) return DescribeWrapped(config, wrapper, given);
  }
  return DescribeText(config, model_type, given);
}

absl::StatusOr<ModelSpec> ReadModelSpec(const Json& config, absl::Span<const Architecture> given) {
  for (const Architecture& architecture : given) {
    const auto same = [&](const Architecture& other) { return other.model_type == architecture.model_type; };
    if (architecture.describe != nullptr && std::count_if(given.begin(), given.end(), same) == 1) continue;
    return absl::InvalidArgumentError(absl::StrCat("Context::architectures: ", Quoted(architecture.model_type),
                                                   " is there twice, or has no function that describes it"));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(std::string model_type, JsonString(config, "model_type", "config.json"));
  AUTOSCHEME_RETURN_IF_ERROR(RefuseQuantized(config, ""));
  AUTOSCHEME_ASSIGN_OR_RETURN(ModelSpec spec, Describe(config, model_type, given));
  AUTOSCHEME_RETURN_IF_ERROR(CheckSpec(spec));
  for (BlockSpec& block : spec.blocks) Finish(block);
  return spec;
}

}  // namespace autoscheme
