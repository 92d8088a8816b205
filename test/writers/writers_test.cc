// scores.json and recipe.json: exact bytes, exact round trips, hostile input.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "autoscheme/recipe.h"
#include "base/json.h"
#include "formats/scheme_json.h"
#include "support/fault_io.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

ScoreTable Table() {
  ScoreTable table;
  table.model = "models/tiny";
  table.model_type = "llama";
  table.fingerprint = "00ff";
  table.tied_head = true;
  table.nsamples = 4;
  table.seqlen = 32;
  table.batch_size = 2;
  table.calibration_sha256 = "abcd";
  table.dtype = "float32";
  table.scorer = "fisher";
  table.schemes = ParseSchemeList("W4A16,MXFP4").value();
  LayerInfo q{"model.layers.0.q_proj", 64, 128, 0, false, false, std::nullopt};
  LayerInfo up{"model.layers.0.up_proj", 128, 64, 0, false, false, std::nullopt};
  up.fixed = FindScheme("W8A16").value();
  LayerInfo head{"lm_head", 320, 64, -1, true, false, std::nullopt};
  table.layers = {q, up, head};
  table.scores = {{{0.1, 0}, {0, 0}, {1e-300, 0}}, {{1.0 / 3, 2.5}, {0, 0}, {123456789.125, 5e-324}}};
  table.scores[0][0].standard_error = 0.025;
  table.ce_loss = {{2.25, 2.5}, {3.0}};
  return table;
}

bool Same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

void CheckEqual(const ScoreTable& a, const ScoreTable& b) {
  CHECK(a.model == b.model);
  CHECK(a.model_type == b.model_type);
  CHECK(a.fingerprint == b.fingerprint);
  CHECK(a.tied_head == b.tied_head);
  CHECK(a.nsamples == b.nsamples);
  CHECK(a.seqlen == b.seqlen);
  CHECK(a.batch_size == b.batch_size);
  CHECK(a.calibration_sha256 == b.calibration_sha256);
  CHECK(a.dtype == b.dtype);
  CHECK(a.scorer == b.scorer);
  CHECK(a.ce_loss == b.ce_loss);
  REQUIRE(a.schemes.size() == b.schemes.size());
  for (size_t s = 0; s < a.schemes.size(); ++s) {
    CHECK(a.schemes[s].name == b.schemes[s].name);
    CHECK(SchemeToJson(a.schemes[s]) == SchemeToJson(b.schemes[s]));
  }
  REQUIRE(a.layers.size() == b.layers.size());
  for (size_t l = 0; l < a.layers.size(); ++l) {
    const LayerInfo &x = a.layers[l], &y = b.layers[l];
    CHECK(x.name == y.name);
    CHECK(x.out_features == y.out_features);
    CHECK(x.in_features == y.in_features);
    CHECK(x.block == y.block);
    CHECK(x.is_head == y.is_head);
    CHECK(x.is_embedding == y.is_embedding);
    REQUIRE(x.fixed.has_value() == y.fixed.has_value());
    if (x.fixed.has_value()) {
      CHECK(x.fixed->name == y.fixed->name);
      CHECK(SchemeToJson(*x.fixed) == SchemeToJson(*y.fixed));
    }
    for (size_t s = 0; s < a.schemes.size(); ++s) {
      CHECK(Same(a.scores[s][l].weight, b.scores[s][l].weight));
      CHECK(Same(a.scores[s][l].activation, b.scores[s][l].activation));
    }
  }
}

TEST_CASE("scores.json has exactly these bytes") {
  CHECK(ScoresToJson(Table()) ==
        R"json({
  "format": "autoscheme-scores",
  "version": 1,
  "model": {
    "name": "models/tiny",
    "model_type": "llama",
    "fingerprint": "00ff",
    "tied_head": true,
    "layers": {
      "model.layers.0.q_proj": {"shape":[64,128],"block":0},
      "model.layers.0.up_proj": {"shape":[128,64],"block":0,"fixed":)json"
        R"json({"name":"W8A16","bits":8,"group_size":128,"sym":true,"data_type":"int","act_bits":16}},
      "lm_head": {"shape":[320,64],"head":true}
    }
  },
  "calibration": {
    "nsamples": 4,
    "seqlen": 32,
    "batch_size": 2,
    "sha256": "abcd"
  },
  "dtype": "float32",
  "scorer": "fisher",
  "menu": {
    "W4A16": {"bits":4,"group_size":128,"sym":true,"data_type":"int","act_bits":16},
    "MXFP4": {"bits":4,"group_size":32,"sym":true,"data_type":"mx_fp","act_bits":4,)json"
        R"json("act_group_size":32,"act_sym":true,"act_data_type":"mx_fp","act_dynamic":true}
  },
  "ce_loss": {
    "W4A16": [2.25,2.5],
    "MXFP4": [3]
  },
  "schemes": {
    "W4A16": {
      "model.layers.0.q_proj": {"bits":34048,"loss":0.1,"weight":0.1,"activation":0,"standard_error":0.025},
      "lm_head": {"bits":88320,"loss":1e-300,"weight":1e-300,"activation":0}
    },
    "MXFP4": {
      "model.layers.0.q_proj": {"bits":34816,"loss":2.8333333333333335,"weight":0.3333333333333333,"activation":2.5},
      "lm_head": {"bits":87040,"loss":123456789.125,"weight":123456789.125,"activation":5e-324}
    }
  }
}
)json");
}

TEST_CASE("a score that was measured with a stand-in says so, with the stand-in's bits") {
  ScoreTable table = Table();
  table.schemes[0] = FindScheme("GGUF:Q4_K_S").value();
  table.layers[0].in_features = 96;
  table.scores[0][0].stand_in = true;
  const std::string json = ScoresToJson(table);
  // 64 x 96 weights of Q4_1: 4.625 bits each, by AutoRound's accounting.
  CHECK(json.find("\"model.layers.0.q_proj\": {\"stand_in\":\"GGUF:Q4_1\",\"bits\":28416,") != std::string::npos);
  TempDir dir;
  const auto read = ReadScores({}, dir.Write("scores.json", json));
  INFO(read.status());
  REQUIRE(read.ok());
  CHECK(read->scores[0][0].stand_in);
  CHECK(!read->scores[1][0].stand_in);
  const auto refused = [&](const char* from, const char* to) {
    std::string other = json;
    other.replace(other.find(from), std::string(from).size(), to);
    return std::string(ReadScores({}, dir.Write("other.json", other)).status().message());
  };
  CHECK(refused("GGUF:Q4_1", "GGUF:Q5_1")
            .find("stand_in is \"GGUF:Q5_1\"; for this scheme and shape it is \"GGUF:Q4_1\"") != std::string::npos);
  CHECK(refused("\"bits\":28416", "\"bits\":28417").find("bits is 28417; shape and scheme make 28416") !=
        std::string::npos);
  CHECK(refused("\"bits\":26112", "\"stand_in\":\"GGUF:Q4_1\",\"bits\":26112").find("it is none") != std::string::npos);
}

TEST_CASE("a score table survives being written and read, to the last bit") {
  ScoreTable table = Table();
  table.model = "odd \"name\"\\with\n\x01\xC3\xA9";
  table.layers[0].name = "model.\"layers\".0\\q/\t\xE2\x82\xAC";
  table.layers[2].is_embedding = true;
  table.scores[0][0].weight = kNan;
  table.scores[0][2].activation = kInfinity;
  table.schemes[1].name = "my scheme";
  table.schemes[1].act_group = GroupSize{16, 0};
  TempDir dir;
  const std::string path = dir / "scores.json";
  REQUIRE(WriteScores({}, table, path).ok());
  CHECK(dir.List() == std::vector<std::string>{"scores.json"});
  const auto read = ReadScores({}, path);
  INFO(read.status());
  REQUIRE(read.ok());
  CheckEqual(table, *read);
  CHECK(ScoresToJson(*read) == ScoresToJson(table));
}

TEST_CASE("what the run has cost is the last member, and survives too") {
  ScoreTable table = Table();
  const std::string plain = ScoresToJson(table);
  RunStats run;
  run.planned_peak_bytes = 300, run.peak_rss_bytes = 290, run.rss_anon_bytes = 200, run.rss_file_bytes = 90;
  run.planned_vram_bytes = 80, run.peak_vram_bytes = 70;
  run.planned_read_bytes = 1000, run.read_bytes = 1000, run.disk_read_bytes = 4096, run.read_call_bytes = 1200;
  run.io_engine = IoEngine::kDirect, run.spill_bytes = 64;
  run.total_s = 8, run.forward_s = 2, run.head_s = 1, run.backward_s = 4.5, run.stall_s = 0.5, run.product_s = 6;
  run.product_flops = 1.5e9;
  table.run = run;
  const std::string json = ScoresToJson(table);
  CHECK(json == plain.substr(0, plain.size() - 3) + R"json(,
  "run": {
    "io_engine": "direct",
    "planned_peak_bytes": 300,
    "peak_rss_bytes": 290,
    "planned_vram_bytes": 80,
    "peak_vram_bytes": 70,
    "rss_anon_bytes": 200,
    "rss_file_bytes": 90,
    "planned_read_bytes": 1000,
    "read_bytes": 1000,
    "disk_read_bytes": 4096,
    "read_call_bytes": 1200,
    "spill_bytes": 64,
    "total_s": 8,
    "forward_s": 2,
    "head_s": 1,
    "backward_s": 4.5,
    "stall_s": 0.5,
    "product_s": 6,
    "product_flops": 1.5e+09,
    "product_share": 0.75,
    "stall_share": 0.0625
  }
}
)json");
  TempDir dir;
  const auto read = ReadScores({}, dir.Write("scores.json", json));
  INFO(read.status());
  REQUIRE(read.ok());
  CHECK(ScoresToJson(*read) == json);

  // Earlier versions had one more engine, and told what choosing among them had read.
  std::string old = json;
  old.replace(old.find("\"direct\","), 9, "\"uring\", \"trial_read_bytes\": 512,");
  const auto old_read = ReadScores({}, dir.Write("old.json", old));
  INFO(old_read.status());
  REQUIRE(old_read.ok());
  CHECK(ScoresToJson(*old_read) == json);

  std::string bad = json;
  bad.replace(bad.find("\"read_bytes\": 1000"), 18, "\"read_bytes\": -100");
  CHECK(
      absl::StrContains(ReadScores({}, dir.Write("bad.json", bad)).status().message(), "read_bytes is negative: -100"));
  bad = json;
  bad.replace(bad.find("\"direct\""), 8, "\"floppy\"");
  CHECK(
      absl::StrContains(ReadScores({}, dir.Write("bad.json", bad)).status().message(), "run: io_engine is \"floppy\""));
}

TEST_CASE("a path that is no UTF-8 is written with replacement characters") {
  ScoreTable table = Table();
  table.model = "a\xFFz";
  TempDir dir;
  REQUIRE(WriteScores({}, table, dir / "s.json").ok());
  CHECK(ReadScores({}, dir / "s.json")->model == "a\xEF\xBF\xBDz");
}

TEST_CASE("a table whose names collide is not written") {
  ScoreTable table = Table();
  table.layers[1].name = table.layers[0].name;
  TempDir dir;
  CHECK(WriteScores({}, table, dir / "s.json").code() == absl::StatusCode::kInvalidArgument);
  CHECK(dir.List().empty());
}

TEST_CASE("a failing disk leaves the old file and no other") {
  TempDir dir;
  dir.Write("scores.json", "old");
  for (uint32_t op : {kOpen, kPwrite, kFsync, kRename}) {
    FaultIo io(op, ENOSPC, 1, true);
    Context context;
    context.io = &io;
    CHECK(!WriteScores(context, Table(), dir / "scores.json").ok());
    CHECK(dir.List() == std::vector<std::string>{"scores.json"});
    CHECK(Slurp(dir / "scores.json") == "old");
  }
}

TEST_CASE("a scores file with one thing wrong is refused by name") {
  struct Edit {
    const char *from, *to;
    absl::StatusCode code;
    const char* why;
  };
  const absl::StatusCode invalid = absl::StatusCode::kInvalidArgument;
  const Edit edits[] = {
      {"\"autoscheme-scores\"", "\"autoscheme-recipe\"", invalid, "wanted is \"autoscheme-scores\""},
      {"\"version\": 1", "\"version\": 2", absl::StatusCode::kUnimplemented,
       "has version 2; this build reads version 1"},
      {"\"version\": 1", "\"version\": \"1\"", invalid, "version"},
      {"\"dtype\": \"float32\",", "", absl::StatusCode::kNotFound, "dtype"},
      {"\"scorer\": \"fisher\"", "\"scorer\": \"hessian\"", invalid,
       "scorer is \"hessian\"; this build knows deltaloss, fisher, fisher-labels"},
      {"\"calibration\": {", "\"calibrations\": {", invalid, "calibration is missing"},
      {"\"shape\":[64,128]", "\"shape\":[64,128,1]", invalid,
       "\"model.layers.0.q_proj\": shape must be [rows, columns]"},
      {"\"shape\":[64,128]", "\"shape\":[0,128]", invalid, "shape holds 0"},
      {"\"shape\":[64,128]", "\"shape\":[64,99999999999]", invalid, "shape holds 99999999999"},
      {"\"shape\":[64,128]", "\"shape\":[64,127]", invalid, "bits is 34048; shape and scheme make"},
      {"\"block\":0}", "\"block\":-7}", invalid, "block is -7"},
      {"\"fixed\":{\"name\":\"W8A16\",\"bits\":8", "\"fixed\":{\"name\":\"W8A16\",\"bits\":99", invalid, "bits is 99"},
      {"\"data_type\":\"mx_fp\"", "\"data_type\":\"mystery\"", invalid, "mystery"},
      {"\"MXFP4\": [3]", "\"MXFP9\": [3]", invalid, "\"MXFP9\" is not in the menu"},
      {"\"MXFP4\": [3]", "\"MXFP4\": [true]", invalid, "must be a number"},
      {"\"weight\":0.1,", "", invalid, "weight is missing"},
      {"\"weight\":0.1", "\"weight\":-0.1", invalid, "weight is negative"},
      {"\"weight\":0.1", "\"weight\":\"nan\"", invalid, "must be a number, \"NaN\""},
      {"\"weight\":0.1", "\"weight\":1e999", absl::StatusCode::kOk, ""},
      {"\"lm_head\": {\"bits\":88320", "\"lm_tail\": {\"bits\":88320", invalid, "\"lm_tail\" is not a layer"},
      {"\"lm_head\": {\"bits\":88320", "\"model.layers.0.up_proj\": {\"bits\":88320", invalid, "is not a layer"},
      {"\"lm_head\": {\"bits\":88320", "\"model.layers.0.q_proj\": {\"bits\":88320", absl::StatusCode::kDataLoss, ""},
      {"]\n  },\n  \"schemes\"", "]\n  }\n  \"schemes\"", absl::StatusCode::kDataLoss, ""},
  };
  const std::string good = ScoresToJson(Table());
  TempDir dir;
  for (const Edit& edit : edits) {
    INFO(edit.from << " -> " << edit.to);
    const size_t at = good.find(edit.from);
    REQUIRE(at != std::string::npos);
    std::string bad = good;
    bad.replace(at, std::string(edit.from).size(), edit.to);
    const absl::Status status = ReadScores({}, dir.Write("bad.json", bad)).status();
    INFO(status);
    CHECK(!status.ok());
    if (edit.code != absl::StatusCode::kOk) CHECK(status.code() == edit.code);
    CHECK(absl::StrContains(status.message(), edit.why));
  }
  CHECK(ReadScores({}, dir / "none.json").status().code() == absl::StatusCode::kNotFound);
}

TEST_CASE("a scores file cut at any byte is an error and never a table") {
  const std::string good = ScoresToJson(Table());
  TempDir dir;
  for (size_t length = 0; length + 2 < good.size(); length += 7) {
    REQUIRE(!ReadScores({}, dir.Write("cut.json", good.substr(0, length))).ok());
  }
}

Recipe SmallRecipe() {
  Recipe recipe;
  recipe.target_avg_bits = 4.5;
  recipe.avg_bits = 4.25;
  recipe.loss = 0.1;
  recipe.total_bits = 425;
  recipe.total_params = 100;
  Scheme own = FindScheme("W4A16").value();
  own.name = "mine";
  own.group = GroupSize{128, 128};
  Scheme sixteen = FindScheme("W4A16").value();
  sixteen.name = "16 bits";
  sixteen.bits = 16;
  sixteen.data_type = "float";
  recipe.layers = {{"a", FindScheme("W4A16").value(), false}, {"b\"", own, false}, {"c", sixteen, true}};
  return recipe;
}

TEST_CASE("recipe.json has exactly these bytes, a preset's name only where it says it all") {
  CHECK(RecipesToJson({SmallRecipe()}) == R"json({
  "format": "autoscheme-recipe",
  "version": 1,
  "recipes": [
    {
      "target_avg_bits": 4.5,
      "avg_bits": 4.25,
      "loss": 0.1,
      "gap": 0,
      "total_bits": 425,
      "total_params": 100,
      "layer_bytes": 0,
      "fixed_layers": [
        "c"
      ],
      "layer_config": {
        "a": {"scheme":"W4A16","bits":4,"group_size":128,"sym":true,"data_type":"int","act_bits":16},
        "b\"": {"bits":4,"group_size":[128,128],"sym":true,"data_type":"int","act_bits":16},
        "c": {"bits":16,"group_size":128,"sym":true,"data_type":"float","act_bits":16}
      }
    }
  ]
}
)json");
}

TEST_CASE("an empty list of recipes and an unwritable folder") {
  const auto json = ParseJson(RecipesToJson({}), "recipe");
  REQUIRE(json.ok());
  CHECK((*json)["recipes"].Size() == 0);
  TempDir dir;
  CHECK(!WriteRecipes({}, {SmallRecipe()}, dir / "missing/recipe.json").ok());
  REQUIRE(WriteRecipes({}, {SmallRecipe()}, dir / "recipe.json").ok());
  CHECK(Slurp(dir / "recipe.json") == RecipesToJson({SmallRecipe()}));
}

}  // namespace
}  // namespace autoscheme
