// A skeleton of config.json alone against that of the folder with the weights.
#include "model/config_tensors.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "autoscheme/block_streamer.h"
#include "autoscheme/meta_skeleton.h"
#include "autoscheme/offload_manager.h"
#include "checkpoint/checkpoint.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

namespace fs = std::filesystem;

void CheckSame(const TensorInfo* alone, const TensorInfo* stored, bool same_name) {
  REQUIRE((alone == nullptr) == (stored == nullptr));
  if (alone == nullptr) return;
  CAPTURE(alone->name, stored->name);
  if (same_name) CHECK(alone->name == stored->name);
  CHECK(alone->shape == stored->shape);
  CHECK(alone->dtype == stored->dtype);
  CHECK(alone->bytes == stored->bytes);
}

void CheckSame(const LinearLayer& alone, const LinearLayer& stored, bool same_name) {
  CHECK(alone.name == stored.name);
  CHECK(alone.index == stored.index);
  CHECK(alone.last_product == stored.last_product);
  CheckSame(alone.weight, stored.weight, same_name);
  CheckSame(alone.bias, stored.bias, same_name);
}

void CheckSame(const MetaSkeleton& alone, const MetaSkeleton& stored) {
  // Those of multimodal models lie under names of their own, beside the tensors of the vision part.
  const bool plain = stored.untouched_tensors().empty();
  CHECK_FALSE(alone.has_weights());
  CHECK(stored.has_weights());
  CHECK((alone.fingerprint() == stored.fingerprint()) == plain);
  CHECK(alone.model_type() == stored.model_type());
  CHECK(alone.tied_head() == stored.tied_head());
  CHECK(alone.max_positions() == stored.max_positions());
  uint64_t untouched = 0;
  for (const TensorInfo* info : stored.untouched_tensors()) untouched += info->bytes;
  CHECK(alone.total_bytes() == stored.total_bytes() - untouched);
  CheckSame(alone.embedding(), stored.embedding(), plain);
  CheckSame(alone.head(), stored.head(), plain);
  REQUIRE(alone.other_tensors().size() == stored.other_tensors().size());
  for (size_t i = 0; i < alone.other_tensors().size(); ++i) {
    CheckSame(alone.other_tensors()[i], stored.other_tensors()[i], plain);
  }
  REQUIRE(alone.blocks().size() == stored.blocks().size());
  for (size_t b = 0; b < alone.blocks().size(); ++b) {
    const Block &one = alone.blocks()[b], &other = stored.blocks()[b];
    CHECK(one.name == other.name);
    REQUIRE(one.linears.size() == other.linears.size());
    for (size_t i = 0; i < one.linears.size(); ++i) CheckSame(one.linears[i], other.linears[i], plain);
    REQUIRE(one.tensors.size() == other.tensors.size());
    for (size_t i = 0; i < one.tensors.size(); ++i) {
      CheckSame(one.tensors[i], other.tensors[i], plain);
      if (plain) CHECK(one.tensors[i]->offset == other.tensors[i]->offset);
    }
  }
}

std::string Messages(const std::string& config, std::unique_ptr<MetaSkeleton>* made = nullptr) {
  std::string messages;
  Context context;
  context.log = [&](LogLevel, absl::string_view text) { messages += std::string(text) + "\n"; };
  auto skeleton = MetaSkeleton::FromConfig(context, config);
  REQUIRE(skeleton.ok());
  if (made != nullptr) *made = *std::move(skeleton);
  return messages;
}

std::string With(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

TEST_CASE("of every family config.json alone gives the tensors and blocks that the folder has, at the same places") {
  int compared = 0;
  for (const auto& entry : fs::directory_iterator(AUTOSCHEME_GOLDEN_DIR "/families")) {
    if (!entry.is_directory()) continue;
    INFO(entry.path().filename().string());
    const std::string folder = (entry.path() / "model").string(), config = folder + "/config.json";
    const auto stored = MetaSkeleton::Open({}, folder), alone = MetaSkeleton::Open({}, config);
    CHECK(alone.status().code() == stored.status().code());
    if (absl::IsUnimplemented(stored.status())) continue;  // variants that are refused by name
    REQUIRE(stored.ok());
    REQUIRE(alone.ok());
    CHECK((*alone)->model() == config);
    CHECK((*alone)->directory() == config);
    CHECK((*alone)->files() == std::vector<std::string>{config});
    CheckSame(**alone, **stored);
    const auto of_text = MetaSkeleton::FromConfig({}, Slurp(config)).value();
    CHECK(of_text->fingerprint() == (*alone)->fingerprint());
    CHECK(of_text->model() == "config.json");
    ++compared;
  }
  CHECK(compared >= 49);
}

TEST_CASE(
    "the type of the weights is the config's, and bfloat16 with a warning where it names none that they can have") {
  const std::string config = TinyConfig({});
  struct Row {
    const char* members;
    Dtype dtype;
    const char* warning;
  };
  for (const Row& row :
       {Row{R"("dtype": "float32")", Dtype::kF32, ""}, Row{R"("torch_dtype": "float16")", Dtype::kF16, ""},
        Row{R"("torch_dtype": "torch.bfloat16")", Dtype::kBF16, ""},
        Row{R"("dtype": null, "torch_dtype": "float32")", Dtype::kF32, ""},
        Row{R"("text_config": {"dtype": "float32"})", Dtype::kF32, ""},
        Row{R"("dtype": "float16", "text_config": {"dtype": "float32"})", Dtype::kF16, ""},
        Row{R"("torch_dtype": 16)", Dtype::kBF16, "names no dtype"},
        Row{R"("dtype": "float64")", Dtype::kBF16, "the dtype \"float64\""}}) {
    CAPTURE(row.members);
    std::string given = config;
    const size_t own = given.find("\"torch_dtype\"");
    if (own != std::string::npos) given.erase(own, given.find(',', own) + 1 - own);
    given = With(given, "{", std::string("{") + row.members + ", ");
    std::unique_ptr<MetaSkeleton> skeleton;
    const std::string messages = Messages(given, &skeleton);
    CHECK(skeleton->embedding()->dtype == row.dtype);
    CHECK(skeleton->blocks()[1].tensors[0]->dtype == row.dtype);
    CHECK_THAT(messages, Catch::Contains(row.warning));
    CHECK(messages.empty() == std::string(row.warning).empty());
  }
}

TEST_CASE("a config that ties nothing has the head that its family has") {
  for (const auto& [type, tied] : {std::pair<const char*, bool>{"llama", false}, {"gemma", true}}) {
    std::string config = With(TinyConfig({}), "\"llama\"", std::string("\"") + type + "\"");
    config = With(config, "\"tie_word_embeddings\"", "\"unrelated\"");
    std::unique_ptr<MetaSkeleton> skeleton;
    Messages(config, &skeleton);
    CHECK(skeleton->tied_head() == tied);
    CHECK((skeleton->checkpoint().Find("lm_head.weight") == nullptr) == tied);
  }
}

TEST_CASE("what reads weights fails at once without them") {
  const TempDir dir;
  const std::string path = dir.Write("config.json", TinyConfig({}));
  const auto skeleton = MetaSkeleton::Open({}, path).value();
  const Checkpoint& checkpoint = skeleton->checkpoint();
  std::vector<std::byte> byte(1);
  HostTensorCallbacks host;
  host.save = [](const std::string&, absl::Span<std::byte>) { return absl::OkStatus(); };
  host.release = [](const std::string&) { return absl::OkStatus(); };
  host.restore = [](const std::string&, absl::Span<const std::byte>) { return absl::OkStatus(); };
  for (const absl::Status& status :
       {checkpoint.Read(*skeleton->embedding(), 0, absl::MakeSpan(byte)),
        BlockStreamer::Create({}, checkpoint, {skeleton->blocks()[0].tensors}, {}).status(),
        BlockStreamer::Create({}, checkpoint, {}, {}).status(),
        OffloadManager::Create({}, &checkpoint, host, {}).status()}) {
    CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
    CHECK_THAT(std::string(status.message()), Catch::Contains("\"" + path + "\" is a config.json without weights"));
  }
  OffloadManager::Options spill;
  spill.mode = OffloadMode::kOffload;
  spill.work_dir = dir.path();
  CHECK(OffloadManager::Create({}, &checkpoint, host, spill).ok());

  const absl::Status folder = MetaSkeleton::Open({}, dir.path()).status();
  CHECK(folder.code() == absl::StatusCode::kNotFound);
  CHECK_THAT(std::string(folder.message()),
             Catch::Contains("no weights in") && Catch::Contains("to plan a run without them give \"" + path + "\""));
}

TEST_CASE("every part of a norm of heads is a norm") {
  const auto skeleton = MetaSkeleton::FromConfig({}, R"({"model_type": "stablelm", "hidden_size": 32,
      "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
      "vocab_size": 16, "qk_layernorm": true, "dtype": "float32", "partial_rotary_factor": 0.5})")
                            .value();
  int norms = 0;
  for (const TensorRole& role : skeleton->tensors()) {
    if (role.block < 0 || role.reason == nullptr) continue;
    CAPTURE(role.tensor->name);
    CHECK(std::string(role.reason) == "norm");
    ++norms;
  }
  CHECK(norms == 4 + 4 + 2);
}

TEST_CASE("a config of more tensors than a folder may hold is refused before they take memory") {
  const std::string config = R"({"model_type": "stablelm", "hidden_size": 16777216, "intermediate_size": 8,
      "num_attention_heads": 2097152, "vocab_size": 16, "qk_layernorm": true, "num_hidden_layers": 10000})";
  CHECK(MetaSkeleton::FromConfig({}, config).status() ==
        absl::InvalidArgumentError("config.json asks for more than 1000000 tensors: at block 0 of 10000"));
  const std::string fewer = With(config, "2097152", "128");
  CHECK(MetaSkeleton::FromConfig({}, fewer).status() ==
        absl::InvalidArgumentError("config.json asks for more than 1000000 tensors: at block 3745 of 10000"));
}

TEST_CASE("files that are no config, and configs beyond measure, are refused") {
  const TempDir dir;
  const auto refused = [&](const std::string& path) { return MetaSkeleton::Open({}, path).status(); };
  CHECK_THAT(std::string(refused(dir.Write("model.safetensors", "x")).message()),
             Catch::Contains("is a file") && Catch::Contains("or config.json itself"));
  CHECK(refused(dir.Write("list.json", "[]")).code() == absl::StatusCode::kDataLoss);
  CHECK(refused(dir.Write("half.json", "{")).code() == absl::StatusCode::kDataLoss);
  CHECK_THAT(std::string(refused(dir.Write("index.json", "{\"weight_map\": {}}")).message()),
             Catch::Contains("model_type"));
  CHECK(refused(dir / "absent.json").code() == absl::StatusCode::kNotFound);
  fs::create_directory(dir / "folder.json");
  CHECK_THAT(std::string(refused(dir / "folder.json").message()), Catch::Contains("config.json"));
  TinyModel huge;
  huge.hidden = int64_t{1} << 24, huge.intermediate = int64_t{1} << 24, huge.vocab = int64_t{1} << 24;
  const absl::Status status = MetaSkeleton::FromConfig({}, TinyConfig(huge)).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()), Catch::Contains("more than 281474976710656 bytes of weights"));
}

}  // namespace
}  // namespace autoscheme
