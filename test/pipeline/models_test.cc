// Models of every shape that the families allow, through scoring and selection.
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <memory>
#include <string>

#include "autoscheme/scheme_generator.h"
#include "support/imatrix_writer.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

struct Scored {
  ScoreTable table;
  RunStats stats;
};

// 5 rows of 12 tokens in batches of 2: the last batch is short.
Scored Score(const std::string& dir, Options options = {}, const Calibration* tokens = nullptr) {
  const auto skeleton = MetaSkeleton::Open({}, dir).value();
  TempDir scratch;
  const Calibration calibration =
      tokens != nullptr
          ? *tokens
          : ReadCalibration({}, scratch.Write("t.json", TinyTokens(5, 12, skeleton->vocab_size()))).value();
  if (options.schemes.empty()) options.schemes = ParseSchemeList("W2A16G32,W4A16,MXFP8").value();
  options.batch_size = 2;
  const auto generator = SchemeGenerator::Create({}, *skeleton, options).value();
  Scored scored{generator->Score(calibration).value(), {}};
  scored.stats = generator->stats();
  return scored;
}

void CheckSound(const Scored& scored, size_t layers) {
  REQUIRE(scored.table.layers.size() == layers);
  CHECK(scored.stats.read_bytes == scored.stats.planned_read_bytes);
  for (size_t s = 0; s < scored.table.schemes.size(); ++s) {
    for (size_t l = 0; l < layers; ++l) {
      INFO(scored.table.schemes[s].name << " " << scored.table.layers[l].name);
      if (scored.table.layers[l].fixed.has_value()) continue;
      CHECK(std::isfinite(scored.table.scores[s][l].weight));
      CHECK(scored.table.scores[s][l].weight > 0);
      CHECK((scored.table.scores[s][l].activation > 0) == scored.table.schemes[s].QuantizesActivation());
    }
  }
  SelectOptions select;
  select.avg_bits = {6.0};
  const auto recipes = SelectRecipes(scored.table, select);
  INFO(recipes.status().ToString());
  REQUIRE(recipes.ok());
  CHECK((*recipes)[0].avg_bits <= 6.0);
}

bool SameScores(const ScoreTable& a, const ScoreTable& b) {
  for (size_t s = 0; s < a.scores.size(); ++s) {
    for (size_t l = 0; l < a.layers.size(); ++l) {
      if (a.scores[s][l].weight != Approx(b.scores[s][l].weight).epsilon(1e-6)) return false;
      if (a.scores[s][l].activation != Approx(b.scores[s][l].activation).epsilon(1e-6)) return false;
    }
  }
  return true;
}

TinyModel Divisible() {
  TinyModel model;
  model.hidden = 64, model.intermediate = 96, model.heads = 2, model.kv_heads = 1;
  return model;
}

TEST_CASE("mixed precision runs the float32 network, and its scores stay within one percent") {
  TempDir dir;
  WriteTinyModel(Divisible(), dir.path());
  Options options;
  options.quant_lm_head = true;
  const ScoreTable wide = Score(dir.path(), options).table;
  options.dtype = "mixed";
  const ScoreTable mixed = Score(dir.path(), options).table;
  CHECK(mixed.dtype == "mixed");
  CHECK(mixed.ce_loss == wide.ce_loss);  // no rounded operand takes part in the forward pass
  bool rounded = false;
  for (size_t s = 0; s < wide.scores.size(); ++s) {
    for (size_t l = 0; l < wide.layers.size(); ++l) {
      INFO(wide.schemes[s].name << " " << wide.layers[l].name);
      CHECK(mixed.scores[s][l].weight == Approx(wide.scores[s][l].weight).epsilon(0.01));
      CHECK(mixed.scores[s][l].activation == Approx(wide.scores[s][l].activation).epsilon(0.01));
      rounded = rounded || mixed.scores[s][l].weight != wide.scores[s][l].weight;
    }
  }
  CHECK(rounded);
}

TEST_CASE("auto names what it computed in, and an unknown format is refused with the known ones") {
  TempDir dir;
  WriteTinyModel(Divisible(), dir.path());
  Options options;
  options.dtype = "auto";
  const std::string dtype = Score(dir.path(), options).table.dtype;
  CHECK((dtype == "mixed" || dtype == "float32"));
  options.dtype = "float16";
  const auto skeleton = MetaSkeleton::Open({}, dir.path()).value();
  options.schemes = ParseSchemeList("W4A16").value();
  const absl::Status status = SchemeGenerator::Create({}, *skeleton, options).status();
  CHECK(absl::IsInvalidArgument(status));
  CHECK(status.message() == "option dtype is \"float16\"; known: default, float32, tf32, bfloat16, mixed, auto");
}

TEST_CASE("every family scores, tied and untied") {
  for (const char* type : {"llama", "mistral", "qwen2", "qwen3"}) {
    for (const bool tied : {false, true}) {
      INFO(type << (tied ? ", tied" : ""));
      TempDir dir;
      TinyModel model = Divisible();
      model.model_type = type, model.tied = tied;
      if (std::string(type) == "mistral") model.sliding_window = 5;
      WriteTinyModel(model, dir.path());
      CheckSound(Score(dir.path()), 14);
    }
  }
}

TEST_CASE("a head that differs from the embedding it should be tied to counts, and so do rotary frequencies") {
  TempDir dir, untied;
  TinyModel model = Divisible();
  model.std_dev = 0.3;
  WriteTinyModel(model, untied.path());
  const double loss = Score(untied.path()).table.ce_loss[0][0];
  const auto loss_with = [&](bool tied, const std::string& more) {
    WriteTinyWeights(MakeTinyTensors(model), 1, dir.path());
    TinyModel said = model;
    said.tied = tied, said.extra_config = more;
    std::ofstream(dir / "config.json") << TinyConfig(said);
    return Score(dir.path()).table.ce_loss[0][0];
  };
  CHECK(loss_with(true, "") == loss);
  const double linear = loss_with(false, R"("rope_scaling": {"type": "linear", "factor": 4.0})");
  CHECK(linear != loss);
  CHECK(loss_with(false,
                  R"("rope_scaling": {"type": "linear", "factor": 4.0}, "rope_parameters": {"rope_theta": 1e6})") ==
        linear);
  const double theta = loss_with(false, R"("rope_parameters": {"rope_theta": 100.0})");
  CHECK(theta != loss);
  CHECK(theta != linear);
  CHECK(loss_with(false, R"("rope_parameters": {"full_attention": {"rope_theta": 100.0, "rope_type": "default"}})") ==
        theta);
}

TEST_CASE("a sharded checkpoint scores as the whole one") {
  TempDir whole, sharded;
  TinyModel model = Divisible();
  WriteTinyModel(model, whole.path());
  model.shards = 4;
  WriteTinyModel(model, sharded.path());
  CHECK(SameScores(Score(whole.path()).table, Score(sharded.path()).table));
}

TEST_CASE("a tensor of zero bytes is no obstacle") {
  TempDir plain, odd;
  TinyModel model = Divisible();
  WriteTinyModel(model, plain.path());
  model.zero_byte_tensor = true;
  WriteTinyModel(model, odd.path());
  CHECK(SameScores(Score(plain.path()).table, Score(odd.path()).table));
}

TEST_CASE("a model of one block scores") {
  TempDir dir;
  TinyModel model = Divisible();
  model.blocks = 1;
  WriteTinyModel(model, dir.path());
  CheckSound(Score(dir.path()), 7);
}

TEST_CASE("float32 and float16 checkpoints score near the bfloat16 one of the same seed") {
  TempDir bf16, f32, f16;
  TinyModel model = Divisible();
  WriteTinyModel(model, bf16.path());
  model.dtype = "F32";
  WriteTinyModel(model, f32.path());
  model.dtype = "F16";
  WriteTinyModel(model, f16.path());
  Options options;
  options.schemes = ParseSchemeList("W4A16").value();
  const ScoreTable a = Score(bf16.path(), options).table, b = Score(f32.path(), options).table,
                   c = Score(f16.path(), options).table;
  for (size_t l = 0; l < a.layers.size(); ++l) {
    CHECK(a.scores[0][l].weight == Approx(b.scores[0][l].weight).epsilon(0.1));
    CHECK(c.scores[0][l].weight == Approx(b.scores[0][l].weight).epsilon(0.05));
  }
}

TEST_CASE("a scored head is read once more and gets both terms") {
  TempDir dir;
  WriteTinyModel(Divisible(), dir.path());
  Options options;
  options.quant_lm_head = true;
  const Scored scored = Score(dir.path(), options);
  CheckSound(scored, 15);
  CHECK(scored.table.layers.back().is_head);
  const Scored without = Score(dir.path());
  const auto skeleton = MetaSkeleton::Open({}, dir.path()).value();
  CHECK(scored.stats.read_bytes == without.stats.read_bytes + skeleton->head().weight->bytes);
}

TEST_CASE("k-quants collect an importance matrix in the same sweep and read nothing more") {
  TempDir dir;
  TinyModel model;
  model.hidden = 256, model.intermediate = 512, model.heads = 4, model.kv_heads = 2, model.blocks = 1, model.vocab = 64;
  WriteTinyModel(model, dir.path());
  Options options;
  options.schemes = ParseSchemeList("GGUF:Q4_K_S,GGUF:Q2_K_S").value();
  const Scored scored = Score(dir.path(), options);
  uint64_t blocks = 0;
  const auto skeleton = MetaSkeleton::Open({}, dir.path()).value();
  for (const Block& block : skeleton->blocks()) blocks += block.bytes;
  CHECK(scored.stats.read_bytes == scored.stats.planned_read_bytes);
  CHECK(scored.stats.read_bytes < 3 * blocks);
  for (size_t l = 0; l < scored.table.layers.size(); ++l) {
    if (scored.table.layers[l].is_embedding) continue;
    CHECK(scored.table.scores[1][l].weight > scored.table.scores[0][l].weight);
  }
}

TEST_CASE("layers that k-quants cannot hold are scored under what stands in for them") {
  TempDir dir;
  TinyModel model;
  model.blocks = 2, model.hidden = 96, model.intermediate = 160, model.heads = 3, model.kv_heads = 1;
  model.tied = true;  // else k-quants score the head too
  WriteTinyModel(model, dir.path());
  Options options;
  options.schemes = ParseSchemeList("GGUF:Q4_K_S,GGUF:Q6_K,GGUF:Q3_K_S").value();
  const Scored replaced = Score(dir.path(), options);
  options.schemes = ParseSchemeList("GGUF:Q4_1,GGUF:Q8_0,GGUF:Q5_0").value();
  const Scored plain = Score(dir.path(), options);
  int compared = 0;
  for (size_t l = 0; l < replaced.table.layers.size(); ++l) {
    const LayerInfo& layer = replaced.table.layers[l];
    if (layer.is_embedding) continue;
    REQUIRE(!layer.is_head);
    const auto same = std::find_if(plain.table.layers.begin(), plain.table.layers.end(),
                                   [&](const LayerInfo& p) { return p.name == layer.name; });
    REQUIRE(same != plain.table.layers.end());
    const size_t p = static_cast<size_t>(same - plain.table.layers.begin());
    for (size_t s = 0; s < 3; ++s) {
      INFO(layer.name << " under " << replaced.table.schemes[s].name);
      CHECK(replaced.table.scores[s][l].stand_in);
      CHECK(!plain.table.scores[s][p].stand_in);
      CHECK(replaced.table.scores[s][l].weight > 0);
      CHECK(replaced.table.scores[s][l].weight == plain.table.scores[s][p].weight);
      ++compared;
    }
  }
  CHECK(compared == 2 * 7 * 3);
  // Nothing is searched, so no importance matrix is collected: no further pass, and not a byte more of the blocks.
  uint64_t blocks = 0;
  const auto skeleton = MetaSkeleton::Open({}, dir.path()).value();
  for (const Block& block : skeleton->blocks()) blocks += block.bytes;
  CHECK(replaced.stats.read_bytes == replaced.stats.planned_read_bytes);
  CHECK(replaced.stats.product_flops < 1.2 * plain.stats.product_flops);
  // As the reference does: k-quants themselves.
  options.schemes = ParseSchemeList("GGUF:Q4_K_S,GGUF:Q6_K,GGUF:Q3_K_S").value();
  options.reference_rules = true;
  const Scored reference = Score(dir.path(), options);
  CHECK(!reference.table.scores[0][1].stand_in);
  CHECK(reference.table.scores[0][1].weight != replaced.table.scores[0][1].weight);
}

TEST_CASE("an importance matrix from a file replaces the collected one") {
  TempDir dir;
  TinyModel model;
  model.blocks = 1, model.hidden = 256, model.intermediate = 256;
  WriteTinyModel(model, dir.path());
  // Channels of very different weight: what the search does depends on them, but not on their scale.
  ImatrixRows rows, scaled, uniform;
  for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
    std::vector<float> values, larger;
    for (int i = 0; i < 256; ++i) {
      values.push_back(static_cast<float>(1 << (i % 12)));
      larger.push_back(values.back() * 1024);
    }
    rows.emplace_back(std::string("blk.0.") + name + ".weight", values);
    scaled.emplace_back(rows.back().first, larger);
    uniform.emplace_back(rows.back().first, std::vector<float>(256, 1.0f));
  }
  Options options;
  options.schemes = ParseSchemeList("GGUF:Q4_K_S").value();
  const Scored collected = Score(dir.path(), options);
  options.imatrix_file = dir.Write("a.gguf", GgufImatrix(rows));
  const Scored given = Score(dir.path(), options);
  options.imatrix_file = dir.Write("a.dat", LegacyImatrix(scaled));
  const Scored from_legacy = Score(dir.path(), options);
  options.imatrix_file = dir.Write("u.dat", LegacyImatrix(uniform));
  const Scored without_weights = Score(dir.path(), options);
  CHECK(SameScores(given.table, from_legacy.table));
  // Beyond what products of two sums can be in float32, above and below; of one layer, and of all.
  for (const int exponent : {60, 108, -60, -100}) {
    for (const bool all : {false, true}) {
      CAPTURE(exponent, all);
      ImatrixRows huge = rows;
      for (size_t i = all ? 0 : huge.size() - 1; i < huge.size(); ++i) {
        for (float& value : huge[i].second) value = std::ldexp(value, exponent);
      }
      options.imatrix_file = dir.Write("h.gguf", GgufImatrix(huge));
      CHECK(SameScores(given.table, Score(dir.path(), options).table));
    }
  }
  CHECK_FALSE(SameScores(given.table, collected.table));
  CHECK_FALSE(SameScores(given.table, without_weights.table));
  CHECK(given.stats.read_bytes == collected.stats.read_bytes);

  const auto skeleton = MetaSkeleton::Open({}, dir.path()).value();
  std::vector<std::string> warnings;
  Context context;
  context.log = [&](LogLevel, absl::string_view text) { warnings.emplace_back(text); };
  const auto warned = [&](const std::string& schemes, const ImatrixRows& of) {
    warnings.clear();
    Options with = options;
    with.schemes = ParseSchemeList(schemes).value();
    with.imatrix_file = dir.Write("w.gguf", GgufImatrix(of));
    CHECK(SchemeGenerator::Create(context, *skeleton, with).ok());
    return warnings.empty() ? "" : warnings[0];
  };
  CHECK(warned("GGUF:Q4_K_S", rows) == "");
  CHECK_THAT(warned("W4A16", rows), Catch::Contains("w.gguf") && Catch::Contains("is not used"));
  ImatrixRows larger = rows;
  larger.emplace_back("blk.1.attn_q.weight", std::vector<float>(256, 1.0f));
  larger.emplace_back("blk.2.attn_q.weight", std::vector<float>(512, 1.0f));
  CHECK_THAT(warned("GGUF:Q4_K_S", larger),
             Catch::Contains("2 tensors") && Catch::Contains("blk.1.attn_q.weight") && Catch::Contains("1 blocks"));
  rows[2].second.pop_back();
  options.imatrix_file = dir.Write("narrow.gguf", GgufImatrix(rows));
  absl::Status status = SchemeGenerator::Create({}, *skeleton, options).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()),
             Catch::Contains("255") && Catch::Contains("256") && Catch::Contains("v_proj"));
  options.imatrix_file = dir.Write("other.gguf", GgufImatrix({{"blk.77.attn_q.weight", {1}}}));
  status = SchemeGenerator::Create({}, *skeleton, options).status();
  CHECK_THAT(std::string(status.message()), Catch::Contains("blk.77.attn_q.weight"));
}

TEST_CASE("an importance matrix that no layer is searched with is said to be unused") {
  TempDir dir;
  TinyModel model;
  model.blocks = 1, model.hidden = 96, model.intermediate = 160, model.heads = 3, model.kv_heads = 1;
  model.tied = true;
  WriteTinyModel(model, dir.path());
  std::string warnings;
  Context context;
  context.log = [&](LogLevel, absl::string_view text) { warnings += std::string(text) + "\n"; };
  Options options;
  options.schemes = ParseSchemeList("GGUF:Q4_K_S").value();
  options.imatrix_file = dir.Write("a.gguf", GgufImatrix({{"blk.0.attn_q.weight", std::vector<float>(96, 1.0f)}}));
  const auto skeleton = MetaSkeleton::Open({}, dir.path()).value();
  REQUIRE(SchemeGenerator::Create(context, *skeleton, options).ok());
  CHECK_THAT(warnings, Catch::Contains("is not used: no layer that is scored has rows of a multiple of 256 weights"));
  warnings.clear();
  options.reference_rules = true;
  REQUIRE(SchemeGenerator::Create(context, *skeleton, options).ok());
  CHECK_THAT(warnings, !Catch::Contains("is not used"));
}

TEST_CASE("a scheme with a scale for the whole tensor scores the head too") {
  TempDir dir;
  WriteTinyModel(Divisible(), dir.path());
  Options options;
  options.quant_lm_head = true;
  options.schemes = ParseSchemeList("NVFP4").value();
  const Scored scored = Score(dir.path(), options);
  CHECK(scored.stats.read_bytes == scored.stats.planned_read_bytes);
  CHECK(scored.table.scores[0].back().weight > 0);
  CHECK(scored.table.scores[0].back().activation > 0);
}

}  // namespace
}  // namespace autoscheme
