// Which blocks attend to a sliding window, in the spellings of the families.
#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <string>
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

TEST_CASE("windows: nested rope_parameters are asked for the types that the blocks have") {
  const std::string nested = R"(, "rope_parameters": {"full_attention": {"rope_theta": 1e6}})";
  CHECK(CreateMistral(Config(R"("sliding_window": null)" + nested)).ok());
  const absl::Status status = CreateMistral(Config(R"("sliding_window": 7)" + nested)).status();
  CHECK_THAT(std::string(status.message()), Contains("rope_parameters") && Contains("sliding_attention"));
}

}  // namespace
}  // namespace autoscheme
