#include "model/config_tensors.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "model/decoder_spec.h"

namespace autoscheme {
namespace {

Dtype DtypeOfConfig(const Context& context, const Json& config) {
  constexpr std::pair<const char*, Dtype> kTypes[] = {
      {"bfloat16", Dtype::kBF16}, {"float16", Dtype::kF16}, {"float32", Dtype::kF32}};
  const JsonValue* text = JsonFind(config, "text_config");
  std::string given;
  for (const JsonValue* object : {static_cast<const JsonValue*>(&config), text}) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      const JsonValue* value = object != nullptr && object->IsObject() ? JsonFind(*object, key) : nullptr;
      if (value == nullptr || !value->IsString()) continue;
      const std::string name(absl::StripPrefix(value->GetString(), "torch."));
      for (const auto& [known, dtype] : kTypes) {
        if (name == known) return dtype;
      }
      if (given.empty()) given = name;
    }
  }
  context.Warn(absl::StrCat("config.json names ",
                            given.empty() ? "no dtype" : absl::StrCat("the dtype ", Quoted(given)),
                            ": its weights are counted as bfloat16"));
  return Dtype::kBF16;
}

std::vector<TensorInfo> TensorsOf(const ModelSpec& spec, Dtype dtype) {
  std::vector<TensorInfo> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    TensorInfo info;
    info.name = name, info.dtype = dtype, info.shape = std::move(shape);
    tensors.push_back(std::move(info));
  };
  const auto add_linear = [&](const std::string& name, const LinearSpec& linear) {
    std::vector<int64_t> shape = {linear.out_features, linear.in_features};
    if (linear.transposed) std::swap(shape[0], shape[1]);
    add(name + ".weight", std::move(shape));
    if (linear.bias) add(name + ".bias", {linear.out_features});
  };
  add(spec.input.embedding, {spec.vocab_size, spec.input.width});
  for (const ParamSpec& other : spec.others) add(other.name, other.shape);
  for (const BlockSpec& block : spec.blocks) {
    for (const LinearSpec& linear : block.linears) add_linear(absl::StrCat(block.name, ".", linear.name), linear);
    for (const ParamSpec& param : block.params) add(absl::StrCat(block.name, ".", param.name), param.shape);
  }
  if (!spec.tied_head) add_linear(spec.head.name, spec.head);
  if (spec.tied_head && spec.head.bias) add(spec.head.name + ".bias", {spec.vocab_size});
  return tensors;
}

}  // namespace

Checkpoint::TensorsOf TensorsOfConfig(const Context& context) {
  return [&context](const Json& config) -> absl::StatusOr<std::vector<TensorInfo>> {
    AUTOSCHEME_ASSIGN_OR_RETURN(const ModelSpec spec, ReadModelSpec(config, ArchitecturesOf(context)));
    return TensorsOf(spec, DtypeOfConfig(context, config));
  };
}

}  // namespace autoscheme
