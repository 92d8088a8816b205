// What inspect says of a model: the tree, the sums and the JSON.
#include <rapidjson/document.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "capi/cli_run.h"

namespace autoscheme {
namespace {

using Catch::Contains;

// A line with its runs of spaces made one, so that a test says nothing of the widths of columns.
std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines(1);
  for (const char c : text) {
    if (c == '\n') {
      lines.emplace_back();
    } else if (c != ' ' || (!lines.back().empty() && lines.back().back() != ' ')) {
      lines.back().push_back(c);
    }
  }
  lines.pop_back();
  return lines;
}

struct Tree {
  Tree(const Shell& shell, const std::string& model, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"inspect", "--model", model};
    arguments.insert(arguments.end(), more.begin(), more.end());
    run = shell(arguments);
    CAPTURE(run.err);
    REQUIRE(run.code == 0);
    lines = Lines(run.out);
  }
  // Whether these lines are there, one behind the other.
  bool Has(const std::vector<std::string>& wanted) const {
    UNSCOPED_INFO(run.out);
    return std::search(lines.begin(), lines.end(), wanted.begin(), wanted.end()) != lines.end();
  }
  Run run;
  std::vector<std::string> lines;
};

std::string Golden(const std::string& family) {
  return std::string(AUTOSCHEME_GOLDEN_DIR) + "/families/" + family + "/model";
}

TEST_CASE("inspect: an untied model, blocks that are alike once, the sums at the end") {
  const Shell shell;
  const Tree tree(shell, Golden("llama_yarn"));
  CHECK(tree.run.err.empty());
  CHECK(tree.Has({"type llama",
                  "parameters 22.7 K in 21 tensors, 44.3 KiB, BF16",
                  "shards 1, model.safetensors",
                  "blocks 2, the largest 18.1 KiB",
                  "hidden 32",
                  "vocabulary 64, head untied",
                  "",
                  "tensor shape type size",
                  "model.embed_tokens.weight 64 x 32 BF16 4.0 KiB embedding: only with k-quants",
                  "model.layers.0-1 (2 blocks of 18.1 KiB)",  //
                  "input_layernorm.weight 32 BF16 64 B norm",
                  "self_attn.q_proj.weight 48 x 32 BF16 3.0 KiB quantizable",
                  "self_attn.k_proj.weight 24 x 32 BF16 1.5 KiB quantizable",
                  "self_attn.v_proj.weight 24 x 32 BF16 1.5 KiB quantizable",
                  "self_attn.o_proj.weight 32 x 48 BF16 3.0 KiB quantizable",
                  "post_attention_layernorm.weight 32 BF16 64 B norm",
                  "mlp.gate_proj.weight 48 x 32 BF16 3.0 KiB quantizable",
                  "mlp.up_proj.weight 48 x 32 BF16 3.0 KiB quantizable",
                  "mlp.down_proj.weight 32 x 48 BF16 3.0 KiB quantizable",  //
                  "model.norm.weight 32 BF16 64 B norm",
                  "lm_head.weight 64 x 32 BF16 4.0 KiB head: only with --quant-lm-head or k-quants",
                  "",
                  "tensors parameters share size",
                  "quantizable 14 18.4 K 81.2% 36.0 KiB"}));
  const auto line = [&](const std::string& part) {
    const size_t at = tree.run.out.find(part), begin = tree.run.out.rfind('\n', at) + 1;
    return tree.run.out.substr(begin, tree.run.out.find('\n', at) - begin);
  };
  CHECK(line("q_proj").find("quantizable") == line("down_proj").find("quantizable"));  // columns are aligned
  CHECK(line("q_proj").find("BF16") == line("embed_tokens").find("BF16"));
}

TEST_CASE("inspect: transposed weights, position embeddings before the blocks, a tied head") {
  const Shell shell;
  const Tree tree(shell, Golden("gpt2"));
  CHECK(
      tree.Has({"transformer.wte.weight 64 x 32 BF16 4.0 KiB embedding: only with k-quants",
                "transformer.wpe.weight 32 x 32 BF16 2.0 KiB position embedding",
                "transformer.h.0-1 (2 blocks of 14.7 KiB)", "ln_1.weight 32 BF16 64 B norm",
                "ln_1.bias 32 BF16 64 B norm", "attn.c_attn.weight 32 x 96 BF16 6.0 KiB quantizable, stored transposed",
                "attn.c_attn.bias 96 BF16 192 B bias"}));
  CHECK(tree.Has({"transformer.ln_f.bias 32 BF16 64 B norm", "lm_head tied to the embedding", "",
                  "tensors parameters share size", "quantizable 8 14.3 K 79.0% 28.0 KiB",
                  "embedding: only with k-quants 1 2048 11.3% 4.0 KiB", "position embedding 1 1024 5.6% 2.0 KiB",
                  "norm 10 320 1.8% 640 B", "bias 8 416 2.3% 832 B"}));
  CHECK(Tree(shell, Golden("opt_350m"))
            .Has({"model.decoder.embed_positions.weight 34 x 32 BF16 2.1 KiB position embedding",
                  "model.decoder.project_in.weight 32 x 24 BF16 1.5 KiB linear layer outside of the blocks"}));
}

TEST_CASE("inspect: blocks by their names as modules, and parts of a multimodal model that nothing touches") {
  const Shell shell;
  const Tree tree(shell, Golden("gemma3_wrapped"));
  CHECK(tree.Has({"language_model.model.embed_tokens.weight 64 x 32 BF16 4.0 KiB embedding: only with k-quants",
                  "model.language_model.layers.0-1 (2 blocks of 18.3 KiB) stored as language_model.model.layers.0-1",
                  "input_layernorm.weight 32 BF16 64 B norm"}));
  CHECK(tree.Has({"self_attn.v_proj.weight 24 x 32 BF16 1.5 KiB quantizable",
                  "self_attn.q_norm.weight 12 BF16 24 B norm", "self_attn.k_norm.weight 12 BF16 24 B norm",
                  "self_attn.o_proj.weight 32 x 48 BF16 3.0 KiB quantizable"}));
  CHECK(tree.Has({"lm_head tied to the embedding",
                  "multi_modal_projector (2 tensors) BF16 1.0 KiB untouched: not of the text decoder",
                  "vision_tower (21 tensors) BF16 9.0 KiB untouched: not of the text decoder"}));
  CHECK(tree.Has({"untouched: not of the text decoder 23 5144 19.8% 10.0 KiB"}));
  CHECK(Tree(shell, Golden("smolvlm"))
            .Has({"model.connector (1 tensor) BF16 4.0 KiB untouched: not of the text decoder",
                  "model.vision_model (21 tensors) BF16 9.0 KiB untouched: not of the text decoder"}));
}

TEST_CASE("inspect: blocks of another type are another entry, shards are ranges, and --all folds nothing") {
  Shell shell;
  shell.model.blocks = 126, shell.model.shards = 3, shell.model.hidden = 8, shell.model.heads = 2,
  shell.model.kv_heads = 1, shell.model.intermediate = 8;
  std::vector<RawTensor> tensors = MakeTinyTensors(shell.model);
  for (RawTensor& tensor : tensors) {
    if (tensor.name != "model.layers.3.mlp.up_proj.weight" && tensor.name != "model.layers.7.mlp.up_proj.weight") {
      continue;
    }
    tensor.dtype = "F32", tensor.bytes += tensor.bytes;
  }
  const std::string model = shell.dir / "deep";
  shell.dir.Write("deep/config.json", TinyConfig(shell.model));
  WriteTinyWeights(tensors, 3, model);
  const Tree tree(shell, model);
  CHECK(tree.lines.size() < 50);
  CHECK(tree.Has({"shards 3, model-00001-of-00003.safetensors to model-00003-of-00003.safetensors"}));
  CHECK_THAT(tree.run.out, Contains(", BF16, F32\n"));
  CHECK(tree.Has({"model.layers.0-2,4-6,8-125 (124 blocks of 800 B)", "input_layernorm.weight 8 BF16 16 B 1-3 norm"}));
  CHECK(tree.Has({"model.layers.3,7 (2 blocks of 928 B)", "input_layernorm.weight 8 BF16 16 B 1 norm"}));
  CHECK(tree.Has({"mlp.up_proj.weight 8 x 8 F32 256 B 1 quantizable"}));
  const Tree all(shell, model, {"--all"});
  CHECK(all.lines.size() > 126 * 10);
  CHECK(all.Has({"model.layers.125 (800 B)", "input_layernorm.weight 8 BF16 16 B 3 norm"}));
}

TEST_CASE("inspect: schemes that do not suit a layer are named with the reason") {
  const Shell shell;
  const Tree tree(shell, Golden("llama_yarn"), {"--schemes", "W4A16, MXFP4,GGUF:Q4_K_S"});
  const std::string w4a16 = "; not by W4A16: rows or columns are no multiple of 32",
                    mxfp4 = "; not by MXFP4: groups do not divide the rows",
                    k_quant = "; not by GGUF:Q4_K_S: super-groups do not divide the rows";
  CHECK(tree.Has({"self_attn.k_proj.weight 24 x 32 BF16 1.5 KiB quantizable" + w4a16 + k_quant}));
  CHECK(tree.Has({"mlp.down_proj.weight 32 x 48 BF16 3.0 KiB quantizable" + w4a16 + mxfp4 + k_quant}));
  const Run wrong = shell({"inspect", "--model", Golden("llama_yarn"), "--schemes", "W99"});
  CHECK(wrong.code == 2);
  CHECK_THAT(wrong.err, Contains("W99"));
}

TEST_CASE("inspect: names of tensors drive no terminal") {
  Shell shell;
  std::vector<RawTensor> tensors = MakeTinyTensors(shell.model);
  tensors.push_back({"vision\xe2\x80\xae.x", "BF16", {1}, "ab"});
  shell.dir.Write("m/config.json", R"({"model_type": "llava", "text_config": )" + TinyConfig(shell.model) + "}");
  WriteTinyWeights(tensors, 1, shell.dir / "m");
  CHECK(Tree(shell, shell.dir / "m")
            .Has({"vision\\xe2\\x80\\xae (1 tensor) BF16 2 B untouched: not of the text decoder"}));
}

rapidjson::Document Parsed(const Shell& shell, const std::string& model) {
  const Run run = shell({"inspect", "--json", "--model", model});
  REQUIRE(run.code == 0);
  rapidjson::Document json;
  json.Parse(run.out);
  REQUIRE_FALSE(json.HasParseError());
  return json;
}

TEST_CASE("inspect: the JSON has what the tree shows") {
  const Shell shell;
  const rapidjson::Document gpt2 = Parsed(shell, Golden("gpt2"));
  CHECK(gpt2["shards"].Size() == 1);
  CHECK(std::string(gpt2["shards"][0].GetString()) == "model.safetensors");
  CHECK(gpt2["files"].Size() == 2);
  CHECK(gpt2["warnings"].Empty());
  CHECK(gpt2["head_tensors"].Empty());
  CHECK(gpt2["untouched"].Empty());
  CHECK(gpt2["others"].Size() == 3);
  CHECK(std::string(gpt2["others"][0]["reason"].GetString()) == "position embedding");
  CHECK(std::string(gpt2["embedding"]["name"].GetString()) == "transformer.wte.weight");
  CHECK_FALSE(gpt2["head"]["quantizable"].GetBool());
  CHECK(std::string(gpt2["head"]["reason"].GetString()) == "tied to the embedding");
  CHECK(std::string(gpt2["head"]["weight_tensor"].GetString()) == "transformer.wte.weight");
  const rapidjson::Value& linear = gpt2["blocks"][1]["linears"][0];
  CHECK(linear["quantizable"].GetBool());
  CHECK(linear["transposed"].GetBool());
  CHECK(linear["bias"].GetBool());
  CHECK(std::string(linear["weight_tensor"].GetString()) == "transformer.h.1.attn.c_attn.weight");
  CHECK(std::string(linear["bias_tensor"].GetString()) == "transformer.h.1.attn.c_attn.bias");
  const rapidjson::Value& tensors = gpt2["blocks"][1]["tensors"];
  REQUIRE(tensors.Size() == 12);
  uint64_t bytes = 0;
  for (const rapidjson::Value& tensor : tensors.GetArray()) {
    bytes += tensor["bytes"].GetUint64();
    CHECK(std::string(tensor["shard"].GetString()) == "model.safetensors");
    CHECK(tensor["offset"].GetUint64() > 0);
    CHECK(tensor["quantizable"].GetBool() != tensor.HasMember("reason"));
    if (std::string(tensor["name"].GetString()) != "transformer.h.1.attn.c_attn.weight") continue;
    CHECK(tensor["quantizable"].GetBool());
    CHECK(std::string(tensor["dtype"].GetString()) == "BF16");
    REQUIRE(tensor["shape"].Size() == 2);
    CHECK(tensor["shape"][0].GetInt() == 32);
    CHECK(tensor["shape"][1].GetInt() == 96);
  }
  CHECK(bytes == gpt2["blocks"][1]["bytes"].GetUint64());

  const rapidjson::Document wrapped = Parsed(shell, Golden("gemma3_wrapped")),
                            untied = Parsed(shell, Golden("llama_yarn"));
  CHECK(wrapped["untouched"].Size() == wrapped["untouched_tensors"].GetUint64());
  CHECK(wrapped["untouched"].Size() == 23);
  CHECK(std::string(wrapped["untouched"][0]["reason"].GetString()) == "untouched: not of the text decoder");
  REQUIRE(untied["head_tensors"].Size() == 1);
  CHECK(std::string(untied["head_tensors"][0]["name"].GetString()) == "lm_head.weight");
  CHECK(std::string(untied["head"]["reason"].GetString()) == "head: only with quant_lm_head or k-quants");
}

TEST_CASE("inspect: the JSON keeps the warnings") {
  Shell shell;
  std::vector<RawTensor> tensors = MakeTinyTensors(shell.model);
  tensors.push_back({"model.layers.0.mlp.up_proj.bias", "BF16", {1}, "ab"});
  WriteTinyWeights(tensors, 1, shell.model_dir);
  const rapidjson::Document json = Parsed(shell, shell.model_dir);
  REQUIRE(json["warnings"].Size() == 1);
  CHECK_THAT(std::string(json["warnings"][0].GetString()),
             Contains("1 tensor of the checkpoint is ignored: \"model.layers.0.mlp.up_proj.bias\""));
}

}  // namespace
}  // namespace autoscheme
