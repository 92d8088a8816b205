// Where tensors are missing, the message says what is there instead.
#include "model/missing.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "autoscheme/meta_skeleton.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

using Catch::Contains;

// A tiny model whose tensors go by other names.
struct Renamed {
  using Names = std::function<std::vector<std::string>(const std::string&)>;
  explicit Renamed(const Names& names, TinyModel model = {}) {
    std::vector<RawTensor> tensors;
    for (const RawTensor& tensor : MakeTinyTensors(model)) {
      for (const std::string& name : names(tensor.name)) {
        tensors.push_back(tensor);
        tensors.back().name = name;
      }
    }
    Open(model, tensors);
  }
  Renamed(const TinyModel& model, const std::vector<RawTensor>& tensors) { Open(model, tensors); }
  void Open(const TinyModel& model, const std::vector<RawTensor>& tensors) {
    std::ofstream(dir / "config.json") << TinyConfig(model);
    WriteTinyWeights(tensors, 1, dir.path());
    const absl::Status status = MetaSkeleton::Open(Context(), dir.path()).status();
    code = status.code();
    text = std::string(status.message());
  }
  TempDir dir;
  absl::StatusCode code;
  std::string text;
};

std::string Text(const absl::Status& status) { return std::string(status.message()); }
bool IsLinear(const std::string& name) { return name.find("_proj") != std::string::npos; }
std::string Stem(const std::string& name) { return name.substr(0, name.rfind('.')); }
std::string Replaced(std::string name, const std::string& part, const std::string& by) {
  const size_t at = name.find(part);
  return at == std::string::npos ? name : name.replace(at, part.size(), by);
}

TEST_CASE("missing: a quantized checkpoint is told as such") {
  const std::vector<std::vector<std::string>> formats = {
      {".qweight", ".qzeros", ".scales", ".g_idx"}, {".weight_packed", ".weight_scale"}, {".weight_packed"}};
  for (const auto& format : formats) {
    const Renamed model([&](const std::string& name) {
      std::vector<std::string> names = {name};
      if (IsLinear(name)) names.clear();
      for (const std::string& end : format) {
        if (IsLinear(name)) names.push_back(Stem(name) + end);
      }
      return names;
    });
    CHECK(model.code == absl::StatusCode::kUnimplemented);
    CHECK_THAT(model.text, Contains("14 tensors that config.json asks for are not in the checkpoint") &&
                               Contains("quantized already: give the original 16- or 32-bit one"));
  }
}

TEST_CASE("missing: packed weights under the right names are told to be quantized, a wrong shape alone is not") {
  TinyModel model;
  auto tensors = MakeTinyTensors(model);
  const auto packed =
      std::find_if(tensors.begin(), tensors.end(), [](const RawTensor& tensor) { return IsLinear(tensor.name); });
  packed->shape = {packed->shape[0] * packed->shape[1], 1};
  const Renamed wrong(model, tensors);
  CHECK(wrong.code == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(wrong.text, Contains("shape") && !Contains("quantized"));
  tensors.push_back({packed->name + ".absmax", "F32", {1}, "abcd"});
  tensors.push_back({packed->name + ".quant_state.bitsandbytes__nf4", "U8", {1}, "a"});
  const Renamed quantized(model, tensors);
  CHECK(quantized.code == absl::StatusCode::kUnimplemented);
  CHECK_THAT(quantized.text, Contains("shape") && Contains("it holds 2 tensors that") && Contains(".absmax\"") &&
                                 Contains("quantized already"));
}

TEST_CASE("missing: an adapter that was not merged is told as such, its first three tensors by name") {
  const Renamed model([](const std::string& name) -> std::vector<std::string> {
    if (!IsLinear(name)) return {name};
    return {Stem(name) + ".base_layer.weight", Stem(name) + ".lora_A.default.weight",
            Stem(name) + ".lora_B.default.weight"};
  });
  CHECK(model.code == absl::StatusCode::kUnimplemented);
  CHECK_THAT(model.text, Contains("it holds 42 tensors that config.json does not ask for: "
                                  "\"model.layers.0.mlp.down_proj.base_layer.weight\", "
                                  "\"model.layers.0.mlp.down_proj.lora_A.default.weight\", "
                                  "\"model.layers.0.mlp.down_proj.lora_B.default.weight\", ...; ") &&
                             Contains("LoRA") && Contains("merge the adapter first"));
}

TEST_CASE("missing: another family's layout asks for the model_type") {
  for (const char* fused : {"self_attn.qkv_proj", "attn.c_attn", "attention.query_key_value"}) {
    const Renamed model([&](const std::string& name) -> std::vector<std::string> {
      if (name.find("k_proj") != std::string::npos || name.find("v_proj") != std::string::npos) return {};
      return {Replaced(name, "self_attn.q_proj", fused)};
    });
    CHECK(model.code == absl::StatusCode::kNotFound);
    CHECK_THAT(model.text, Contains("6 tensors that config.json asks for are not") &&
                               Contains(std::string("holds 2 tensors that config.json does not ask for: ") +
                                        "\"model.layers.0." + fused + ".weight\"") &&
                               Contains("another family's layout: is model_type \"llama\" right?"));
  }
}

TEST_CASE("missing: Meta's original names ask for a conversion") {
  const Renamed model([](const std::string& name) -> std::vector<std::string> {
    std::string meta = Replaced(Replaced(name, "self_attn.q_proj", "attention.wq"), "model.", "");
    return {Replaced(meta, "embed_tokens", "tok_embeddings")};
  });
  CHECK(model.code == absl::StatusCode::kNotFound);
  CHECK_THAT(model.text, Contains("it holds 3 tensors") && Contains("\"layers.0.attention.wq.weight\"") &&
                             Contains("Meta's original names") && Contains("convert with transformers'"));
}

TEST_CASE("missing: nothing is where all names have another prefix, or none") {
  const Renamed longer([](const std::string& name) { return std::vector<std::string>{"language_model." + name}; });
  CHECK(longer.code == absl::StatusCode::kOk);
  const Renamed none([](const std::string& name) { return std::vector<std::string>{Replaced(name, "model.", "")}; });
  CHECK(none.code == absl::StatusCode::kOk);
}

TEST_CASE("missing: the same names under another prefix than the embedding's are told with both") {
  const auto in_block = [](const std::string& name) { return name.find("layers.") != std::string::npos; };
  const Renamed longer(
      [&](const std::string& name) -> std::vector<std::string> { return {in_block(name) ? "model." + name : name}; });
  CHECK(longer.code == absl::StatusCode::kNotFound);
  CHECK_THAT(longer.text, Contains("18 tensors that config.json asks for are not in the checkpoint: "
                                   "\"model.layers.0.") &&
                              Contains("; it holds 18 tensors that config.json does not ask for: "
                                       "\"model.model.layers.0.") &&
                              Contains("with the prefix \"model.model.\": give them the prefix \"model.\""));
  const Renamed none([&](const std::string& name) -> std::vector<std::string> {
    return {in_block(name) ? Replaced(name, "model.", "") : name};
  });
  CHECK_THAT(none.text, Contains("; it holds 18 tensors") && Contains("\"layers.0.") &&
                            Contains("the same names are there with no prefix: give them the prefix \"model.\""));
  // The embedding alone has another prefix: the names that are missed are those beside it.
  const Renamed beside([&](const std::string& name) -> std::vector<std::string> {
    return {Replaced(name, "model.embed", "text.embed")};
  });
  CHECK_THAT(beside.text, Contains("19 tensors that config.json asks for are not in the checkpoint: "
                                   "\"text.norm.weight\"") &&
                              Contains("with the prefix \"model.\": give them the prefix \"text.\""));
}

TEST_CASE("missing: of two copies neither is taken, and both are told") {
  const Renamed model([](const std::string& name) -> std::vector<std::string> {
    return {"student." + name, "teacher." + name, "path.0." + name};
  });
  CHECK(model.code == absl::StatusCode::kNotFound);
  CHECK_THAT(model.text, Contains("20 tensors that config.json asks for are not in the checkpoint") &&
                             Contains("; it holds 60 tensors that") &&
                             Contains("the same names are there 3 times, with the prefixes \"path.0.model.\", "
                                      "\"student.model.\", \"teacher.model.\": give those of the copy that you mean "
                                      "the prefix \"model.\""));
}

TEST_CASE("missing: tensors of a wrong shape or type are called as they are in the file") {
  TinyModel model;
  auto tensors = MakeTinyTensors(model);
  for (RawTensor& tensor : tensors) tensor.name = "language_model." + tensor.name;
  const auto first = std::find_if(tensors.begin(), tensors.end(), [](const RawTensor& t) { return IsLinear(t.name); });
  const std::string name = "tensor \"" + first->name + "\" has ";
  const std::vector<int64_t> shape = first->shape;
  first->shape = {shape[0] * shape[1], 1};
  CHECK_THAT(Renamed(model, tensors).text, Contains(name + "shape"));
  first->shape = shape, first->dtype = "I16";
  CHECK_THAT(Renamed(model, tensors).text, Contains(name + "dtype I16"));
  tensors.erase(first);
  CHECK_THAT(Renamed(model, tensors).text,
             Contains("not in the checkpoint: \"language_model.model.layers.0.self_attn.q_proj.weight\""));
}

TEST_CASE("missing: a classifier has no language head") {
  TinyModel untied;
  untied.tied = false;
  const Renamed model(
      [](const std::string& name) { return std::vector<std::string>{Replaced(name, "lm_head", "score")}; }, untied);
  CHECK(model.code == absl::StatusCode::kNotFound);
  CHECK_THAT(model.text, Contains("1 tensor that config.json asks for is not in the checkpoint: \"lm_head.weight\"; it "
                                  "holds 1 tensor that config.json does not ask for: \"score.weight\"; ") &&
                             Contains("a model without a language head"));
}

TEST_CASE("missing: a lone head is told with the key that asks for it") {
  const Renamed model([](const std::string& name) {
    return name == "lm_head.weight" ? std::vector<std::string>{} : std::vector<std::string>{name};
  });
  CHECK(model.code == absl::StatusCode::kNotFound);
  CHECK_THAT(model.text, Contains("\"lm_head.weight\"; config.json says tie_word_embeddings false"));
  const Renamed other([](const std::string& name) {
    return std::vector<std::string>{name == "lm_head.weight" ? "embed_out.weight" : name};
  });
  CHECK_THAT(
      other.text,
      Contains("1 tensor that config.json does not ask for: \"embed_out.weight\"; config.json says tie_word_emb"));
}

TEST_CASE("missing: otherwise the first names that are there, without buffers, and nothing where there are none") {
  const Renamed strange([](const std::string& name) -> std::vector<std::string> {
    if (name == "model.norm.weight") return {"model.rms.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"};
    return {name};
  });
  CHECK(strange.code == absl::StatusCode::kNotFound);
  CHECK(strange.text ==
        "1 tensor that config.json asks for is not in the checkpoint: \"model.norm.weight\"; it holds 1 tensor that "
        "config.json does not ask for: \"model.rms.weight\"");
  const Renamed lost([](const std::string& name) {
    return name == "model.norm.weight" ? std::vector<std::string>{} : std::vector<std::string>{name};
  });
  CHECK(lost.text == "1 tensor that config.json asks for is not in the checkpoint: \"model.norm.weight\"");
}

TEST_CASE("missing: a shard that is gone is no other layout, though a fused layer of another part is there") {
  ModelSpec spec;
  spec.model_type = "llama";
  spec.head.name = "lm_head";
  spec.blocks.resize(2);
  for (int i = 0; i < 2; ++i) {
    spec.blocks[i].name = "model.layers." + std::to_string(i);
    spec.blocks[i].linears.resize(1);
    spec.blocks[i].linears[0].name = "self_attn.q_proj";
  }
  const std::vector<std::string> unused = {"vision.blocks.0.qkv_proj.weight"};
  CHECK_THAT(Text(DiagnoseMissing({"model.layers.1.self_attn.q_proj.weight"}, unused, spec)),
             Contains("qkv_proj") && !Contains("layout"));
  CHECK_THAT(Text(DiagnoseMissing({"model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"},
                                  unused, spec)),
             Contains("layout"));
  CHECK(DiagnoseMissing({}, unused, spec).message().empty());
}

}  // namespace
}  // namespace autoscheme
