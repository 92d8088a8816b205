// Models that a host teaches: aliases as JSON, and descriptions of its own.
#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "autoscheme/meta_skeleton.h"
#include "model/decoder_spec.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

using Catch::Contains;

Json Config(const std::string& type, const std::string& more = "") {
  return ParseJson(R"({"model_type": ")" + type +
                       R"(", "hidden_size": 8, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 16,
                          "num_attention_heads": 2, "rms_norm_eps": 1e-5)" +
                       more + "}",
                   "config.json")
      .value();
}

std::string Refusal(const std::string& aliases) {
  const auto read = ReadAliases(aliases);
  REQUIRE_FALSE(read.ok());
  return read.status().ToString();
}

TEST_CASE("an alias renames keys, sets others and goes to its family") {
  const auto aliases = ReadAliases(R"([{"model_type": "mine", "as": "llama",
      "rename": {"ffn": "mlp_bias", "their_eps": "rms_norm_eps", "absent": "head_dim"},
      "set": {"attention_bias": true, "rms_norm_eps": 0.25, "head_dim": 6, "gone": null}},
      {"model_type": "mine_too", "as": "mine", "set": {"head_dim": 12}}])");
  REQUIRE(aliases.ok());
  const ModelSpec spec = ReadModelSpec(Config("mine", R"(, "ffn": true)"), *aliases).value();
  CHECK(spec.model_type == "mine");
  for (const LinearSpec& linear : spec.blocks[0].linears) CHECK(linear.bias);
  CHECK(spec.blocks[0].sublayers[0].branches[0].before.eps == 0.25);
  CHECK(std::get<Attention>(spec.blocks[0].sublayers[0].branches[0].body).head_dim == 6);

  const ModelSpec next = ReadModelSpec(Config("mine_too"), *aliases).value();
  CHECK(next.model_type == "mine_too");
  CHECK(next.family == "llama");
  // Its own edits come first, so that what it goes to has the last word.
  CHECK(std::get<Attention>(next.blocks[0].sublayers[0].branches[0].body).head_dim == 6);

  const absl::Status both = ReadModelSpec(Config("mine", R"(, "their_eps": 1)"), *aliases).status();
  CHECK(both == absl::InvalidArgumentError(
                    R"(config.json: the alias "mine" renames "their_eps" to "rms_norm_eps", but both are there)"));
  const absl::Status family = ReadModelSpec(Config("mine", R"(, "mlp_bias": 3)"), *aliases).status();
  CHECK_THAT(std::string(family.message()), Contains("as the alias \"mine\" of llama: config.json: \"mlp_bias\""));
}

TEST_CASE("a config that an alias makes null is null, which means no window") {
  const auto aliases = ReadAliases(R"([{"model_type": "none", "as": "mistral", "set": {"sliding_window": null}},
                                       {"model_type": "default", "as": "mistral"}])");
  const auto window = [&](const char* type) {
    const ModelSpec spec = ReadModelSpec(Config(type), *aliases).value();
    return std::get<Attention>(spec.blocks[0].sublayers[0].branches[0].body).window;
  };
  CHECK(window("none") == 0);
  CHECK(window("default") == 4096);
}

TEST_CASE("a family that serves several types keeps the config's") {
  CHECK(ReadModelSpec(Config("ministral"))->model_type == "ministral");
}

TEST_CASE("a key that is null is not in the way of a renamed one, and null takes a key away") {
  const auto aliases = ReadAliases(
      R"({"model_type": "mine", "as": "llama", "rename": {"my_dim": "head_dim"}, "set": {"rms_norm_eps": null}})");
  const ModelSpec spec = ReadModelSpec(Config("mine", R"(, "my_dim": 6, "head_dim": null)"), *aliases).value();
  CHECK(std::get<Attention>(spec.blocks[0].sublayers[0].branches[0].body).head_dim == 6);
  CHECK(spec.blocks[0].sublayers[0].branches[0].before.eps == 1e-6);
}

TEST_CASE("aliases of a multimodal type, of the text inside one, and of a name that is built in") {
  const std::string text = R"("hidden_size": 8, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 16,
                              "num_attention_heads": 2)";
  const auto aliases = ReadAliases(R"([{"model_type": "my_text", "as": "llama", "set": {"attention_bias": true}},
      {"model_type": "my_eyes", "as": "llava"},
      {"model_type": "llama", "as": "llama", "set": {"mlp_bias": true}}])");
  const auto read = [&](const std::string& config) {
    return ReadModelSpec(ParseJson(config, "config.json").value(), *aliases).value();
  };
  const ModelSpec inner = read(R"({"model_type": "my_eyes", "text_config": {"model_type": "my_text", )" + text + "}}");
  CHECK(inner.model_type == "my_eyes");
  CHECK(inner.multimodal);
  CHECK(inner.blocks[0].name == "model.language_model.layers.0");
  CHECK(inner.blocks[0].linears[0].bias);
  CHECK(inner.blocks[0].linears[4].bias == false);  // "my_text" stands before the alias of "llama"
  const std::string plain = R"({"model_type": "my_eyes", "text_config": {)" + text + "}}";
  CHECK(read(plain).blocks[0].linears[0].bias == false);
  CHECK(read(R"({"model_type": "llava", "text_config": {"model_type": "llama", )" + text + "}}")
            .blocks[0]
            .linears[4]
            .bias);
  CHECK(read(R"({"model_type": "llama", )" + text + "}").blocks[0].linears[4].bias);
}

TEST_CASE("aliases that say nothing that can be done are refused") {
  CHECK(Refusal("{\"model_type\": \"x\",\n \"as\" \"llama\"}") ==
        "DATA_LOSS: aliases is not valid JSON: missing a colon after a name of object member at line 2, column 7");
  CHECK(Refusal("[3]") == "INVALID_ARGUMENT: aliases[0]: an alias must be an object");
  CHECK(Refusal(R"({"as": "llama"})") == "INVALID_ARGUMENT: aliases has no model_type");
  CHECK(Refusal(R"({"model_type": "", "as": "llama"})") == "INVALID_ARGUMENT: aliases: model_type is empty");
  CHECK(Refusal(R"([{"model_type": "x"}])") == "INVALID_ARGUMENT: aliases[0] has no as");
  CHECK(Refusal(R"({"model_type": "x", "as": "llama", "with": 1})") ==
        "INVALID_ARGUMENT: aliases: unknown member \"with\"; an alias may have model_type, as, rename, set");
  CHECK_THAT(Refusal(R"({"model_type": "x", "as": "y"})"),
             Contains("aliases: as is \"y\", which is not supported; supported: arcee, ") && Contains(", starcoder2"));
  CHECK_THAT(Refusal(R"({"model_type": "x", "as": "x"})"), Contains("as is \"x\", which is not supported"));
  CHECK_THAT(Refusal(R"([{"model_type": "x", "as": "y"}, {"model_type": "y", "as": "x"}])"),
             Contains("aliases[0]: as"));
  CHECK(Refusal(R"([{"model_type": "x", "as": "llama"}, {"model_type": "x", "as": "phi"}])") ==
        "INVALID_ARGUMENT: aliases[1]: there is a model_type \"x\" already");
  CHECK(Refusal(R"({"model_type": "x", "as": "llama", "rename": {"a": 1}})") ==
        "INVALID_ARGUMENT: aliases: rename gives \"a\" no name: it must be a string");
  CHECK(Refusal(R"({"model_type": "x", "as": "llama", "set": []})") ==
        "INVALID_ARGUMENT: aliases: set must be an object");
  CHECK(Refusal(R"({"model_type": "x", "as": "llama", "set": {"model_type": "phi"}})") ==
        "INVALID_ARGUMENT: aliases: set must leave model_type alone; as gives it");
  std::string many = "[{}";
  for (int i = 0; i < 256; ++i) many += ",{}";
  CHECK(Refusal(many + "]") == "INVALID_ARGUMENT: aliases: there are 257, at most 256 may be");
  CHECK(ReadAliases("[]")->empty());
}

TEST_CASE("aliases of aliases are followed eight deep") {
  const auto chain = [](int length) {
    std::string text = "[";
    for (int i = 0; i < length; ++i) {
      text += (i == 0 ? "" : ", ") + std::string(R"({"model_type": "m)") + std::to_string(i) + R"(", "as": ")" +
              (i == 0 ? "llama" : "m" + std::to_string(i - 1)) + R"("})";
    }
    return text + "]";
  };
  const auto eight = ReadAliases(chain(8));
  REQUIRE(eight.ok());
  CHECK(ReadModelSpec(Config("m7"), *eight).value().blocks.size() == 2);
  CHECK_THAT(Refusal(chain(9)), Contains("aliases[8]: \"m8\" is an alias of an alias 9 times over, at most 8 may be"));
}

TEST_CASE("a host's architecture goes before a built-in one, and an alias can name it") {
  const Architecture own{"llama", [](const Json& config) {
                           DecoderBuilder d(config, "whatever");
                           d.ReadCommonKeys();
                           d.EachBlock("h", [&](BlockBuilder& b, int64_t) {
                             b.Add({}, b.MakeMlp(Activation::kRelu, {"", "fc1", "fc2"}));
                           });
                           return d.Finish();
                         }};
  const std::vector<Architecture> hosts = {own, {"other", own.describe}};
  const ModelSpec spec = ReadModelSpec(Config("llama"), hosts).value();
  CHECK(spec.model_type == "llama");
  CHECK(spec.blocks[1].name == "h.1");
  std::vector<Architecture> all = hosts;
  all.push_back(ReadAliases(R"({"model_type": "third", "as": "other"})", hosts)->front());
  CHECK(ReadModelSpec(Config("third"), all)->blocks[0].name == "h.0");
  CHECK_FALSE(ReadAliases(R"({"model_type": "other", "as": "llama"})", hosts).ok());

  const absl::Status unknown = ReadModelSpec(Config("fourth"), all).status();
  CHECK(absl::IsUnimplemented(unknown));
  CHECK_THAT(std::string(unknown.message()), Contains("\"fourth\" is not supported; supported: arcee") &&
                                                 Contains("other, ") && Contains("third; many new models") &&
                                                 Contains("alias"));
  all.push_back(own);
  CHECK(ReadModelSpec(Config("phi"), all).status() ==
        absl::InvalidArgumentError(
            "Context::architectures: \"llama\" is there twice, or has no function that describes it"));
}

TEST_CASE("an alias of an architecture that nothing describes is refused") {
  const auto aliases = ReadAliases(R"({"model_type": "mine", "as": "empty"})", {{"empty", nullptr}});
  REQUIRE(aliases.ok());
  CHECK(ReadModelSpec(Config("mine"), *aliases).status() ==
        absl::InvalidArgumentError(
            "as the alias \"mine\" of empty: the architecture \"empty\" has no function that describes it"));
}

// What Open says of a folder of "mine" under that description.
absl::Status OpenMine(std::function<absl::StatusOr<ModelSpec>(const Json& config)> describe) {
  const TempDir dir;
  TinyModel tiny;
  tiny.model_type = "mine";
  WriteTinyModel(tiny, dir.path());
  Context context;
  context.architectures =
      std::make_shared<const std::vector<Architecture>>(std::vector<Architecture>{{"mine", std::move(describe)}});
  return MetaSkeleton::Open(context, dir.path()).status();
}

TEST_CASE("a description whose blocks are not below the embedding's prefix lacks its tensors by name") {
  const absl::Status status = OpenMine([](const Json& config) {
    DecoderBuilder d(config, "mine");
    d.ReadCommonKeys();
    d.SetEnds("a.prefix.longer.than.the.names.embed", "lm_head");
    d.EachBlock("h", [&](BlockBuilder& b, int64_t) { b.Add({}, b.MakeMlp(Activation::kRelu, {"", "u", "d"})); });
    return d.Finish();
  });
  CHECK(absl::IsNotFound(status));
  CHECK_THAT(
      std::string(status.message()),
      Contains("5 tensors that config.json asks for are not in the checkpoint: ") && Contains("\"h.0.u.weight\""));
}

TEST_CASE("a host's decoder without heads is refused") {
  const Json config = Config("mine");
  DecoderBuilder d(config, "mine");
  d.hidden = 8, d.heads = 0;
  d.SetHeadDim(0);
  CHECK(d.Finish().status() == absl::InvalidArgumentError("config.json: num_attention_heads is 0, must be positive"));
}

TEST_CASE("a host's description is checked before anything reads it") {
  const absl::Status status = OpenMine([](const Json& config) {
    DecoderBuilder d(config, "mine");
    d.ReadCommonKeys();
    d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
      Mlp mlp;
      mlp.up = 7;
      b.Add({}, mlp);
    });
    return d.Finish();
  });
  CHECK(absl::IsInvalidArgument(status));
  CHECK_THAT(std::string(status.message()), Contains("architecture \"mine\": block \"model.layers.0\": "));
}

}  // namespace
}  // namespace autoscheme
