// What goes wrong with models, calibration and files: one clear line with name and number, and the handles stay usable.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "capi/capi_test.h"

namespace autoscheme {
namespace {

using Catch::Contains;
namespace fs = std::filesystem;

const char kUpProj[] = "model.layers.1.mlp.up_proj.weight";

// Writes the tiny model again with `change` done to its tensors.
template <typename Change>
void Rewrite(const TinyCase& tiny, Change&& change) {
  std::vector<RawTensor> tensors = MakeTinyTensors(tiny.model);
  change(tensors);
  WriteTinyWeights(tensors, tiny.model.shards, tiny.model_dir);
}

RawTensor& Find(std::vector<RawTensor>& tensors, const std::string& name) {
  for (RawTensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::runtime_error("no tensor " + name);
}

// The context and options of `tiny` still work, on a model that is whole again.
void CheckUsable(TinyCase& tiny) {
  fs::remove_all(tiny.model_dir);
  fs::create_directory(tiny.model_dir);
  WriteTinyModel(tiny.model, tiny.model_dir);
  tiny.tokens = tiny.dir.Write("tokens.json", TinyTokens(4, 8, tiny.model.vocab));
  ScoresPtr scores;
  const Result result = tiny.ScoreAll(scores);
  INFO(result.message);
  CHECK(result.ok());
}

TEST_CASE("a missing shard is NOT_FOUND and named") {
  TinyCase tiny(3);
  fs::remove(tiny.model_dir + "/model-00002-of-00003.safetensors");
  SkeletonPtr skeleton;
  const Result result = tiny.Open(skeleton);
  CHECK(result.code == AUTOSCHEME_NOT_FOUND);
  CHECK_THAT(result.message, Contains("model-00002-of-00003.safetensors"));
  CHECK(skeleton == nullptr);
  CheckUsable(tiny);
}

TEST_CASE("a truncated shard is DATA_LOSS and named") {
  TinyCase tiny(2);
  const std::string shard = tiny.model_dir + "/model-00002-of-00002.safetensors";
  fs::resize_file(shard, fs::file_size(shard) - 10);
  SkeletonPtr skeleton;
  const Result result = tiny.Open(skeleton);
  CHECK(result.code == AUTOSCHEME_DATA_LOSS);
  CHECK_THAT(result.message, Contains("model-00002-of-00002.safetensors"));
  CheckUsable(tiny);
}

// Model and calibration are there; the test makes the generator and scores.
struct OpenedCase : TinyCase {
  struct {
    SkeletonPtr skeleton;
    CalibrationPtr calibration;
    GeneratorPtr generator;
    ScoresPtr scores;
  } handles;
  OpenedCase() {
    REQUIRE(Open(handles.skeleton).ok());
    REQUIRE(Load(handles.calibration).ok());
  }
};

TEST_CASE("a shard that is cut after it was opened is DATA_LOSS, never a wrong score") {
  OpenedCase tiny;
  auto& [skeleton, calibration, generator, scores] = tiny.handles;
  REQUIRE(tiny.Create(skeleton, generator).ok());
  const std::string file = tiny.model_dir + "/model.safetensors";
  fs::resize_file(file, fs::file_size(file) / 2);
  const Result result = TinyCase::Score(generator, calibration, scores);
  CHECK(result.code == AUTOSCHEME_DATA_LOSS);
  CHECK_THAT(result.message, Contains("model.safetensors"));
  CHECK(scores == nullptr);
  CheckUsable(tiny);
}

TEST_CASE("a weight that is not a number is DATA_LOSS with tensor and index") {
  TinyCase tiny;
  Rewrite(tiny, [](std::vector<RawTensor>& tensors) {
    std::string& bytes = Find(tensors, kUpProj).bytes;
    bytes[2 * 77] = '\xC1', bytes[2 * 77 + 1] = '\x7F';  // a bfloat16 NaN
  });
  ScoresPtr scores;
  const Result result = tiny.ScoreAll(scores);
  CHECK(result.code == AUTOSCHEME_DATA_LOSS);
  CHECK_THAT(result.message, Contains(kUpProj) && Contains("77"));
  CHECK(scores == nullptr);
  CheckUsable(tiny);
}

TEST_CASE("an absent tensor is named") {
  TinyCase tiny;
  Rewrite(tiny, [](std::vector<RawTensor>& tensors) {
    tensors.erase(tensors.begin() + (&Find(tensors, kUpProj) - tensors.data()));
  });
  SkeletonPtr skeleton;
  const Result result = tiny.Open(skeleton);
  CHECK_FALSE(result.ok());
  CHECK(result.code != AUTOSCHEME_INTERNAL);
  CHECK_THAT(result.message, Contains(kUpProj));
  CheckUsable(tiny);
}

TEST_CASE("a wrong shape is INVALID_ARGUMENT with both shapes") {
  TinyCase tiny;
  Rewrite(tiny, [](std::vector<RawTensor>& tensors) { Find(tensors, kUpProj).shape = {32, 128}; });
  SkeletonPtr skeleton;
  const Result result = tiny.Open(skeleton);
  CHECK(result.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_THAT(result.message, Contains(kUpProj) && Contains("128") && Contains("64"));
  CheckUsable(tiny);
}

TEST_CASE("an unknown architecture is UNIMPLEMENTED, by name and with what is known") {
  TinyCase tiny;
  tiny.dir.Write("model/config.json", "{\"model_type\": \"no_such_model\", \"architectures\": [\"NoSuchModel\"]}");
  SkeletonPtr skeleton;
  const Result result = tiny.Open(skeleton);
  CHECK(result.code == AUTOSCHEME_UNIMPLEMENTED);
  CHECK_THAT(result.message, Contains("no_such_model") && Contains("llama"));
  CheckUsable(tiny);
}

TEST_CASE("no model folder is NOT_FOUND") {
  TinyCase tiny;
  tiny.model_dir = tiny.dir / "nowhere";
  SkeletonPtr skeleton;
  const Result result = tiny.Open(skeleton);
  CHECK(result.code == AUTOSCHEME_NOT_FOUND);
  CHECK_THAT(result.message, Contains("nowhere"));
}

TEST_CASE("a working folder deleted under a host is named where a path is relative, and harmless where none is") {
  TinyCase tiny;
  const std::string gone = tiny.dir / "gone", model = tiny.model_dir, tokens = tiny.tokens;
  const int before = open(".", O_RDONLY | O_DIRECTORY);
  REQUIRE(before >= 0);
  REQUIRE(mkdir(gone.c_str(), 0700) == 0);
  REQUIRE(chdir(gone.c_str()) == 0);
  REQUIRE(rmdir(gone.c_str()) == 0);
  ScoresPtr scores, none;
  const Result absolute = tiny.ScoreAll(scores);
  std::vector<Result> relative;
  for (const char* path : {".", "model"}) {
    tiny.model_dir = path;
    relative.push_back(tiny.ScoreAll(none));
  }
  tiny.model_dir = model, tiny.tokens = "tokens.json";
  relative.push_back(tiny.ScoreAll(none));
  relative.push_back(Call([&](autoscheme_error** e) { return autoscheme_scores_save(scores.get(), "s.json", e); }));
  REQUIRE(fchdir(before) == 0);
  close(before);
  CHECK(absolute.message == "");
  for (const Result& result : relative) {
    CHECK(result.code == AUTOSCHEME_NOT_FOUND);
    CHECK_THAT(result.message, Contains("the working folder of this process has been deleted"));
  }
}

TEST_CASE("no calibration file is NOT_FOUND, a ragged one names its row") {
  TinyCase tiny;
  CalibrationPtr calibration;
  tiny.tokens = tiny.dir / "none.json";
  const Result missing = tiny.Load(calibration);
  CHECK(missing.code == AUTOSCHEME_NOT_FOUND);
  CHECK_THAT(missing.message, Contains("none.json"));
  tiny.tokens = tiny.dir.Write("ragged.json", "[[1,2,3],[4,5]]");
  const Result ragged = tiny.Load(calibration);
  CHECK(ragged.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_THAT(ragged.message, Contains("1"));
  CHECK(calibration == nullptr);
  CheckUsable(tiny);
}

TEST_CASE("an id outside the vocabulary is INVALID_ARGUMENT with row, column and id") {
  TinyCase tiny;
  tiny.tokens = tiny.dir.Write("tokens.json", "[[1,2,3],[4,5,64]]");
  ScoresPtr scores;
  const Result result = tiny.ScoreAll(scores);
  CHECK(result.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_THAT(result.message, Contains("row 1, column 2") && Contains("64"));
  CheckUsable(tiny);
}

TEST_CASE("a result file that cannot be written leaves nothing behind, and the scores can be saved elsewhere") {
  TinyCase tiny;
  ScoresPtr scores;
  REQUIRE(tiny.ScoreAll(scores).ok());
  const std::string folder = tiny.dir / "no/such/folder/scores.json";
  const Result result =
      Call([&](autoscheme_error** e) { return autoscheme_scores_save(scores.get(), folder.c_str(), e); });
  CHECK_FALSE(result.ok());
  CHECK(result.code != AUTOSCHEME_INTERNAL);
  CHECK_THAT(result.message, Contains("no/such/folder"));
  const auto before = tiny.dir.List();
  // A folder of that name is in the way.
  CHECK_FALSE(
      Call([&](autoscheme_error** e) { return autoscheme_scores_save(scores.get(), tiny.model_dir.c_str(), e); }).ok());
  CHECK(tiny.dir.List() == before);
  CHECK(Call([&](autoscheme_error** e) {
          return autoscheme_scores_save(scores.get(), (tiny.dir / "scores.json").c_str(), e);
        }).ok());
}

TEST_CASE("stored scores that are malformed are refused") {
  TinyCase tiny;
  ScoresPtr scores;
  auto load = [&](const std::string& text) {
    const std::string path = tiny.dir.Write("bad.json", text);
    return Make(scores,
                [&](auto** out, auto** e) { return autoscheme_scores_load(tiny.context.get(), path.c_str(), out, e); });
  };
  CHECK(load("{").code == AUTOSCHEME_DATA_LOSS);
  CHECK_FALSE(load("[]").ok());
  CHECK_FALSE(load("{\"format\":\"autoscheme-scores\",\"version\":99}").ok());
  CHECK(scores == nullptr);
}

TEST_CASE("a budget that cannot be kept is RESOURCE_EXHAUSTED before any work, with the least that would do") {
  OpenedCase tiny;
  auto& [skeleton, calibration, generator, scores] = tiny.handles;
  REQUIRE(tiny.Create(skeleton, generator).ok());
  autoscheme_plan* plan = nullptr;
  REQUIRE(autoscheme_generator_plan(generator.get(), calibration.get(), &plan, nullptr) == AUTOSCHEME_OK);
  auto info = Struct<autoscheme_plan_info>();
  REQUIRE(autoscheme_plan_get_info(plan, &info, nullptr) == AUTOSCHEME_OK);
  uint64_t sum = 0;
  for (int64_t i = 0; i < info.item_count; ++i) {
    auto item = Struct<autoscheme_plan_item>();
    REQUIRE(autoscheme_plan_get_item(plan, i, &item, nullptr) == AUTOSCHEME_OK);
    sum += item.bytes;
  }
  CHECK(sum == info.peak_bytes);
  CHECK(info.budget_bytes >= info.peak_bytes);
  CHECK(std::string(info.budget_reason) != "as given");
  const char* json = nullptr;
  REQUIRE(autoscheme_plan_json(plan, &json, nullptr, nullptr) == AUTOSCHEME_OK);
  CHECK_THAT(std::string(json),
             Contains("\"least_bytes\":" + std::to_string(info.least_bytes)) &&
                 Contains("\"budget_bytes\":" + std::to_string(info.budget_bytes) + ",\"budget_reason\":\""));
  autoscheme_plan_free(plan);

  REQUIRE(tiny.Set(AUTOSCHEME_OPTION_MAX_RAM_BYTES, "1").ok());
  REQUIRE(tiny.Create(skeleton, generator).ok());
  const Result result = TinyCase::Score(generator, calibration, scores);
  CHECK(result.code == AUTOSCHEME_RESOURCE_EXHAUSTED);
  CHECK_THAT(result.message, Contains(std::to_string(info.least_bytes)));
  REQUIRE(tiny.Set(AUTOSCHEME_OPTION_MAX_RAM_BYTES, std::to_string(info.least_bytes).c_str()).ok());
  REQUIRE(tiny.Create(skeleton, generator).ok());
  CHECK(TinyCase::Score(generator, calibration, scores).ok());
}

TEST_CASE("a target that no choice of schemes reaches is refused before anything is scored") {
  OpenedCase tiny;
  auto& [skeleton, calibration, generator, scores] = tiny.handles;
  REQUIRE(tiny.Set(AUTOSCHEME_OPTION_AVG_BITS, "20").ok());
  REQUIRE(tiny.Create(skeleton, generator).ok());
  const Result result = TinyCase::Score(generator, calibration, scores);
  CHECK(result.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_THAT(result.message, Contains("20") && Contains("reachable range"));
  auto stats = Struct<autoscheme_stats>();
  REQUIRE(autoscheme_generator_get_stats(generator.get(), &stats, nullptr) == AUTOSCHEME_OK);
  CHECK(stats.read_bytes == 0);
}

TEST_CASE("what an option lacks is said when the generator is made") {
  TinyCase tiny;
  SkeletonPtr skeleton;
  GeneratorPtr generator;
  REQUIRE(tiny.Open(skeleton).ok());
  REQUIRE(tiny.Set(AUTOSCHEME_OPTION_SCHEMES, "").ok());
  const Result none = tiny.Create(skeleton, generator);
  CHECK(none.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_THAT(none.message, Contains("schemes"));
  REQUIRE(tiny.Set(AUTOSCHEME_OPTION_SCHEMES, "W4A16").ok());
  REQUIRE(tiny.Set(AUTOSCHEME_OPTION_DEVICE, "abacus").ok());
  CHECK_FALSE(tiny.Create(skeleton, generator).ok());
  REQUIRE(tiny.Set(AUTOSCHEME_OPTION_DEVICE, "cpu").ok());
  CHECK(tiny.Create(skeleton, generator).ok());
}

TEST_CASE("a layer config fixes layers, from names and from objects") {
  TinyCase tiny;
  REQUIRE(tiny.Set(AUTOSCHEME_OPTION_LAYER_CONFIG,
                   "{\"model.layers.0.mlp.up_proj\": \"W8A16\", \"layers.1.mlp.up_proj\": {\"bits\": 4}}")
              .ok());
  SkeletonPtr skeleton;
  CalibrationPtr calibration;
  GeneratorPtr generator;
  RecipesPtr recipes;
  REQUIRE(tiny.Open(skeleton).ok());
  REQUIRE(tiny.Load(calibration).ok());
  REQUIRE(tiny.Create(skeleton, generator).ok());
  REQUIRE(Make(recipes, [&](auto** out, auto** e) {
            return autoscheme_generator_run(generator.get(), calibration.get(), nullptr, out, e);
          }).ok());
  for (const int block : {0, 1}) {
    const std::string name = "model.layers." + std::to_string(block) + ".mlp.up_proj";
    int64_t at = -1;
    REQUIRE(autoscheme_recipes_find_layer(recipes.get(), 0, name.c_str(), &at, nullptr) == AUTOSCHEME_OK);
    auto scheme = Struct<autoscheme_scheme_info>();
    int32_t fixed = 0;
    REQUIRE(autoscheme_recipes_get_layer(recipes.get(), 0, at, nullptr, &scheme, &fixed, nullptr) == AUTOSCHEME_OK);
    CHECK(fixed == 1);
    CHECK(scheme.bits == (block == 0 ? 8 : 4));
  }
  const Result bad = tiny.Set(AUTOSCHEME_OPTION_LAYER_CONFIG, "{\"up_proj\": {\"bits\": \"four\"}}");
  CHECK(bad.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_THAT(bad.message, Contains("up_proj") && Contains("bits"));
}

}  // namespace
}  // namespace autoscheme
