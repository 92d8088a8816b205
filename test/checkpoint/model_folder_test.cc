// Folders without model.safetensors and without an index: a set of shards is read, and anything else is named.
#include "checkpoint/model_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "support/safetensors_writer.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

using absl::StatusCode;
using Catch::Matchers::Contains;

// The names of the tensors, or the error.
std::string Opened(const std::string& dir, std::vector<std::string>* warnings = nullptr) {
  Context context;
  context.log = [&](LogLevel, absl::string_view text) {
    if (warnings != nullptr) warnings->emplace_back(text);
  };
  const auto checkpoint = Checkpoint::Open(context, dir);
  if (!checkpoint.ok()) return checkpoint.status().ToString();
  std::string names;
  for (const TensorInfo& tensor : (*checkpoint)->tensors()) names += tensor.name;
  return names;
}

std::string Tensor(const std::string& name) { return SafetensorsBytes({{name, "U8", {1}, "x"}}); }

TEST_CASE("A complete set of shards is read without an index") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("model-00001-of-00002.safetensors", Tensor("a"));
  dir.Write("model-00002-of-00002.safetensors", Tensor("b"));
  std::vector<std::string> warnings;
  CHECK(Opened(dir.path(), &warnings) == "ab");
  CHECK(warnings.empty());
  // A set that is not complete is not taken for it.
  dir.Write("a-00001-of-00003.safetensors", Tensor("z"));
  dir.Write("model-00001-of-00003.safetensors", Tensor("z"));
  for (const char* odd : {"z-00001-of-0.safetensors", "z-00000-of-1.safetensors", "z-00001-of-1.safetensors"}) {
    dir.Write(odd, Tensor("z"));
  }
  CHECK(Opened(dir.path(), &warnings) == "ab");
  CHECK(warnings.empty());
  dir.Write("model-00002-of-00002.safetensors", Tensor("a"));
  CHECK_THAT(Opened(dir.path()), Contains("tensor \"a\" is in two shards") &&
                                     Contains("\"model-00001-of-00002.safetensors\"") &&
                                     Contains("\"model-00002-of-00002.safetensors\""));
}

TEST_CASE("A set of shards may have another stem, a suffix and any number of digits in its count") {
  for (const std::string name : {"pytorch_model-*-of-00002.safetensors", "Tiny-7B-*-of-000002.safetensors",
                                 "model-*-of-00002.fp16.safetensors", "model.bf16-*-of-2.safetensors"}) {
    CAPTURE(name);
    const TempDir dir;
    dir.Write("config.json", "{}");
    dir.Write(std::string(name).replace(name.find('*'), 1, "00001"), Tensor("a"));
    CHECK_THAT(Opened(dir.path()), Contains("NOT_FOUND") && Contains("1 of 2 shards is missing") &&
                                       Contains(std::string(name).replace(name.find('*'), 1, "00002")));
    dir.Write(std::string(name).replace(name.find('*'), 1, "00002"), Tensor("b"));
    CHECK(Opened(dir.path()) == "ab");
  }
}

TEST_CASE("Of several sets none is taken by chance, and the missing numbers of one are named") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("x-00001-of-00001.safetensors", Tensor("a"));
  dir.Write("y-00001-of-00001.safetensors", Tensor("a"));
  CHECK_THAT(Opened(dir.path()), Contains("INVALID_ARGUMENT") && Contains("several sets of shards and no index") &&
                                     Contains("\"x-*-of-00001.safetensors\"") &&
                                     Contains("\"y-*-of-00001.safetensors\""));
  dir.Write("model-00002-of-00004.safetensors", Tensor("a"));
  unlink((dir / "x-00001-of-00001.safetensors").c_str());
  CHECK(Opened(dir.path()) == "a");
  unlink((dir / "y-00001-of-00001.safetensors").c_str());
  CHECK_THAT(Opened(dir.path()),
             Contains("3 of 4 shards are missing") && Contains("\"model-00001-of-00004.safetensors\", "
                                                               "\"model-00003-of-00004.safetensors\", "
                                                               "\"model-00004-of-00004.safetensors\""));
  dir.Write("huge-00001-of-99999999999999999999.safetensors", Tensor("a"));
  CHECK_THAT(Opened(dir.path()), Contains("3 of 4 shards are missing"));
}

TEST_CASE("What a folder holds in place of weights is named with the remedy") {
  const struct {
    std::vector<std::string> files;
    std::vector<std::string> words;
    StatusCode code;
  } cases[] = {
      {{"adapter_config.json", "adapter_model.safetensors"},
       {"\"adapter_config.json\", \"adapter_model.safetensors\", an adapter (LoRA)", "merge it into its base model"},
       StatusCode::kUnimplemented},
      {{"adapter_model.bin"}, {"\"adapter_model.bin\", an adapter (LoRA)"}, StatusCode::kUnimplemented},
      {{"tiny-Q4_K_M.gguf"}, {"\"tiny-Q4_K_M.gguf\"", "GGUF", "Hugging Face folder"}, StatusCode::kUnimplemented},
      {{"consolidated.00.pth", "params.json"},
       {"\"consolidated.00.pth\", Meta's original format", "convert_llama_weights_to_hf.py"},
       StatusCode::kUnimplemented},
      {{"consolidated.safetensors"},
       {"\"consolidated.safetensors\", Mistral's original format", "convert_mistral_weights_to_hf.py"},
       StatusCode::kUnimplemented},
      {{"consolidated-00001-of-00001.safetensors"}, {"Mistral's original format"}, StatusCode::kUnimplemented},
      {{"pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json", "training_args.bin", "optimizer.pt"},
       {"holds \"pytorch_model-00001-of-00002.bin\", \"pytorch_model.bin.index.json\", a format that can run code",
        "convert it to safetensors"},
       StatusCode::kUnimplemented},
      {{"model.pth", "x.gguf"},
       {"\"model.pth\", a format that can run code", "\"x.gguf\""},
       StatusCode::kUnimplemented},
      {{"flax_model.msgpack"}, {"\"flax_model.msgpack\"", "convert them"}, StatusCode::kUnimplemented},
      {{"model.fp16.safetensors"},
       {"\"model.fp16.safetensors\", weights under another name", "rename it to model.safetensors"},
       StatusCode::kUnimplemented},
      {{"model.safetensors.incomplete"},
       {"\"model.safetensors.incomplete\", an unfinished download"},
       StatusCode::kNotFound},
      {{"model.safetensors.part"}, {"\"model.safetensors.part\", an unfinished download"}, StatusCode::kNotFound},
      {{".cache/huggingface/download/x.incomplete"},
       {"\"x.incomplete\", an unfinished download"},
       StatusCode::kNotFound},
      {{"training_args.bin", "tokenizer.json"}, {"no weights in"}, StatusCode::kNotFound},
  };
  for (const auto& [files, words, code] : cases) {
    CAPTURE(files);
    const TempDir dir;
    for (const std::string& file : files) dir.Write(file, "{}");
    const absl::Status no_config = Checkpoint::Open({}, dir.path()).status();
    dir.Write("config.json", "{}");
    const absl::Status no_weights = Checkpoint::Open({}, dir.path()).status();
    CHECK(no_weights.code() == code);
    CHECK_THAT(std::string(no_weights.message()), Contains("no weights in") && !Contains("training_args.bin") &&
                                                      !Contains("optimizer.pt") && !Contains("tokenizer.json"));
    CHECK_THAT(std::string(no_config.message()), Contains("config.json\": No such file"));
    for (const std::string& word : words) {
      CHECK_THAT(std::string(no_weights.message()), Contains(word));
      if (word != "no weights in") CHECK_THAT(std::string(no_config.message()), Contains(word));
    }
  }
}

TEST_CASE("Where only config.json is missing, nothing is said of the weights") {
  const TempDir dir;
  dir.Write("model-00001-of-00001.safetensors", Tensor("a"));
  dir.Write("model.safetensors", Tensor("a"));
  const std::string error = Opened(dir.path());
  CHECK_THAT(error, Contains("NOT_FOUND") && Contains("config.json\": No such file") && !Contains("holds"));
}

TEST_CASE("A model one folder further down is named") {
  const TempDir dir;
  dir.Write("README.md", "");
  dir.Write("hf/config.json", "{}");
  dir.Write("hf/model.safetensors", Tensor("a"));
  CHECK_THAT(Opened(dir.path()),
             Contains("config.json\": No such file") && Contains("it holds \"hf\", where a config.json lies"));
  CHECK(Opened(dir / "hf") == "a");
}

TEST_CASE("Renaming a variant to model.safetensors works, as the message says") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("model.fp16.safetensors", Tensor("a"));
  CHECK_THAT(Opened(dir.path()), Contains("rename it to model.safetensors"));
  REQUIRE(rename((dir / "model.fp16.safetensors").c_str(), (dir / "model.safetensors").c_str()) == 0);
  CHECK(Opened(dir.path()) == "a");
}

TEST_CASE("Git LFS pointers in place of weights are told from weights") {
  const TempDir dir;
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
  dir.Write("config.json", "{}");
  dir.Write("pytorch_model.bin", pointer);
  const absl::Status status = Checkpoint::Open({}, dir.path()).status();
  CHECK(status.code() == StatusCode::kNotFound);
  CHECK_THAT(std::string(status.message()), Contains("\"pytorch_model.bin\", Git LFS pointers: run `git lfs pull`"));
  dir.Write("model-00001-of-00001.safetensors", pointer);
  CHECK_THAT(Opened(dir.path()), Contains("is a Git LFS pointer") && Contains("git lfs pull"));
}

TEST_CASE("A link to nothing is named with its target and the remedy") {
  const TempDir dir;
  dir.Write("repo/blobs/b", "{}");
  dir.Write("repo/blobs/w.incomplete", "");
  const std::string folder = dir / "repo/snapshots/abc";
  dir.Write("repo/snapshots/abc/README.md", "");
  REQUIRE(symlink("../../blobs/c", (folder + "/config.json").c_str()) == 0);
  REQUIRE(symlink("../../blobs/w", (folder + "/model.safetensors").c_str()) == 0);
  CHECK_THAT(Opened(folder),
             Contains("\"config.json\", a link to \"../../blobs/c\", which is not there: download the model again"));
  dir.Write("repo/blobs/c", "{}");
  CHECK_THAT(Opened(folder), Contains("NOT_FOUND") && Contains("no weights in") &&
                                 Contains("\"model.safetensors\", a link to \"../../blobs/w\"") &&
                                 Contains("\"w.incomplete\", an unfinished download"));
  unlink((folder + "/model.safetensors").c_str());
  REQUIRE(symlink("../../blobs/w", (folder + "/s1.safetensors").c_str()) == 0);
  dir.Write("repo/snapshots/abc/model.safetensors.index.json", R"({"weight_map":{"a":"s1.safetensors"}})");
  CHECK_THAT(Opened(folder),
             Contains("1 of 1 shard is missing") && Contains("\"s1.safetensors\", a link to \"../../blobs/w\""));
}

TEST_CASE("A copy of the cache whose links have become text is followed to its blobs, and nowhere else") {
  const TempDir dir;
  dir.Write("repo/blobs/c", "{}");
  dir.Write("repo/snapshots/abc/config.json", "../../blobs/c");
  dir.Write("repo/snapshots/abc/model.safetensors", "../../blobs/w");
  const std::string folder = dir / "repo/snapshots/abc";
  CHECK_THAT(Opened(folder), Contains("NOT_FOUND") &&
                                 Contains("\"model.safetensors\", a link to \"../../blobs/w\", which is not there"));
  dir.Write("repo/blobs/w", Tensor("a"));
  CHECK(Opened(folder) == "a");
  for (const char* target : {"../../blobs/../blobs/c", "../../blobs/", "../blobs/c", "/repo/blobs/c"}) {
    dir.Write("repo/snapshots/abc/config.json", target);
    CHECK_THAT(Opened(folder), Contains("is not valid JSON"));
  }
  dir.Write("plain/config.json", "../../blobs/c");
  CHECK_THAT(Opened(dir / "plain"), Contains("is not valid JSON"));
}

TEST_CASE("An adapter beside a model is warned of") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("model.safetensors", Tensor("a"));
  dir.Write("adapter_config.json", "{}");
  dir.Write("adapter_model.safetensors", Tensor("l"));
  std::vector<std::string> warnings;
  CHECK(Opened(dir.path(), &warnings) == "a");
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("\"adapter_config.json\", \"adapter_model.safetensors\"") &&
                              Contains("which is not applied") && Contains("merge it first"));
}

TEST_CASE("A shard that the index does not name is not read, with a warning") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("model-00001-of-00002.safetensors", Tensor("a"));
  dir.Write("model-00002-of-00002.safetensors", Tensor("b"));
  dir.Write("consolidated.safetensors", Tensor("c"));
  dir.Write("model.safetensors.index.json", R"({"weight_map":{"a":"model-00001-of-00002.safetensors"}})");
  std::vector<std::string> warnings;
  CHECK(Opened(dir.path(), &warnings) == "a");
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("does not name 1 shard that the folder holds, not read therefore: "
                                   "\"model-00002-of-00002.safetensors\""));
}

}  // namespace
}  // namespace autoscheme
