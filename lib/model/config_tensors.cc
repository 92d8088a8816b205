#include "model/config_tensors.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "autoscheme/quoted.h"

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
      const std::string name(absl::StripPrefix(JsonText(*value), "torch."));
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

}  // namespace

std::vector<TensorInfo> TensorsOfConfig(const Context& context, const Json& config, const ModelSpec& spec) {
  const Dtype dtype = DtypeOfConfig(context, config);
  std::vector<TensorInfo> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    TensorInfo info;
    info.name = name, info.dtype = dtype, info.shape = std::move(shape);
    tensors.push_back(std::move(info));
  };
  const auto add_linear = [&](const std::string& name, const LinearSpec& linear) {
    add(name + ".weight", StoredShape(linear));
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

}  // namespace autoscheme
