// A model that its host describes gets the scores of the built-in family that it is.
#include "autoscheme/architecture.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "autoscheme/scheme_generator.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

Context Teaching(std::vector<Architecture> architectures) {
  Context context;
  context.architectures = std::make_shared<const std::vector<Architecture>>(std::move(architectures));
  return context;
}

ScoreTable Score(const Context& context, const std::string& dir) {
  const auto skeleton = MetaSkeleton::Open(context, dir);
  INFO(skeleton.status().ToString());
  REQUIRE(skeleton.ok());
  TempDir scratch;
  const Calibration calibration = ReadCalibration({}, scratch.Write("t.json", TinyTokens(5, 12, 64))).value();
  Options options;
  options.schemes = ParseSchemeList("W2A16G32,MXFP8").value();
  options.batch_size = 2;
  const auto generator = SchemeGenerator::Create(context, **skeleton, options).value();
  return generator->Score(calibration).value();
}

void CheckSameBits(const ScoreTable& a, const ScoreTable& b) {
  REQUIRE(a.layers.size() == b.layers.size());
  CHECK(a.ce_loss == b.ce_loss);
  for (size_t s = 0; s < a.scores.size(); ++s) {
    for (size_t l = 0; l < a.layers.size(); ++l) {
      INFO(a.schemes[s].name << " " << a.layers[l].name);
      CHECK(a.layers[l].name == b.layers[l].name);
      CHECK(a.scores[s][l].weight == b.scores[s][l].weight);
      CHECK(a.scores[s][l].activation == b.scores[s][l].activation);
    }
  }
}

TinyModel Qwen() {
  TinyModel model;
  model.model_type = "qwen3", model.hidden = 64, model.intermediate = 96, model.heads = 4, model.kv_heads = 2;
  return model;
}

TEST_CASE("a host's description of a model gives the bits of the built-in one") {
  TempDir plain, mine;
  WriteTinyModel(Qwen(), plain.path()), WriteTinyModel(Qwen(), mine.path());
  mine.Write("config.json", Replaced(TinyConfig(Qwen()), "\"qwen3\"", "\"mine\""));
  const Architecture architecture{"mine", [](const Json& config) {
                                    DecoderBuilder d(config, "mine");
                                    d.ReadCommonKeys();
                                    d.ReadTie(false);
                                    const NormStyle rms = d.Rms();
                                    d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
                                      Attention attention = b.MakeAttention();
                                      attention.rotary = d.MakeRotary({});
                                      attention.q_norm = b.MakeNorm(rms, "self_attn.q_norm", {d.head_dim});
                                      attention.k_norm = b.MakeNorm(rms, "self_attn.k_norm", {d.head_dim});
                                      b.Add(b.MakeNorm(rms, "input_layernorm"), attention);
                                      b.Add(b.MakeNorm(rms, "post_attention_layernorm"), b.MakeMlp(Activation::kSilu));
                                    });
                                    d.FinalNorm(rms, "model.norm");
                                    return d.Finish();
                                  }};
  const ScoreTable taught = Score(Teaching({architecture}), mine.path());
  CHECK(taught.model_type == "mine");
  CheckSameBits(taught, Score({}, plain.path()));
}

TEST_CASE("an alias that renames and sets keys gives the bits of the family that it names") {
  TempDir plain, mine;
  WriteTinyModel(Qwen(), plain.path()), WriteTinyModel(Qwen(), mine.path());
  std::string config = Replaced(TinyConfig(Qwen()), "\"qwen3\"", "\"mine\"");
  config = Replaced(Replaced(config, "\"hidden_size\"", "\"n_embd\""), "\"rms_norm_eps\": 1e-05", "\"eps\": 1");
  mine.Write("config.json", config);
  const auto aliases = ReadAliases(R"({"model_type": "mine", "as": "qwen3", "rename": {"n_embd": "hidden_size"},
                                       "set": {"rms_norm_eps": 1e-5}})");
  REQUIRE(aliases.ok());
  CheckSameBits(Score(Teaching(*aliases), mine.path()), Score({}, plain.path()));
}

TEST_CASE("a model that no built-in family is scores by its host's description") {
  TempDir dir;
  TinyModel tiny = Qwen();
  tiny.model_type = "sideways";
  std::vector<RawTensor> tensors;
  for (RawTensor& tensor : MakeTinyTensors(tiny)) {
    const bool gone = tensor.name.find("gate_proj") != std::string::npos ||
                      tensor.name.find("post_attention_layernorm") != std::string::npos;
    if (!gone) tensors.push_back(std::move(tensor));
  }
  WriteTinyWeights(tensors, 1, dir.path());
  dir.Write("config.json", TinyConfig(tiny));
  const Architecture architecture{
      "sideways", [](const Json& config) {
        DecoderBuilder d(config, "sideways");
        d.ReadCommonKeys();
        d.EachBlock("model.layers", [&](BlockBuilder& b, int64_t) {
          Attention attention = b.MakeAttention();
          attention.rotary = d.MakeRotary({});
          const Mlp mlp = b.MakeMlp(Activation::kSquaredRelu, {"", "mlp.up_proj", "mlp.down_proj"});
          const Norm before = b.MakeNorm(d.Rms(), "input_layernorm");
          b.AddParallel({{before, attention, {}}, {before, mlp, {}}});
        });
        d.FinalNorm(d.Rms(), "model.norm");
        return d.Finish();
      }};
  const ScoreTable table = Score(Teaching({architecture}), dir.path());
  REQUIRE(table.layers.size() == 12);
  for (size_t l = 0; l < 12; ++l) {
    CHECK(std::isfinite(table.scores[0][l].weight));
    CHECK(table.scores[0][l].weight > 0);
  }
}

}  // namespace
}  // namespace autoscheme
