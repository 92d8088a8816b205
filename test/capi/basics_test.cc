// Layout, NULL arguments, the whole way in C, versions, options, catalogue, struct_size.
#include <catch2/catch.hpp>
#include <climits>
#include <cmath>
#include <cstring>
#include <set>

#include "capi/c_tests.h"
#include "capi/capi_test.h"

namespace autoscheme {
namespace {

using Catch::Contains;

TEST_CASE("sizes, offsets and constants of the header never change") { CHECK(layout_failures() == 0); }

TEST_CASE("NULL for any pointer of any function is INVALID_ARGUMENT, and whatever fails clears its out-parameters") {
  TinyCase tiny;
  CHECK(null_argument_failures(tiny.model_dir.c_str(), tiny.tokens.c_str()) == 0);
}

TEST_CASE("every struct is taken in its size of 0.1 and in larger ones, and refused in smaller ones") {
  TinyCase tiny;
  CHECK(struct_failures(tiny.model_dir.c_str(), tiny.tokens.c_str()) == 0);
}

TEST_CASE("a C host goes from the model to the saved recipe, and may free parents first") {
  TinyCase tiny;
  CHECK(walk_failures(tiny.model_dir.c_str(), tiny.tokens.c_str(), (tiny.dir / "recipe.json").c_str()) == 0);
  CHECK_THAT(Slurp(tiny.dir / "recipe.json"), Contains("\"autoscheme-recipe\"") && Contains("q_proj"));
}

TEST_CASE("a C host evaluates a recipe beside a scheme, and may free parents first") {
  TinyCase tiny;
  const std::string recipe = tiny.dir / "recipe.json", figures = tiny.dir / "eval.json";
  REQUIRE(walk_failures(tiny.model_dir.c_str(), tiny.tokens.c_str(), recipe.c_str()) == 0);
  CHECK(evaluation_failures(tiny.model_dir.c_str(), tiny.tokens.c_str(), recipe.c_str(), figures.c_str()) == 0);
  CHECK_THAT(Slurp(figures), Contains("\"autoscheme-eval\"") && Contains("\"name\": \"mine\""));
}

TEST_CASE("the library says which version it is") {
  CHECK(std::string(autoscheme_version()) == AUTOSCHEME_VERSION);
  CHECK(std::string(AUTOSCHEME_VERSION) == std::to_string(AUTOSCHEME_VERSION_MAJOR) + "." +
                                               std::to_string(AUTOSCHEME_VERSION_MINOR) + "." +
                                               std::to_string(AUTOSCHEME_VERSION_PATCH));
}

TEST_CASE("every status has a name") {
  std::set<std::string> names;
  for (autoscheme_status s = 0; s <= AUTOSCHEME_UNAUTHENTICATED; ++s) names.insert(autoscheme_status_name(s));
  CHECK(names.size() == 17);
  CHECK(std::string(autoscheme_status_name(AUTOSCHEME_CALLBACK_FAILED)) == "CALLBACK_FAILED");
  CHECK(std::string(autoscheme_status_name(AUTOSCHEME_DATA_LOSS)) == "DATA_LOSS");
  CHECK(std::string(autoscheme_status_name(77)) == "UNKNOWN_STATUS");
}

TEST_CASE("every option is found by its name, described, and takes back its own text") {
  REQUIRE(autoscheme_option_count() >= 17);
  CHECK(autoscheme_option_at(-1) == 0);
  CHECK(autoscheme_option_at(autoscheme_option_count()) == 0);
  OptionsPtr options;
  REQUIRE(Make(options, autoscheme_options_create).ok());
  for (int64_t i = 0; i < autoscheme_option_count(); ++i) {
    const int32_t id = autoscheme_option_at(i);
    auto info = Struct<autoscheme_option_info>();
    REQUIRE(Call([&](autoscheme_error** e) { return autoscheme_option_describe(id, &info, e); }).ok());
    INFO(info.name);
    CHECK(info.id == id);
    CHECK(autoscheme_option_find(info.name) == id);
    CHECK((i == 0 || autoscheme_option_at(i - 1) < id));
    CHECK(std::strlen(info.help) > 20);
    CHECK(std::string(info.since) == "0.1");
    const char* text = nullptr;
    REQUIRE(Call([&](autoscheme_error** e) { return autoscheme_options_get_str(options.get(), id, &text, e); }).ok());
    CHECK(std::string(text) == info.default_value);
    const std::string copy = text;
    CHECK(Call([&](autoscheme_error** e) {
            return autoscheme_options_set_str(options.get(), id, copy.c_str(), e);
          }).ok());
    REQUIRE(Call([&](autoscheme_error** e) { return autoscheme_options_get_str(options.get(), id, &text, e); }).ok());
    CHECK(std::string(text) == info.default_value);
  }
  CHECK(autoscheme_option_find("no_such_option") == 0);
  auto info = Struct<autoscheme_option_info>();
  const Result unknown = Call([&](autoscheme_error** e) { return autoscheme_option_describe(99, &info, e); });
  CHECK(unknown.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_THAT(unknown.message, Contains("99"));
}

TEST_CASE("sizes are read with their units") {
  TinyCase tiny;
  auto bytes = [&](const char* text) -> int64_t {
    const Result set = tiny.Set(AUTOSCHEME_OPTION_MAX_RAM_BYTES, text);
    if (!set.ok()) return -1;
    int64_t value = -2;
    Call([&](autoscheme_error** e) {
      return autoscheme_options_get_i64(tiny.options.get(), AUTOSCHEME_OPTION_MAX_RAM_BYTES, &value, e);
    });
    return value;
  };
  CHECK(bytes("0") == 0);
  CHECK(bytes("4096") == 4096);
  CHECK(bytes("400MiB") == 400LL << 20);
  CHECK(bytes("2 gib") == 2LL << 30);
  CHECK(bytes("1.5GB") == 1500000000);
  CHECK(bytes("10KB") == 10000);
  CHECK(bytes("2G") == 2LL << 30);
  CHECK(bytes("512m") == 512LL << 20);
  CHECK(bytes("1.5 K") == 1536);
  CHECK(bytes("9223372036854775807") == INT64_MAX);
  for (const char* free : {"free", " FREE"}) {
    REQUIRE(tiny.Set(AUTOSCHEME_OPTION_MAX_RAM_BYTES, free).ok());
    CHECK(bytes(free) == -1);
    const char* text = nullptr;
    REQUIRE(autoscheme_options_get_str(tiny.options.get(), AUTOSCHEME_OPTION_MAX_RAM_BYTES, &text, nullptr) ==
            AUTOSCHEME_OK);
    CHECK(std::string(text) == "free");
  }
  CHECK(bytes("0") == 0);
  for (const char* bad :
       {"", "x", "-1", "freed", "400P", "2Gi", "1.5.2GB", "5 bananas", "9e99", "99999999TiB", "9223372036854775808"}) {
    INFO(bad);
    CHECK(bytes(bad) == -1);
  }
}

TEST_CASE("a list with an empty item is refused, by its text and the item's place, and a blank one is empty") {
  TinyCase tiny;
  const auto refused = [&](int32_t id, const char* text, const std::string& words) {
    const Result set = tiny.Set(id, text);
    INFO(text << ": " << set.message);
    CHECK(set.code == AUTOSCHEME_INVALID_ARGUMENT);
    CHECK_THAT(set.message, Contains(words));
  };
  refused(AUTOSCHEME_OPTION_AVG_BITS, "4,,5", "option avg_bits is \"4,,5\": item 2 between ',' is empty");
  refused(AUTOSCHEME_OPTION_AVG_BITS, "4,5, ", "item 3");
  refused(AUTOSCHEME_OPTION_TARGET_SIZE, ",4GiB", "option target_size is \",4GiB\": item 1");
  refused(AUTOSCHEME_OPTION_IGNORE_LAYERS, "q_proj,,k_proj", "option ignore_layers is \"q_proj,,k_proj\": item 2");
  refused(AUTOSCHEME_OPTION_SHARED_LAYERS, "q_proj,k_proj;", "item 2 between ';' is empty");
  refused(AUTOSCHEME_OPTION_SHARED_LAYERS, "up_proj;q_proj,", "option shared_layers is \"q_proj,\": item 2");
  refused(AUTOSCHEME_OPTION_SCHEMES, "W4A16,,W8A16", "\"W4A16,,W8A16\" has an empty entry");
  for (const int32_t id : {AUTOSCHEME_OPTION_AVG_BITS, AUTOSCHEME_OPTION_IGNORE_LAYERS, AUTOSCHEME_OPTION_SHARED_LAYERS,
                           AUTOSCHEME_OPTION_TARGET_SIZE}) {
    CHECK(tiny.Set(id, " ").ok());
  }
}

TEST_CASE("a value out of bounds or of another type is refused by name, and the old one stays") {
  TinyCase tiny;
  autoscheme_options* options = tiny.options.get();
  auto i64 = [&](int32_t id, int64_t value) {
    return Call([&](autoscheme_error** e) { return autoscheme_options_set_i64(options, id, value, e); });
  };
  auto f64 = [&](int32_t id, double value) {
    return Call([&](autoscheme_error** e) { return autoscheme_options_set_f64(options, id, value, e); });
  };
  for (const int64_t value : {INT64_C(0), INT64_C(-1), INT64_C(1) << 31}) {
    const Result result = i64(AUTOSCHEME_OPTION_BATCH_SIZE, value);
    CHECK(result.code == AUTOSCHEME_INVALID_ARGUMENT);
    CHECK_THAT(result.message, Contains("batch_size") && Contains(std::to_string(value)));
  }
  CHECK(i64(AUTOSCHEME_OPTION_THREADS, -2).code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(i64(AUTOSCHEME_OPTION_THREADS, 100000).code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(i64(AUTOSCHEME_OPTION_MAX_RAM_BYTES, -2).code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(i64(AUTOSCHEME_OPTION_QUANT_LM_HEAD, 2).code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(i64(AUTOSCHEME_OPTION_SCHEMES, 1).code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(i64(12345, 1).code == AUTOSCHEME_INVALID_ARGUMENT);
  for (const double value : {std::nan(""), static_cast<double>(INFINITY), -1.0, 0.0, 65.0}) {
    CHECK(f64(AUTOSCHEME_OPTION_AVG_BITS, value).code == AUTOSCHEME_INVALID_ARGUMENT);
  }
  CHECK(f64(AUTOSCHEME_OPTION_BATCH_SIZE, 2).code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(tiny.Set(AUTOSCHEME_OPTION_DTYPE, "float16").code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(tiny.Set(AUTOSCHEME_OPTION_AVG_BITS, "4,five").code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(tiny.Set(AUTOSCHEME_OPTION_LAYER_CONFIG, "{\"q_proj\":").code != AUTOSCHEME_OK);
  const Result scheme = tiny.Set(AUTOSCHEME_OPTION_SCHEMES, "W4A16,W99A3");
  CHECK(scheme.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_THAT(scheme.message, Contains("W99A3"));

  int64_t batch = 0;
  CHECK(autoscheme_options_get_i64(options, AUTOSCHEME_OPTION_BATCH_SIZE, &batch, nullptr) == AUTOSCHEME_OK);
  CHECK(batch == 2);
  const char* text = nullptr;
  CHECK(autoscheme_options_get_str(options, AUTOSCHEME_OPTION_SCHEMES, &text, nullptr) == AUTOSCHEME_OK);
  CHECK(std::string(text) == "W4A16,W8A16");
}

TEST_CASE("a list of targets keeps its numbers") {
  TinyCase tiny;
  REQUIRE(tiny.Set(AUTOSCHEME_OPTION_AVG_BITS, " 3.5, 4.25,6 ").ok());
  const char* text = nullptr;
  REQUIRE(autoscheme_options_get_str(tiny.options.get(), AUTOSCHEME_OPTION_AVG_BITS, &text, nullptr) == 0);
  CHECK(std::string(text) == "3.5,4.25,6");
}

TEST_CASE("the catalogue is listed and searched") {
  REQUIRE(autoscheme_scheme_count() >= 10);
  for (int64_t i = 0; i < autoscheme_scheme_count(); ++i) {
    auto at = Struct<autoscheme_scheme_info>();
    auto found = Struct<autoscheme_scheme_info>();
    REQUIRE(autoscheme_scheme_get(i, &at, nullptr) == AUTOSCHEME_OK);
    INFO(at.name);
    REQUIRE(autoscheme_scheme_find(at.name, &found, nullptr) == AUTOSCHEME_OK);
    CHECK(at.name == found.name);  // the same string, which lives for ever
    CHECK(at.bits >= 1);
  }
  auto scheme = Struct<autoscheme_scheme_info>();
  REQUIRE(autoscheme_scheme_find("w4a16", &scheme, nullptr) == AUTOSCHEME_OK);
  CHECK(std::string(scheme.name) == "W4A16");
  CHECK(std::string(scheme.data_type) == "int");
  CHECK(scheme.bits == 4);
  CHECK(scheme.group_size == 128);
  CHECK(scheme.sym == 1);
  CHECK(scheme.super_bits == AUTOSCHEME_UNSET);
  CHECK(autoscheme_scheme_find("W99", &scheme, nullptr) == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(autoscheme_scheme_get(-1, &scheme, nullptr) == AUTOSCHEME_OUT_OF_RANGE);
  CHECK(autoscheme_scheme_get(autoscheme_scheme_count(), &scheme, nullptr) == AUTOSCHEME_OUT_OF_RANGE);
}

TEST_CASE("a struct of a later version is zeroed beyond what this one knows, a smaller one refused") {
  struct {
    autoscheme_scheme_info known;
    char later[24];
  } large;
  std::memset(&large, 0x55, sizeof(large));
  large.known.struct_size = sizeof(large);
  REQUIRE(autoscheme_scheme_find("W4A16", &large.known, nullptr) == AUTOSCHEME_OK);
  CHECK(large.known.struct_size == sizeof(large));
  CHECK(large.known.bits == 4);
  for (const char byte : large.later) CHECK(byte == 0);

  for (const size_t size : {size_t{0}, size_t{8}, sizeof(autoscheme_scheme_info) - 1, SIZE_MAX}) {
    autoscheme_scheme_info info{};
    info.struct_size = size;
    info.bits = 77;
    const Result result = Call([&](autoscheme_error** e) { return autoscheme_scheme_find("W4A16", &info, e); });
    CHECK(result.code == AUTOSCHEME_INVALID_ARGUMENT);
    CHECK_THAT(result.message, Contains("struct_size"));
    CHECK(info.bits == 77);
  }
}

TEST_CASE("a config.json alone can be planned and selected for, and nothing of it read") {
  TinyCase tiny;
  SkeletonPtr folder, alone;
  REQUIRE(tiny.Open(folder).ok());
  const std::string config = tiny.model_dir + "/config.json";
  tiny.model_dir = config;
  REQUIRE(tiny.Open(alone).ok());
  auto info = Struct<autoscheme_skeleton_info>(), of_folder = Struct<autoscheme_skeleton_info>();
  REQUIRE(autoscheme_skeleton_get_info(alone.get(), &info, nullptr) == AUTOSCHEME_OK);
  REQUIRE(autoscheme_skeleton_get_info(folder.get(), &of_folder, nullptr) == AUTOSCHEME_OK);
  CHECK(info.has_weights == 0);
  CHECK(info.directory == config);
  CHECK(std::string(info.fingerprint) == of_folder.fingerprint);
  CHECK(info.total_bytes == of_folder.total_bytes);
  REQUIRE(autoscheme_skeleton_file_count(alone.get()) == 1);
  CHECK(autoscheme_skeleton_file_at(alone.get(), 0) == config);

  CalibrationPtr calibration;
  GeneratorPtr of_weights, generator;
  ScoresPtr scores, none;
  PlanPtr plan;
  RecipesPtr recipes;
  REQUIRE(tiny.Load(calibration).ok());
  REQUIRE(tiny.Create(folder, of_weights).ok());
  REQUIRE(tiny.Create(alone, generator).ok());
  CHECK(Make(plan, [&](autoscheme_plan** out, autoscheme_error** e) {
          return autoscheme_generator_plan(generator.get(), calibration.get(), out, e);
        }).ok());
  const Result refused = tiny.Score(generator, calibration, none);
  CHECK(refused.code == AUTOSCHEME_FAILED_PRECONDITION);
  CHECK_THAT(refused.message, Contains("is a config.json without weights"));
  StreamerPtr streamer;
  const Result stream = Make(streamer, [&](autoscheme_streamer** out, autoscheme_error** e) {
    return autoscheme_streamer_create(tiny.context.get(), alone.get(), nullptr, nullptr, 0, out, e);
  });
  CHECK(stream.code == AUTOSCHEME_FAILED_PRECONDITION);
  REQUIRE(tiny.Score(of_weights, calibration, scores).ok());
  CHECK(Make(recipes, [&](autoscheme_recipes** out, autoscheme_error** e) {
          return autoscheme_generator_select(generator.get(), scores.get(), nullptr, 0, out, e);
        }).ok());
}

TEST_CASE("the skeleton numbers blocks, layers and tensors") {
  TinyCase tiny;
  SkeletonPtr skeleton;
  REQUIRE(tiny.Open(skeleton).ok());
  auto info = Struct<autoscheme_skeleton_info>();
  REQUIRE(autoscheme_skeleton_get_info(skeleton.get(), &info, nullptr) == AUTOSCHEME_OK);
  CHECK(std::string(info.model_type) == "llama");
  CHECK(info.block_count == 2);
  CHECK(info.layer_count == 15);
  CHECK(info.hidden_size == 64);
  CHECK(info.vocab_size == 64);
  CHECK(info.max_positions == 128);
  CHECK(info.tied_head == 0);
  CHECK(info.has_weights == 1);
  uint64_t bytes = 0;
  for (int64_t i = 0; i < info.tensor_count; ++i) {
    auto tensor = Struct<autoscheme_tensor_info>();
    REQUIRE(autoscheme_skeleton_get_tensor(skeleton.get(), i, &tensor, nullptr) == AUTOSCHEME_OK);
    CHECK(tensor.dtype == AUTOSCHEME_DTYPE_BF16);
    int64_t elements = 1;
    for (int32_t d = 0; d < tensor.rank; ++d) elements *= tensor.shape[d];
    CHECK(tensor.bytes == static_cast<uint64_t>(2 * elements));
    bytes += tensor.bytes;
  }
  CHECK(bytes == info.total_bytes);
  for (int64_t b = 0; b < 2; ++b) {
    auto block = Struct<autoscheme_block_info>();
    REQUIRE(autoscheme_skeleton_get_block(skeleton.get(), b, &block, nullptr) == AUTOSCHEME_OK);
    CHECK(std::string(block.name) == "model.layers." + std::to_string(b));
    CHECK(block.layer_count == 7);
    auto layer = Struct<autoscheme_layer_info>();
    REQUIRE(autoscheme_skeleton_get_layer(skeleton.get(), block.first_layer, &layer, nullptr) == AUTOSCHEME_OK);
    CHECK(std::string(layer.name) == std::string(block.name) + ".self_attn.q_proj");
    CHECK(layer.out_features == 64);
    CHECK(layer.block == b);
    CHECK(layer.fixed_scheme == nullptr);
  }
  auto head = Struct<autoscheme_layer_info>();
  REQUIRE(autoscheme_skeleton_get_layer(skeleton.get(), 14, &head, nullptr) == AUTOSCHEME_OK);
  CHECK(std::string(head.name) == "lm_head");
  CHECK(head.is_head == 1);
  CHECK(head.block == -1);
  CHECK(autoscheme_skeleton_get_layer(skeleton.get(), 15, &head, nullptr) == AUTOSCHEME_OUT_OF_RANGE);
  auto block = Struct<autoscheme_block_info>();
  CHECK(autoscheme_skeleton_get_block(skeleton.get(), -1, &block, nullptr) == AUTOSCHEME_OUT_OF_RANGE);

  std::set<std::string> types;
  for (int64_t i = 0; i < autoscheme_model_type_count(); ++i) types.insert(autoscheme_model_type_at(i));
  CHECK(types.count("llama") == 1);
  CHECK(types.count("qwen3") == 1);
  CHECK(autoscheme_model_type_at(autoscheme_model_type_count()) == nullptr);
}

TEST_CASE("calibration comes from arrays, is cut, and refuses what cannot be ids") {
  const int64_t ids[] = {1, 2, 3, 4, 5, 6};
  CalibrationPtr all, cut, none;
  REQUIRE(Make(all, [&](auto** out, auto** e) { return autoscheme_calibration_from_i64(ids, 2, 3, out, e); }).ok());
  REQUIRE(
      Make(cut, [&](auto** out, auto** e) { return autoscheme_calibration_truncate(all.get(), 0, 2, out, e); }).ok());
  auto info = Struct<autoscheme_calibration_info>();
  REQUIRE(autoscheme_calibration_get_info(cut.get(), &info, nullptr) == AUTOSCHEME_OK);
  CHECK(info.nsamples == 2);
  CHECK(info.seqlen == 2);
  CHECK(std::vector<int32_t>(info.ids, info.ids + 4) == std::vector<int32_t>{1, 2, 4, 5});
  CHECK(std::string(info.sha256).size() == 64);
  CHECK(Make(none, [&](auto** out, auto** e) {
          return autoscheme_calibration_truncate(all.get(), 3, 0, out, e);
        }).code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(none == nullptr);
  for (const int64_t bad : {INT64_C(-1), INT64_C(1) << 31}) {
    const int64_t wrong[] = {1, 2, 3, bad};
    const Result result =
        Make(none, [&](auto** out, auto** e) { return autoscheme_calibration_from_i64(wrong, 2, 2, out, e); });
    CHECK(result.code == AUTOSCHEME_INVALID_ARGUMENT);
    CHECK_THAT(result.message, Contains(std::to_string(bad)) && Contains("row 1, column 1"));
  }
  for (const int64_t rows : {INT64_C(0), INT64_C(-1), INT64_MAX}) {
    CHECK(Make(none, [&](auto** out, auto** e) {
            return autoscheme_calibration_from_i64(ids, rows, 3, out, e);
          }).code == AUTOSCHEME_INVALID_ARGUMENT);
  }
}

TEST_CASE("a model's files are named: those that are read, no others") {
  const auto files_of = [](TinyCase& tiny) {
    tiny.dir.Write("model/tokenizer.json", "{}");
    tiny.dir.Write("model/left-over.safetensors", "");
    SkeletonPtr skeleton;
    REQUIRE(tiny.Open(skeleton).ok());
    std::set<std::string> names;
    for (int64_t i = 0; i < autoscheme_skeleton_file_count(skeleton.get()); ++i) {
      const std::filesystem::path file = autoscheme_skeleton_file_at(skeleton.get(), i);
      CHECK(file.parent_path() == tiny.model_dir);
      names.insert(file.filename().string());
    }
    CHECK(autoscheme_skeleton_file_at(skeleton.get(), -1) == nullptr);
    CHECK(autoscheme_skeleton_file_at(skeleton.get(), autoscheme_skeleton_file_count(skeleton.get())) == nullptr);
    return names;
  };
  TinyCase single, sharded(2);
  CHECK(files_of(single) == std::set<std::string>{"config.json", "model.safetensors"});
  CHECK(files_of(sharded) == std::set<std::string>{"config.json", "model.safetensors.index.json",
                                                   "model-00001-of-00002.safetensors",
                                                   "model-00002-of-00002.safetensors"});
  CHECK(autoscheme_skeleton_file_count(nullptr) == 0);
  CHECK(autoscheme_skeleton_file_at(nullptr, 0) == nullptr);
}

autoscheme_tensor_info Tensor(const SkeletonPtr& skeleton, int64_t index) {
  auto tensor = Struct<autoscheme_tensor_info>();
  REQUIRE(autoscheme_skeleton_get_tensor(skeleton.get(), index, &tensor, nullptr) == AUTOSCHEME_OK);
  return tensor;
}

TEST_CASE("a tensor says what it is in the model: its layer, its place in the block, why it is not quantized") {
  TinyCase tiny(2);
  SkeletonPtr skeleton;
  REQUIRE(tiny.Open(skeleton).ok());
  auto block = Struct<autoscheme_block_info>();
  REQUIRE(autoscheme_skeleton_get_block(skeleton.get(), 1, &block, nullptr) == AUTOSCHEME_OK);
  std::vector<std::string> names(9);
  for (int64_t i = block.first_tensor; i < block.first_tensor + block.tensor_count; ++i) {
    const autoscheme_tensor_info tensor = Tensor(skeleton, i);
    REQUIRE(tensor.position < 9);
    names[tensor.position] = std::string(tensor.name).substr(std::string("model.layers.1.").size());
    if (tensor.layer < 0) {
      CHECK(std::string(tensor.reason) == "norm");
      continue;
    }
    CHECK(tensor.reason == nullptr);
    auto layer = Struct<autoscheme_layer_info>();
    REQUIRE(autoscheme_skeleton_get_layer(skeleton.get(), tensor.layer, &layer, nullptr) == AUTOSCHEME_OK);
    CHECK(std::string(layer.name) + ".weight" == tensor.name);
    CHECK(layer.transposed == 0);
    CHECK(layer.reason == nullptr);
  }
  CHECK(names == std::vector<std::string>{"input_layernorm.weight", "self_attn.q_proj.weight",
                                          "self_attn.k_proj.weight", "self_attn.v_proj.weight",
                                          "self_attn.o_proj.weight", "post_attention_layernorm.weight",
                                          "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"});

  const autoscheme_tensor_info embedding = Tensor(skeleton, 18), head = Tensor(skeleton, 19);
  CHECK(std::string(embedding.reason) == "embedding: only with k-quants");
  CHECK(embedding.layer == -1);
  CHECK(std::string(head.reason) == "head: only with quant_lm_head or k-quants");
  CHECK(head.layer == 14);
  REQUIRE(autoscheme_skeleton_shard_count(skeleton.get()) == 2);
  CHECK(std::string(autoscheme_skeleton_shard_at(skeleton.get(), 1)) == "model-00002-of-00002.safetensors");
  CHECK(autoscheme_skeleton_shard_at(skeleton.get(), 2) == nullptr);
  CHECK(autoscheme_skeleton_shard_at(skeleton.get(), -1) == nullptr);
  CHECK(autoscheme_skeleton_shard_count(nullptr) == 0);
  CHECK(autoscheme_skeleton_shard_at(nullptr, 0) == nullptr);
}

TEST_CASE("tensors that the text decoder does not read are the last, transposed layers and tied heads are told") {
  ContextPtr context;
  REQUIRE(Make(context, autoscheme_context_create).ok());
  const auto open = [&](const char* family, SkeletonPtr& skeleton) {
    const std::string model = std::string(AUTOSCHEME_GOLDEN_DIR) + "/families/" + family + "/model";
    REQUIRE(Make(skeleton, [&](auto** out, auto** e) {
              return autoscheme_skeleton_open(context.get(), model.c_str(), out, e);
            }).ok());
    auto info = Struct<autoscheme_skeleton_info>();
    REQUIRE(autoscheme_skeleton_get_info(skeleton.get(), &info, nullptr) == AUTOSCHEME_OK);
    return info;
  };
  SkeletonPtr wrapped, gpt2;
  const autoscheme_skeleton_info info = open("gemma3_wrapped", wrapped);
  REQUIRE(info.untouched_count > 0);
  uint64_t bytes = 0;
  for (int64_t i = 0; i < info.tensor_count; ++i) {
    const autoscheme_tensor_info tensor = Tensor(wrapped, i);
    bytes += tensor.bytes;
    const bool untouched = tensor.reason != nullptr && std::string(tensor.reason).find("untouched") == 0;
    CHECK(untouched == (i >= info.tensor_count - info.untouched_count));
  }
  CHECK(bytes == info.total_bytes);

  const autoscheme_skeleton_info of_gpt2 = open("gpt2", gpt2);
  CHECK(of_gpt2.untouched_count == 0);
  auto layer = Struct<autoscheme_layer_info>();
  REQUIRE(autoscheme_skeleton_get_layer(gpt2.get(), 0, &layer, nullptr) == AUTOSCHEME_OK);
  CHECK(layer.transposed == 1);
  REQUIRE(autoscheme_skeleton_get_layer(gpt2.get(), of_gpt2.layer_count - 1, &layer, nullptr) == AUTOSCHEME_OK);
  CHECK(std::string(layer.reason) == "tied to the embedding");
  CHECK(layer.transposed == 0);
}

TEST_CASE("a preset says which shapes it does not suit") {
  const auto why = [](const char* scheme, int64_t out, int64_t in) {
    const char* text = nullptr;
    REQUIRE(autoscheme_scheme_why_unsuited(scheme, out, in, &text, nullptr) == AUTOSCHEME_OK);
    return std::string(text == nullptr ? "" : text);
  };
  CHECK(why("w4a16", 64, 96).empty());
  CHECK(why("W4A16", 48, 64) == "rows or columns are no multiple of 32");
  CHECK(why("MXFP4", 48, 64).empty());
  CHECK(why("MXFP4", 64, 48) == "groups do not divide the rows");
  CHECK(why("GGUF:Q4_K_S", 64, 256).empty());
  CHECK(why("GGUF:Q4_K_S", 64, 128) == "super-groups do not divide the rows");
  CHECK(why("FP8_BLOCK", 7, 9).empty());
}

TEST_CASE("element types have the names of the file format") {
  CHECK(std::string(autoscheme_dtype_name(AUTOSCHEME_DTYPE_BOOL)) == "BOOL");
  CHECK(std::string(autoscheme_dtype_name(AUTOSCHEME_DTYPE_BF16)) == "BF16");
  CHECK(std::string(autoscheme_dtype_name(AUTOSCHEME_DTYPE_U64)) == "U64");
  CHECK(autoscheme_dtype_name(0) == nullptr);
  CHECK(autoscheme_dtype_name(AUTOSCHEME_DTYPE_U64 + 1) == nullptr);
}

TEST_CASE("result files are looked at before hours of work") {
  TinyCase tiny;
  const std::string out = tiny.dir / "out.json", same = tiny.dir / "model/../out.json",
                    gone = tiny.dir / "gone/out.json";
  const auto check = [&](std::vector<const char*> outputs, std::vector<const char*> inputs) {
    return Call([&](autoscheme_error** e) {
      return autoscheme_check_outputs(tiny.context.get(), outputs.data(), static_cast<int64_t>(outputs.size()),
                                      inputs.data(), static_cast<int64_t>(inputs.size()), e);
    });
  };
  CHECK(check({}, {}).ok());
  CHECK(check({out.c_str()}, {tiny.tokens.c_str()}).ok());
  CHECK_FALSE(std::filesystem::exists(out));
  const Result two = check({out.c_str(), same.c_str()}, {});
  CHECK(two.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_THAT(two.message, Contains("out.json") && Contains("the same file"));
  const Result input = check({tiny.tokens.c_str()}, {tiny.tokens.c_str()});
  CHECK(input.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_THAT(input.message, Contains("overwrite the input") && Contains("tokens.json"));
  CHECK(check({gone.c_str()}, {}).code == AUTOSCHEME_NOT_FOUND);
  CHECK(Call([&](autoscheme_error** e) {
          return autoscheme_check_outputs(tiny.context.get(), nullptr, -1, nullptr, 0, e);
        }).code == AUTOSCHEME_INVALID_ARGUMENT);
}

TEST_CASE("scores, recipes and fronts are saved through links, and a file keeps its mode") {
  TinyCase tiny;
  ScoresPtr scores;
  REQUIRE(tiny.ScoreAll(scores).ok());
  RecipesPtr recipes;
  REQUIRE(Make(recipes, [&](auto** out, auto** e) {
            return autoscheme_scores_select(scores.get(), tiny.options.get(), nullptr, 0, out, e);
          }).ok());
  autoscheme_pareto* pareto = nullptr;
  REQUIRE(autoscheme_scores_pareto(scores.get(), nullptr, &pareto, nullptr) == AUTOSCHEME_OK);
  namespace fs = std::filesystem;
  const std::string file = tiny.dir / "file.json", link = tiny.dir / "link.json";
  fs::create_symlink("file.json", link);
  for (const char* what : {"scores", "recipe", "pareto"}) {
    INFO(what);
    tiny.dir.Write("file.json", "old");
    fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
    const Result saved = Call([&](autoscheme_error** e) {
      if (what[0] == 's') return autoscheme_scores_save(scores.get(), link.c_str(), e);
      if (what[0] == 'r') return autoscheme_recipes_save(recipes.get(), link.c_str(), e);
      return autoscheme_pareto_save(pareto, link.c_str(), e);
    });
    CHECK(saved.ok());
    CHECK(fs::is_symlink(link));
    CHECK(fs::status(file).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
    CHECK_THAT(Slurp(file), Contains(std::string("autoscheme-") + what));
  }
  autoscheme_pareto_free(pareto);
}

TEST_CASE("stored scores are solved again for other budgets without the model") {
  TinyCase tiny;
  ScoresPtr scores, loaded;
  REQUIRE(tiny.ScoreAll(scores).ok());
  const std::string path = tiny.dir / "scores.json";
  REQUIRE(Call([&](autoscheme_error** e) { return autoscheme_scores_save(scores.get(), path.c_str(), e); }).ok());
  CHECK(Slurp(path) == JsonOf(scores));
  std::filesystem::remove_all(tiny.model_dir);
  REQUIRE(Make(loaded, [&](auto** out, auto** e) {
            return autoscheme_scores_load(tiny.context.get(), path.c_str(), out, e);
          }).ok());
  auto info = Struct<autoscheme_scores_info>();
  REQUIRE(autoscheme_scores_get_info(loaded.get(), &info, nullptr) == AUTOSCHEME_OK);
  CHECK(info.layer_count == 14);
  CHECK(info.scheme_count == 2);
  CHECK(info.nsamples == 4);
  CHECK(info.seqlen == 8);
  CHECK(info.batch_size == 2);
  double four = 0, eight = 0, activation = -1;
  REQUIRE(autoscheme_scores_get_loss(loaded.get(), 0, 3, &four, &activation, nullptr) == AUTOSCHEME_OK);
  REQUIRE(autoscheme_scores_get_loss(loaded.get(), 1, 3, &eight, nullptr, nullptr) == AUTOSCHEME_OK);
  CHECK(four > eight);
  CHECK(eight > 0);
  CHECK(activation == 0);
  CHECK(autoscheme_scores_get_loss(loaded.get(), 2, 0, nullptr, nullptr, nullptr) == AUTOSCHEME_OUT_OF_RANGE);
  CHECK(autoscheme_scores_get_loss(loaded.get(), 0, 14, nullptr, nullptr, nullptr) == AUTOSCHEME_OUT_OF_RANGE);

  const double targets[] = {5, 6, 7.5};
  RecipesPtr recipes;
  REQUIRE(Make(recipes, [&](auto** out, auto** e) {
            return autoscheme_scores_select(loaded.get(), nullptr, targets, 3, out, e);
          }).ok());
  REQUIRE(autoscheme_recipes_count(recipes.get()) == 3);
  double loss = 1e300;
  for (int64_t i = 0; i < 3; ++i) {
    auto recipe = Struct<autoscheme_recipe_info>();
    REQUIRE(autoscheme_recipes_get_info(recipes.get(), i, &recipe, nullptr) == AUTOSCHEME_OK);
    CHECK(recipe.target_avg_bits == targets[i]);
    CHECK(recipe.avg_bits <= targets[i]);
    CHECK(recipe.loss < loss);
    loss = recipe.loss;
  }
  const double below[] = {2};
  const Result out_of_reach = Make(
      recipes, [&](auto** out, auto** e) { return autoscheme_scores_select(loaded.get(), nullptr, below, 1, out, e); });
  CHECK(out_of_reach.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(recipes == nullptr);
}

}  // namespace
}  // namespace autoscheme
