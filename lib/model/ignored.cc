#include "model/ignored.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
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
    for (const std::string& name : names) kinds_[KindOf(name)].push_back(name);
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
  enum Kind { kAdapter, kBias, kFurtherBlock, kPositions, kOther, kKinds };

  Kind KindOf(absl::string_view name) const {
    for (const char* part : {".lora_", ".base_layer.", ".modules_to_save.", ".adapter_"}) {
      if (absl::StrContains(name, part)) return kAdapter;
    }
    if (absl::EndsWith(name, ".inv_freq")) return kPositions;
    if (absl::EndsWith(name, ".bias") && linears_.contains(absl::StripSuffix(name, ".bias"))) return kBias;
    if (!absl::StartsWith(name, blocks_prefix_)) return kOther;
    return blocks_.contains(name.substr(0, name.find('.', blocks_prefix_.size()))) ? kOther : kFurtherBlock;
  }

  std::string Why(Kind kind) const {
    switch (kind) {
      case kAdapter:
        return "they are of an adapter (LoRA) that was not merged: without it these are the numbers of the base model; "
               "merge it first";
      case kBias:
        return absl::StrCat(
            "config.json gives these layers of a ", spec_.model_type,
            " model no bias (attention_bias, mlp_bias), and transformers ignores them too; if it was trained with "
            "them, these are not its numbers");
      case kFurtherBlock:
        return absl::StrCat("config.json says num_hidden_layers ", spec_.blocks.size(),
                            ": if the model has more, correct it");
      case kPositions: return "these numbers are computed from config.json instead";
      default:
        return absl::StrCat("a ", spec_.model_type,
                            " model has no such tensors; if it was trained with them, these are not its numbers");
    }
  }

  const ModelSpec& spec_;
  std::string blocks_prefix_;  // "model.layers."
  absl::flat_hash_set<std::string> blocks_, linears_;
  std::vector<std::string> kinds_[kKinds];
};

// Code that comes with a model is never run.
void WarnOfOwnCode(const Context& context, const Json& config, const std::string& model_type) {
  const JsonValue* map = JsonFind(config, "auto_map");
  if (map == nullptr || !map->IsObject()) return;
  std::vector<std::string> names;
  for (const auto& member : map->GetObject()) {
    const absl::string_view key(member.name.GetString(), member.name.GetStringLength());
    if (!member.value.IsString() || (key != "AutoConfig" && !absl::StartsWith(key, "AutoModel"))) continue;
    names.emplace_back(member.value.GetString(), member.value.GetStringLength());
  }
  if (names.empty()) return;
  context.Warn(absl::StrCat("config.json names code of its own (auto_map: ", FirstNames(names),
                            "), which is not run: the model is "
                            "computed as a ",
                            model_type, " model; if its code computes something else, these are not its numbers"));
}

}  // namespace

void WarnOfIgnored(const Context& context, const ModelSpec& spec, const Json& config,
                   const std::vector<std::string>& unused_tensors) {
  for (const std::string& warning : spec.warnings) context.Warn(warning);
  WarnOfOwnCode(context, config, spec.model_type);
  if (!unused_tensors.empty()) IgnoredTensors(spec, unused_tensors).Warn(context);
}

}  // namespace autoscheme
