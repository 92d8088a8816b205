#include "autoscheme/meta_skeleton.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <fstream>
#include <limits>
#include <string>

#include "base/io.h"
#include "checkpoint/checkpoint.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

// Counts the bytes read behind each file's header.
class WeightCounter : public Io {
 public:
  ssize_t Pread(int fd, void* data, size_t size, off_t offset) override {
    const ssize_t n = Io::Pread(fd, data, size, offset);
    if (n > 0 && offset + n > header_end) behind_header += offset + n - std::max<off_t>(offset, header_end);
    return n;
  }
  off_t header_end = 0;
  std::atomic<int64_t> behind_header{0};
};

absl::Status OpenStatus(const std::string& dir) { return MetaSkeleton::Open({}, dir).status(); }

void WriteConfig(const std::string& dir, const std::string& text) { std::ofstream(dir + "/config.json") << text; }

std::string With(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

TEST_CASE("no weight byte is read to build a skeleton") {
  TempDir dir;
  TinyModel model;
  WriteTinyModel(model, dir.path());
  WeightCounter io;
  const auto plain = MetaSkeleton::Open({}, dir.path());
  REQUIRE(plain.ok());
  off_t first = std::numeric_limits<off_t>::max();
  for (const TensorInfo& t : (*plain)->checkpoint().tensors()) first = std::min<off_t>(first, t.offset);
  io.header_end = std::max<off_t>(first, static_cast<off_t>((*plain)->checkpoint().config_text().size()));
  Context context;
  context.io = &io;
  REQUIRE(MetaSkeleton::Open(context, dir.path()).ok());
  CHECK(io.behind_header == 0);
  CHECK((*plain)->checkpoint().bytes_read() == 0);
}

TEST_CASE("the structure of each family is described") {
  TempDir dir;
  TinyModel model;
  model.blocks = 3;
  SECTION("llama, untied") {
    WriteTinyModel(model, dir.path());
    const auto s = MetaSkeleton::Open({}, dir.path()).value();
    CHECK(s->model_type() == "llama");
    REQUIRE(s->blocks().size() == 3);
    CHECK(s->blocks()[2].name == "model.layers.2");
    REQUIRE(s->blocks()[0].linears.size() == 7);
    CHECK(s->blocks()[0].linears[1].name == "model.layers.0.self_attn.k_proj");
    CHECK(s->blocks()[0].linears[1].out_features == 16);
    CHECK(s->blocks()[0].linears[1].in_features == 32);
    CHECK(s->blocks()[0].linears[1].bias == nullptr);
    CHECK_FALSE(s->tied_head());
    CHECK(s->head().name == "lm_head");
    CHECK(s->head().weight->name == "lm_head.weight");
    CHECK(s->total_bytes() == 2 * static_cast<uint64_t>(s->total_params()));
  }
  SECTION("llama, tied") {
    model.tied = true;
    WriteTinyModel(model, dir.path());
    const auto s = MetaSkeleton::Open({}, dir.path()).value();
    CHECK(s->tied_head());
    CHECK(s->head().weight == s->embedding());
  }
  SECTION("qwen2 has biases on q, k and v") {
    model.model_type = "qwen2";
    WriteTinyModel(model, dir.path());
    const auto s = MetaSkeleton::Open({}, dir.path()).value();
    CHECK(s->blocks()[0].linears[2].bias != nullptr);
    CHECK(s->blocks()[0].linears[3].bias == nullptr);
  }
  SECTION("qwen3 has norms on q and k") {
    model.model_type = "qwen3";
    WriteTinyModel(model, dir.path());
    const auto s = MetaSkeleton::Open({}, dir.path()).value();
    CHECK(s->blocks()[0].tensors.size() == 7 + 2 + 2);
  }
}

TEST_CASE("sharded and whole checkpoints have the same structure and another place") {
  TempDir whole, sharded;
  TinyModel model;
  WriteTinyModel(model, whole.path());
  model.shards = 3;
  WriteTinyModel(model, sharded.path());
  const auto a = MetaSkeleton::Open({}, whole.path()).value(), b = MetaSkeleton::Open({}, sharded.path()).value();
  CHECK(a->fingerprint() == b->fingerprint());
  CHECK(b->checkpoint().shards().size() == 3);
}

TEST_CASE("an unknown architecture is named, with what is supported") {
  TempDir dir;
  TinyModel model;
  WriteTinyModel(model, dir.path());
  WriteConfig(dir.path(), With(TinyConfig(model), "\"llama\"", "\"mamba9\""));
  const absl::Status status = OpenStatus(dir.path());
  CHECK(status.code() == absl::StatusCode::kUnimplemented);
  for (const char* word : {"mamba9", "llama", "mistral", "qwen2", "qwen3"}) {
    CHECK_THAT(std::string(status.message()), Catch::Contains(word));
  }
}

TEST_CASE("a quantized model is refused") {
  TempDir dir;
  TinyModel model;
  model.extra_config = "\"quantization_config\": {\"quant_method\": \"gptq\"}";
  WriteTinyModel(model, dir.path());
  absl::Status status = OpenStatus(dir.path());
  CHECK(status.code() == absl::StatusCode::kUnimplemented);
  CHECK_THAT(std::string(status.message()),
             Catch::Contains("has a quantization_config: the model is quantized already (\"gptq\")"));
  WriteConfig(dir.path(), R"({"model_type": "llava", "text_config": )" + TinyConfig(model) + "}");
  status = OpenStatus(dir.path());
  CHECK(status.code() == absl::StatusCode::kUnimplemented);
  CHECK_THAT(std::string(status.message()),
             Catch::Contains("has a quantization_config in text_config: the model is quantized already (\"gptq\")"));
}

TEST_CASE("the warnings of opening are kept, and still given to the host") {
  TempDir dir;
  TinyModel model;
  auto tensors = MakeTinyTensors(model);
  tensors.push_back({"model.layers.0.mlp.up_proj.bias", "BF16", {1}, "ab"});
  WriteConfig(dir.path(), TinyConfig(model));
  WriteTinyWeights(tensors, 1, dir.path());
  std::vector<std::string> told;
  Context context;
  context.log = [&](LogLevel, absl::string_view text) { told.emplace_back(text); };
  const auto s = MetaSkeleton::Open(context, dir.path()).value();
  REQUIRE(told.size() == 1);
  CHECK(s->warnings() == told);
  CHECK(MetaSkeleton::Open({}, dir.path()).value()->warnings() == told);
}

TEST_CASE("config fields that cannot be are named") {
  TempDir dir;
  TinyModel model;
  WriteTinyModel(model, dir.path());
  const std::string good = TinyConfig(model);
  struct Row {
    const char *key, *value;
    absl::StatusCode code;
  };
  for (const Row& row : {Row{"num_attention_heads", "0", absl::StatusCode::kInvalidArgument},
                         Row{"num_attention_heads", "3", absl::StatusCode::kInvalidArgument},
                         Row{"num_key_value_heads", "0", absl::StatusCode::kInvalidArgument},
                         Row{"num_key_value_heads", "3", absl::StatusCode::kInvalidArgument},
                         Row{"num_hidden_layers", "-1", absl::StatusCode::kInvalidArgument},
                         Row{"num_hidden_layers", "1000000000", absl::StatusCode::kInvalidArgument},
                         Row{"num_hidden_layers", "4", absl::StatusCode::kNotFound},
                         Row{"hidden_size", "\"32\"", absl::StatusCode::kInvalidArgument},
                         Row{"hidden_size", "64", absl::StatusCode::kInvalidArgument},
                         Row{"vocab_size", "65", absl::StatusCode::kInvalidArgument},
                         Row{"rms_norm_eps", "0", absl::StatusCode::kInvalidArgument}}) {
    const size_t at = good.find(std::string("\"") + row.key + "\"");
    REQUIRE(at != std::string::npos);
    const size_t colon = good.find(':', at), end = good.find_first_of(",}\n", colon);
    WriteConfig(dir.path(), good.substr(0, colon + 1) + " " + row.value + good.substr(end));
    const absl::Status status = OpenStatus(dir.path());
    INFO(row.key << " = " << row.value << ": " << status.ToString());
    CHECK(status.code() == row.code);
  }
}

TEST_CASE("every absent tensor is counted and the first are named") {
  TempDir dir;
  TinyModel model;
  auto tensors = MakeTinyTensors(model);
  WriteConfig(dir.path(), TinyConfig(model));
  tensors.erase(std::remove_if(tensors.begin(), tensors.end(),
                               [](const RawTensor& t) { return t.name.find("layers.1.mlp") != std::string::npos; }),
                tensors.end());
  WriteTinyWeights(tensors, 1, dir.path());
  const absl::Status status = OpenStatus(dir.path());
  CHECK(status.code() == absl::StatusCode::kNotFound);
  CHECK_THAT(std::string(status.message()),
             Catch::Contains("3 tensors") && Catch::Contains("model.layers.1.mlp.gate_proj.weight"));
}

TEST_CASE("a tensor of another shape than the config's is named with both") {
  TempDir dir;
  TinyModel model;
  WriteTinyModel(model, dir.path());
  WriteConfig(dir.path(), With(TinyConfig(model), "\"intermediate_size\": 48", "\"intermediate_size\": 56"));
  const absl::Status status = OpenStatus(dir.path());
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()), Catch::Contains("[48, 32]") && Catch::Contains("[56, 32]"));
}

TEST_CASE("an untied model without a head says so, one that does not say is taken as tied") {
  TempDir dir;
  TinyModel model;
  model.tied = true;
  WriteTinyModel(model, dir.path());
  const std::string config = TinyConfig(model);
  WriteConfig(dir.path(), With(config, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false"));
  CHECK_THAT(std::string(OpenStatus(dir.path()).message()), Catch::Contains("lm_head.weight"));
  WriteConfig(dir.path(), With(config, "\"tie_word_embeddings\": true", "\"unrelated\": true"));
  CHECK(MetaSkeleton::Open({}, dir.path()).value()->tied_head());
}

}  // namespace
}  // namespace autoscheme
