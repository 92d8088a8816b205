// Which blocks attend to a sliding window, in the spellings of the families.
#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "model/decoder_builder.h"
#include "model/families.h"

namespace autoscheme {
namespace {

using Catch::Contains;
using Windows = std::vector<int64_t>;

Json Config(const std::string& more) {
  return ParseJson(
             R"({"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 3, "vocab_size": 8,
                "num_attention_heads": 2)" +
                 (more.empty() ? "" : ", " + more) + "}",
             "config.json")
      .value();
}

Windows WindowsOf(const ModelSpec& model) {
  Windows windows;
  for (const BlockSpec& block : model.blocks) {
    windows.push_back(std::get<Attention>(block.sublayers[0].branches[0].body).window);
  }
  return windows;
}

absl::StatusOr<Windows> QwenWindows(const std::string& more) {
  const Json config = Config(more);
  const auto model = CreateQwen2(config);
  if (!model.ok()) return model.status();
  return WindowsOf(*model);
}

TEST_CASE("windows: Qwen has one where use_sliding_window says so, 4096 if not mentioned") {
  CHECK(*QwenWindows("") == Windows{0, 0, 0});
  CHECK(*QwenWindows(R"("sliding_window": 7)") == Windows{0, 0, 0});
  CHECK(*QwenWindows(R"("use_sliding_window": true, "sliding_window": 7, "max_window_layers": 1)") == Windows{0, 7, 7});
  CHECK(*QwenWindows(R"("use_sliding_window": true, "max_window_layers": 2)") == Windows{0, 0, 4096});
  CHECK(*QwenWindows(R"("use_sliding_window": true, "sliding_window": null, "max_window_layers": 2)") ==
        Windows{0, 0, 0});
  CHECK(*QwenWindows(R"("use_sliding_window": true, "sliding_window": 7)") == Windows{0, 0, 0});  // from block 28 on
}

TEST_CASE("windows: layer_types goes before max_window_layers, and needs a window that is used") {
  const std::string types = R"("layer_types": ["full_attention", "sliding_attention", "full_attention"])";
  CHECK(*QwenWindows(R"("use_sliding_window": true, "sliding_window": 7, "max_window_layers": 0, )" + types) ==
        Windows{0, 7, 0});
  for (const char* more : {R"("use_sliding_window": false, "sliding_window": 7, )", R"("sliding_window": 7, )",
                           R"("use_sliding_window": true, "sliding_window": null, )"}) {
    const absl::Status status = QwenWindows(more + types).status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Contains("layer_types[1]") && Contains("use_sliding_window"));
  }
  CHECK_THAT(std::string(QwenWindows(R"("layer_types": ["full_attention"])").status().message()),
             Contains("num_hidden_layers (3)"));
  CHECK_THAT(std::string(QwenWindows(R"("use_sliding_window": true, "sliding_window": -7)").status().message()),
             Contains("sliding_window is -7"));
}

Windows MistralWindows(const std::string& more) {
  const auto model = CreateMistral(Config(more));
  INFO(model.status().ToString());
  REQUIRE(model.ok());
  return WindowsOf(*model);
}

TEST_CASE("windows: Mistral has its window in every block, or in those that layer_types names") {
  CHECK(MistralWindows(R"("sliding_window": 7)") == Windows{7, 7, 7});
  CHECK(MistralWindows(R"("sliding_window": null)") == Windows{0, 0, 0});
  CHECK(
      MistralWindows(R"("sliding_window": 7, "layer_types": ["full_attention", "full_attention", "full_attention"])") ==
      Windows{0, 0, 0});
  CHECK(MistralWindows(
            R"("sliding_window": 7, "layer_types": ["full_attention", "full_attention", "sliding_attention"])") ==
        Windows{0, 0, 7});
}

TEST_CASE("windows: a family that reads neither key says so, and the numbers are those without") {
  const std::string types = R"("layer_types": ["full_attention", "sliding_attention", "full_attention"])";
  const std::string full = R"("layer_types": ["full_attention", "full_attention", "full_attention"])";
  for (const auto& [type, more, warning, window] : std::vector<std::tuple<const char*, std::string, const char*, int>>{
           {"llama", R"("sliding_window": 7)", "no \"sliding_window\", ignored", 0},
           {"llama", types, "no \"layer_types\", ignored here as in transformers: every block attends to all", 0},
           {"granite", types + R"(, "sliding_window": 7)", "\"sliding_window\", \"layer_types\", ignored", 0},
           {"phi3", types + R"(, "sliding_window": 7)", "no \"layer_types\", ignored", 7},
           {"phi3", R"("sliding_window": 7)", nullptr, 7},
           {"llama", full, nullptr, 0}}) {
    INFO(type << " " << more);
    const auto model = ReadModelSpec(Config(R"("model_type": ")" + std::string(type) + R"(", )" + more));
    REQUIRE(model.ok());
    CHECK(WindowsOf(*model) == Windows{window, window, window});
    REQUIRE(model->warnings.size() == (warning == nullptr ? 0 : 1));
    if (warning != nullptr) CHECK_THAT(model->warnings[0], Contains(warning));
  }
}

TEST_CASE("windows: a pattern has local blocks, which need a window") {
  const auto gemma3 = [](const std::string& more) { return CreateGemma3(Config(R"("head_dim": 4, )" + more)); };
  CHECK(WindowsOf(gemma3(R"("sliding_window": 7, "sliding_window_pattern": 3)").value()) == Windows{7, 7, 0});
  CHECK_THAT(std::string(gemma3(R"("sliding_window": null)").status().message()),
             Contains("sliding_window is null, but 5 of 6 blocks of a gemma3_text model are local"));
  const std::string types = R"("sliding_window": null, "layer_types": ["full_attention", "full_attention", )";
  CHECK(WindowsOf(gemma3(types + R"("full_attention"])").value()) == Windows{0, 0, 0});
  CHECK_THAT(std::string(gemma3(types + R"("sliding_attention"])").status().message()),
             Contains("layer_types[2] is sliding_attention, but sliding_window is null"));
}

TEST_CASE("windows: EXAONE 4 spells its pattern as a number or as letters, and may have no window") {
  const auto windows = [](const std::string& more) { return WindowsOf(CreateExaone4(Config(more)).value()); };
  CHECK(windows(R"("sliding_window": 7, "sliding_window_pattern": "LG")") == Windows{7, 0, 7});
  CHECK(windows(R"("sliding_window": 7, "sliding_window_pattern": 3)") == Windows{7, 7, 0});
  CHECK(windows(R"("sliding_window": null, "sliding_window_pattern": "LLLG")") == Windows{0, 0, 0});
  CHECK(CreateExaone4(Config(R"("sliding_window": 7, "sliding_window_pattern": "LGL")")).status().code() ==
        absl::StatusCode::kUnimplemented);
}

TEST_CASE("windows: SmolLM3 has them in the layers that do not turn") {
  const auto windows = [](const std::string& more) {
    return WindowsOf(CreateSmolLm3(Config(R"("no_rope_layers": [1, 0, 1], "sliding_window": 7)" + more)).value());
  };
  CHECK(windows(R"(, "use_sliding_window": true)") == Windows{0, 7, 0});
  CHECK(windows("") == Windows{0, 0, 0});
}

TEST_CASE("windows: nested rope_parameters are asked for the types that the blocks have") {
  const std::string nested = R"(, "rope_parameters": {"full_attention": {"rope_theta": 1e6}})";
  CHECK(CreateMistral(Config(R"("sliding_window": null)" + nested)).ok());
  const absl::Status status = CreateMistral(Config(R"("sliding_window": 7)" + nested)).status();
  CHECK_THAT(std::string(status.message()), Contains("rope_parameters") && Contains("sliding_attention"));
}

}  // namespace
}  // namespace autoscheme
