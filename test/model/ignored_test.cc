// What a model folder says or holds in vain is named.
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <string>
#include <vector>

#include "autoscheme/meta_skeleton.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

using Catch::Contains;

struct Folder {
  // Adds tensors of one number each.
  void Add(const std::vector<std::string>& names) {
    for (const std::string& name : names) tensors.push_back({name, "BF16", {1}, "ab"});
  }
  std::vector<std::string> Warnings() const {
    std::ofstream(dir / "config.json") << TinyConfig(model);
    WriteTinyWeights(tensors, 1, dir.path());
    std::vector<std::string> warnings;
    Context context;
    context.log = [&](LogLevel, absl::string_view text) { warnings.emplace_back(text); };
    const auto skeleton = MetaSkeleton::Open(context, dir.path());
    INFO(skeleton.status().ToString());
    CHECK(skeleton.ok());
    return warnings;
  }
  TempDir dir;
  TinyModel model;
  std::vector<RawTensor> tensors = MakeTinyTensors(model);
};

TEST_CASE("ignored: a sound folder has nothing to tell") { CHECK(Folder().Warnings().empty()); }

TEST_CASE("ignored: biases that the config does not list are named, with the keys") {
  Folder folder;
  folder.Add({"model.layers.0.self_attn.q_proj.bias", "model.layers.1.self_attn.q_proj.bias"});
  const auto warnings = folder.Warnings();
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(
      warnings[0],
      Contains("2 tensors of the checkpoint are ignored: \"model.layers.0.self_attn.q_proj.bias\", \"model.layers.1") &&
          Contains("attention_bias"));
}

TEST_CASE("ignored: one tensor is one tensor") {
  Folder folder;
  folder.Add({"lm_head.bias"});
  const auto warnings = folder.Warnings();
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("1 tensor of the checkpoint is ignored: \"lm_head.bias\""));
}

TEST_CASE("ignored: leftovers of an adapter are told as such, the first five by name") {
  Folder folder;
  for (int block = 0; block < 2; ++block) {
    for (const char* layer : {"q_proj", "k_proj", "v_proj"}) {
      const std::string name = "model.layers." + std::to_string(block) + ".self_attn." + layer;
      folder.Add({name + ".lora_A.weight", name + ".lora_B.weight"});
    }
  }
  const auto warnings = folder.Warnings();
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("12 tensors") && Contains("k_proj.lora_A.weight\"") && Contains("LoRA") &&
                              Contains("merge") && Contains(", ...; "));
}

TEST_CASE("ignored: scales of quantized weights are told as such, whatever type the weights have") {
  Folder folder;
  folder.Add({"model.layers.0.mlp.up_proj.weight_scale_inv", "model.layers.0.mlp.up_proj.weight.absmax"});
  const auto warnings = folder.Warnings();
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("2 tensors") && Contains("weight_scale_inv\"") &&
                              Contains("part of quantized weights") && Contains("original 16- or 32-bit"));
}

TEST_CASE("ignored: blocks beyond those of the config, other heads and strangers are told apart") {
  Folder folder;
  folder.Add({"model.layers.2.mlp.up_proj.weight", "score.weight", "model.layers.1.extra"});
  const auto warnings = folder.Warnings();
  REQUIRE(warnings.size() == 3);
  CHECK_THAT(warnings[0], Contains("1 tensor of the checkpoint is ignored: \"score.weight\"") &&
                              Contains("classifier or reward model"));
  CHECK_THAT(warnings[1], Contains("\"model.layers.2.mlp.up_proj.weight\"") && Contains("num_hidden_layers 2"));
  CHECK_THAT(warnings[2], Contains("1 tensor of the checkpoint is ignored: \"model.layers.1.extra\"") &&
                              Contains("a llama model has no such tensor"));
}

TEST_CASE("ignored: rotary frequencies and causal masks are not worth a word") {
  Folder folder;
  folder.Add({"model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.cos_cached", "model.layers.0.attn.bias",
              "model.layers.0.attn.masked_bias", "model.layers.1.attention.bias"});
  CHECK(folder.Warnings().empty());
  folder.Add({"model.layers.1.attn.bias_of_own"});
  CHECK_THAT(folder.Warnings().at(0), Contains("1 tensor of") && Contains("attn.bias_of_own"));
}

TEST_CASE("ignored: a class of another head or family in architectures is named") {
  const auto warnings = [](const std::string& architecture, const std::string& model_type = "llama") {
    Folder folder;
    folder.model.model_type = model_type;
    folder.tensors = MakeTinyTensors(folder.model);
    folder.model.architecture = architecture;
    return folder.Warnings();
  };
  for (const char* same : {"LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel", "LlamaLMHeadModel", "Own"}) {
    CAPTURE(same);
    CHECK(warnings(same).empty());
  }
  CHECK(warnings("Qwen2VLForConditionalGeneration", "qwen2").empty());
  for (const char* other : {"LlamaForSequenceClassification", "LlamaForTokenClassification", "LlamaForRewardModel"}) {
    const auto told = warnings(other);
    REQUIRE(told.size() == 1);
    CHECK_THAT(told[0], Contains("architectures") && Contains(std::string("\"") + other + "\"") &&
                            Contains("head is another than a language model's"));
  }
  const auto told = warnings("Qwen2MoeForCausalLM", "qwen2");
  REQUIRE(told.size() == 1);
  CHECK_THAT(told[0], Contains("\"Qwen2MoeForCausalLM\"") && Contains("another family") && Contains("\"qwen2\""));
}

TEST_CASE("ignored: a model's own code is named, a tokenizer's is not") {
  Folder folder;
  folder.model.extra_config =
      R"("auto_map": {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM", "AutoTokenizer": ["tok.Own", null]})";
  const auto warnings = folder.Warnings();
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("auto_map") && Contains("\"modeling_own.OwnForCausalLM\"") && Contains("llama") &&
                              !Contains("tok.Own"));
  folder.model.extra_config = R"("auto_map": {"AutoTokenizer": ["tok.Own", null]})";
  CHECK(folder.Warnings().empty());
}

TEST_CASE("ignored: keys of other families that change numbers are named where they are not neutral") {
  Folder folder;
  folder.model.extra_config =
      R"("logit_scale": 1.0, "residual_multiplier": 1, "clip_qkv": null, "rope_traditional": false)";
  CHECK(folder.Warnings().empty());
  folder.model.extra_config = R"("logit_scale": 0.0625, "clip_qkv": 8, "rope_traditional": true)";
  const auto warnings = folder.Warnings();
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("\"clip_qkv\", \"rope_traditional\", \"logit_scale\""));
  folder.model.extra_config = R"("sliding_window": 64)";
  CHECK_THAT(folder.Warnings().at(0), Contains("sliding_window"));
  folder.model.extra_config = R"("rope_scaling": {"rope_type": "default", "mscale": 2})";
  CHECK_THAT(folder.Warnings().at(0), Contains("\"mscale\""));
}

TEST_CASE("ignored: where tensors are missing, an index that was not read is named") {
  Folder folder;
  WriteTinyModel(
      [] {
        TinyModel sharded;
        sharded.shards = 3;
        return sharded;
      }(),
      folder.dir.path());
  WriteTinyWeights({folder.tensors[0]}, 1, folder.dir.path());
  std::vector<std::string> warnings;
  Context context;
  context.log = [&](LogLevel, absl::string_view text) { warnings.emplace_back(text); };
  const absl::Status status = MetaSkeleton::Open(context, folder.dir.path()).status();
  CHECK(status.code() == absl::StatusCode::kNotFound);
  CHECK_THAT(std::string(status.message()), Contains("model.safetensors.index.json ignored"));
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0],
             Contains("3 shards (\"model-00001-of-00003.safetensors\", ") && Contains("move model.safetensors away"));
}

}  // namespace
}  // namespace autoscheme
