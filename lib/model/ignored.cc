#include "model/ignored.h"

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/count.h"
#include "base/io.h"

namespace autoscheme {
namespace {

// Tensors that nothing reads, by why that may matter: each kind is one warning.
class IgnoredTensors {
 public:
  IgnoredTensors(const ModelSpec& spec, const std::vector<std::string>& names) : spec_(spec) {
    const std::string& first = spec.blocks.front().name;
    blocks_prefix_ = first.substr(0, first.rfind('.') + 1);
    linears_.insert(spec.head.name);
    for (const BlockSpec& block : spec.blocks) {
      blocks_.insert(block.name);
      for (const LinearSpec& linear : block.linears) linears_.insert(absl::StrCat(block.name, ".", linear.name));
    }
    for (const std::string& name : names) {
      if (!IsBuffer(name) || IsBias(name)) kinds_[KindOf(name)].push_back(name);
    }
  }

  void Warn(const Context& context) const {
    for (int kind = 0; kind < kKinds; ++kind) {
      const std::vector<std::string>& names = kinds_[kind];
      if (names.empty()) continue;
      context.Warn(absl::StrCat(Count(names.size(), "tensor"), " of the checkpoint ", names.size() == 1 ? "is" : "are",
                                " ignored: ", FirstNames(names), "; ", Why(static_cast<Kind>(kind))));
    }
  }

 private:
  enum Kind { kAdapter, kQuantized, kBias, kHead, kFurtherBlock, kOther, kKinds };

  bool IsBias(absl::string_view name) const {
    return absl::EndsWith(name, ".bias") && linears_.contains(absl::StripSuffix(name, ".bias"));
  }

  Kind KindOf(absl::string_view name) const {
    if (IsOfAdapter(name)) return kAdapter;
    if (IsOfQuantized(name)) return kQuantized;
    if (IsBias(name)) return kBias;
    if (IsOfOtherHead(name)) return kHead;
    if (!absl::StartsWith(name, blocks_prefix_)) return kOther;
    return blocks_.contains(name.substr(0, name.find('.', blocks_prefix_.size()))) ? kOther : kFurtherBlock;
  }

  std::string Why(Kind kind) const {
    switch (kind) {
      case kAdapter:
        return "an adapter (LoRA) was not merged: without it these are the numbers of the base model; merge it first";
      case kQuantized:
        return "such are part of quantized weights: if the weights mean nothing without them, give the original 16- or "
               "32-bit checkpoint";
      case kBias:
        return absl::StrCat(
            "config.json gives such a layer of a ", spec_.model_type,
            " model no bias (attention_bias, mlp_bias), and transformers ignores it too; if the model was trained with "
            "one, these are not its numbers");
      case kHead:
        return "a classifier or reward model has such a head: the language model is computed with the head that "
               "config.json gives it, which may never have been trained";
      case kFurtherBlock:
        return absl::StrCat("config.json says num_hidden_layers ", spec_.blocks.size(),
                            ": if the model has more, correct it");
      default:
        return absl::StrCat("a ", spec_.model_type,
                            " model has no such tensor; if it was trained with one, these are not its numbers");
    }
  }

  const ModelSpec& spec_;
  std::string blocks_prefix_;  // "model.layers."
  absl::flat_hash_set<std::string> blocks_, linears_;
  std::vector<std::string> kinds_[kKinds];
};

// Code that comes with a model is never run. True if there is such.
bool WarnOfOwnCode(const Context& context, const Json& config, const std::string& model_type) {
  const JsonValue* map = JsonFind(config, "auto_map");
  if (map == nullptr || !map->IsObject()) return false;
  std::vector<std::string> names;
  for (const auto& member : map->GetObject()) {
    const absl::string_view key = JsonText(member.name);
    if (!member.value.IsString() || (key != "AutoConfig" && !absl::StartsWith(key, "AutoModel"))) continue;
    names.emplace_back(JsonText(member.value));
  }
  if (names.empty()) return false;
  context.Warn(absl::StrCat("config.json names code of its own (auto_map: ", FirstNames(names),
                            "), which is not run: the model is "
                            "computed as a ",
                            model_type, " model; if its code computes something else, these are not its numbers"));
  return true;
}

// The class that config.json names first has a family and a head: LlamaForSequenceClassification.
void WarnOfClass(const Context& context, const Json& config, const ModelSpec& spec) {
  const JsonValue* classes = JsonFind(config, "architectures");
  if (classes == nullptr || !classes->IsArray() || classes->Empty() || !(*classes)[0].IsString()) return;
  const std::string name(JsonText((*classes)[0]));
  const bool old = absl::EndsWith(name, "LMHeadModel");
  const size_t head = old ? name.rfind("LMHead") : name.rfind("For");
  if (head == std::string::npos || absl::EndsWith(name, "ForConditionalGeneration")) return;
  const auto is_of = [&](absl::string_view type) {
    return absl::AsciiStrToLower(name.substr(0, head)) ==
           absl::StrReplaceAll(absl::StripSuffix(type, "_text"), {{"_", ""}});
  };
  std::string says;
  if (!old && !absl::EndsWith(name, "ForCausalLM")) {
    says = "whose head is another than a language model's";
  } else if (!is_of(absl::AsciiStrToLower(spec.model_type)) && !is_of(spec.family)) {
    says = "which is of another family";
  }
  if (says.empty()) return;
  context.Warn(absl::StrCat("config.json names ", Quoted(name), " in architectures, ", says,
                            ": these are the numbers of a ", Quoted(spec.model_type), " model with a language head"));
}

}  // namespace

bool HasPart(absl::string_view name, absl::Span<const absl::string_view> parts) {
  const std::string dotted = absl::StrCat(".", name, ".");
  return absl::c_any_of(parts, [&](absl::string_view part) { return absl::StrContains(dotted, part); });
}

bool IsOfQuantized(absl::string_view name) {
  return HasPart(name, {".qweight.", ".qzeros.", ".g_idx.", ".weight_packed.", ".weight_scale", ".absmax.",
                        ".quant_state.", ".SCB."});
}

bool IsOfAdapter(absl::string_view name) {
  return HasPart(name, {".lora_", ".base_layer.", ".modules_to_save.", ".adapter_"});
}

bool IsOfOtherHead(absl::string_view name) {
  return HasPart(name,
                 {".score.", ".classifier.", ".classification_head.", ".qa_outputs.", ".v_head.", ".reward_head."});
}

bool IsBuffer(absl::string_view name) {
  return HasPart(name, {".inv_freq.", ".rotary_emb.", ".attn.bias.", ".attn.masked_bias.", ".attention.bias.",
                        ".attention.masked_bias."});
}

void WarnOfIgnored(const Context& context, const ModelSpec& spec, const Json& config,
                   const std::vector<std::string>& unused_tensors) {
  for (const std::string& warning : spec.warnings) context.Warn(warning);
  if (!WarnOfOwnCode(context, config, spec.model_type)) WarnOfClass(context, config, spec);
  if (!unused_tensors.empty()) IgnoredTensors(spec, unused_tensors).Warn(context);
}

}  // namespace autoscheme
