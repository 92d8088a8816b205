// Every choice of the plan, run on a tiny model: the scores stay, and the bytes read are those planned.
#include "exec/sweep.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "autoscheme/scheme.h"
#include "support/scored_run.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

struct Tiny {
  TempDir dir;
  std::unique_ptr<MetaSkeleton> skeleton;
  Calibration calibration;
  explicit Tiny(int64_t width = 64) {
    TinyModel model;
    model.blocks = 3, model.hidden = width, model.intermediate = width;
    WriteTinyModel(model, dir.path());
    skeleton = MetaSkeleton::Open({}, dir.path()).value();
    calibration = ReadCalibration({}, dir.Write("tokens.json", TinyTokens(5, 12, skeleton->vocab_size()))).value();
  }
};

struct Swept {
  std::vector<LayerInfo> layers;
  Losses losses;
  ScoreTerms terms;
  RunStats stats;
};

// Linears of all blocks and the head, 5 rows of 12 tokens in batches of 3: the last batch is short.
Swept Sweep(const Tiny& tiny, const std::string& menu, ExecutionPlan plan, bool cache_weights = true,
            uint64_t chunk_bytes = 4096, const std::string& scorer = "deltaloss") {
  Swept swept;
  swept.layers = LayersOf(*tiny.skeleton, /*with_head=*/true);
  plan.batch_size = 3;
  plan.cache_weights = cache_weights;
  plan.chunk_bytes = chunk_bytes;
  ScoredRun run(*tiny.skeleton, menu, swept.layers, scorer);
  const absl::StatusOr<Losses> losses = run.Sweep(tiny.calibration, plan);
  INFO(losses.status().ToString());
  REQUIRE(losses.ok());
  for (const std::vector<double>& of_variant : *losses) {
    if (!of_variant.empty()) swept.losses.push_back(of_variant);
  }
  swept.terms = run.scorers.terms();
  swept.stats = run.run.stats;
  return swept;
}

void CheckSame(const Swept& expected, const Swept& actual, double epsilon = 1e-5) {
  CHECK(actual.stats.read_bytes == actual.stats.planned_read_bytes);
  REQUIRE(expected.losses.size() == actual.losses.size());
  for (size_t v = 0; v < expected.losses.size(); ++v) {
    REQUIRE(actual.losses[v].size() == 2);
    for (size_t b = 0; b < expected.losses[v].size(); ++b) {
      CHECK(actual.losses[v][b] == Approx(expected.losses[v][b]).epsilon(epsilon > 1e-5 ? epsilon : 1e-6));
    }
  }
  for (size_t s = 0; s < expected.terms.terms.size(); ++s) {
    for (size_t l = 0; l < expected.layers.size(); ++l) {
      INFO("scheme " << s << " " << expected.layers[l].name);
      CHECK(expected.terms.terms[s][0][l] > 0);
      for (const int term : {0, 1}) {
        CHECK(actual.terms.terms[s][term][l] == Approx(expected.terms.terms[s][term][l]).epsilon(epsilon));
      }
    }
  }
}

TEST_CASE("units of a sublayer, of a block and of several blocks give the same scores") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16,MXFP8", {});
  for (const int segments : {1, 2, 3, 4, 100}) {
    ExecutionPlan plan;
    plan.sublayers_per_unit = segments;
    INFO(segments << " segments per unit");
    CheckSame(expected, Sweep(tiny, "W4A16,MXFP8", plan));
  }
}

TEST_CASE("micro-batches give the scores of the batch") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16,MXFP8", {});
  for (const int64_t rows : {1, 2}) {
    for (const bool cache : {true, false}) {
      ExecutionPlan plan;
      plan.micro_batch_rows = rows;
      INFO(rows << " rows to a slice, weights cached: " << cache);
      CheckSame(expected, Sweep(tiny, "W4A16,MXFP8", plan, cache));
    }
  }
}

TEST_CASE("weights by row tiles give the scores of resident ones, and every use is counted") {
  const Tiny tiny;
  // NVFP4 must see a weight whole before it quantizes a row of it.
  const Swept expected = Sweep(tiny, "W4A16,NVFP4", {});
  for (const int segments : {1, 0, 3}) {
    for (const int slots : {1, 2}) {
      ExecutionPlan plan;
      plan.sublayers_per_unit = segments;
      plan.unit_slots = slots;
      plan.tiled = true;
      INFO(segments << " segments, " << slots << " slots");
      const Swept tiled = Sweep(tiny, "W4A16,NVFP4", plan, /*cache_weights=*/false, /*chunk_bytes=*/2048);
      CheckSame(expected, tiled);
      CHECK(tiled.stats.read_bytes > expected.stats.read_bytes);
    }
  }
  ExecutionPlan sliced;
  sliced.sublayers_per_unit = 1;
  sliced.tiled = true;
  sliced.micro_batch_rows = 2;
  CheckSame(Sweep(tiny, "W4A16", {}), Sweep(tiny, "W4A16", sliced, /*cache_weights=*/false));
}

TEST_CASE("weights that stay between the sweeps are read once") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16,MXFP8", {});
  uint64_t saved = 0;
  const int blocks = static_cast<int>(tiny.skeleton->blocks().size());
  for (int cached = 1; cached <= blocks; ++cached) {
    saved += tiny.skeleton->blocks()[blocks - cached].bytes;
    ExecutionPlan plan;
    plan.cached_units = cached;
    const Swept swept = Sweep(tiny, "W4A16,MXFP8", plan);
    CheckSame(expected, swept);
    CHECK(swept.stats.read_bytes + saved == expected.stats.read_bytes);
  }
}

TEST_CASE("activations that stay give the scores of recomputed ones") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16,MXFP8", {});
  for (const int kept : {1, 2, 100}) {
    for (const bool in_ram : {true, false}) {
      ExecutionPlan plan;
      plan.saved_units = kept;
      plan.cached_units = 1;
      plan.spilled = in_ram ? Spilled::kNothing : Spilled::kInputs;
      INFO(kept << " kept, boundaries in RAM: " << in_ram);
      CheckSame(expected, Sweep(tiny, "W4A16,MXFP8", plan));
    }
  }
}

TEST_CASE(
    "inputs that are computed again give the scores of stored ones, and the units that run again are read again") {
  const Tiny tiny;
  for (const char* menu : {"W4A16,MXFP8", "W4A16,NVFP4"}) {
    const Swept expected = Sweep(tiny, menu, {});
    for (const int segments : {0, 1}) {
      const int units = segments == 0 ? 3 : 6;
      for (const int interval : {2, 3, 4, 100}) {
        for (const int kept : {0, 1, 3}) {
          ExecutionPlan plan;
          plan.sublayers_per_unit = segments;
          plan.input_interval = interval;
          plan.saved_units = kept;
          INFO(menu << ", " << units << " units, interval " << interval << ", " << kept << " kept");
          const Swept swept = Sweep(tiny, menu, plan);
          CheckSame(expected, swept);
          // With fewer than two stretches all inputs are still there.
          CHECK((swept.stats.read_bytes > expected.stats.read_bytes) == (units - kept > interval));
        }
      }
    }
    ExecutionPlan plan;
    plan.sublayers_per_unit = 1;
    plan.input_interval = 2;
    for (const int cached : {1, 3, 4, 5}) {  // stretches read, kept and both
      for (const Spilled spilled : {Spilled::kInputs, Spilled::kEverything}) {
        plan.cached_units = cached;
        plan.spilled = spilled;
        CheckSame(expected, Sweep(tiny, menu, plan));
      }
    }
    plan.cached_units = 0;
    plan.tiled = true;
    plan.micro_batch_rows = std::string(menu) == "W4A16,MXFP8" ? 2 : 0;  // NVFP4 sees a batch whole
    CheckSame(expected, Sweep(tiny, menu, plan, /*cache_weights=*/false));
  }
}

TEST_CASE("units that run again are read three times: an example worked by hand") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16", {});
  ExecutionPlan plan;
  plan.input_interval = 2;  // stored: inputs of blocks 0 and 2; before block 1's gradient block 0 runs again
  const Swept swept = Sweep(tiny, "W4A16", plan);
  CHECK(swept.stats.read_bytes == expected.stats.read_bytes + tiny.skeleton->blocks()[0].bytes);
}

TEST_CASE("what passes between units gives the same scores on disk, and only what is on disk counts as spilled") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16,MXFP8", {});
  CHECK(expected.stats.spill_bytes == 0);
  uint64_t spilled[2];
  for (const bool passing_in_ram : {true, false}) {
    ExecutionPlan plan;
    plan.spilled = passing_in_ram ? Spilled::kInputs : Spilled::kEverything;
    const Swept swept = Sweep(tiny, "W4A16,MXFP8", plan);
    CheckSame(expected, swept);
    spilled[passing_in_ram] = swept.stats.spill_bytes;
  }
  // 5 rows of 12 tokens of 64 float32: the embedded input once, for each of two schemes two more inputs.
  CHECK(spilled[1] == 5 * 12 * 64 * 4 * (1 + 2 * 2));
  // Besides, for each scheme: the last output, four gradients, and what the head puts at its one tile, of 11
  // predictions a row.
  CHECK(spilled[0] == spilled[1] + 5 * 12 * 64 * 4 * 2 * (1 + 4) + 5 * 11 * 64 * 4 * 2 * 2);
}

TEST_CASE("k-quants with a collected importance matrix score the same under every choice") {
  const Tiny tiny(256);
  const std::string menu = "GGUF:Q4_K_S,W4A16";
  const Swept expected = Sweep(tiny, menu, {});
  ExecutionPlan plan;
  plan.sublayers_per_unit = 1;
  plan.saved_units = 2;
  CheckSame(expected, Sweep(tiny, menu, plan));
  plan.saved_units = 0;
  plan.input_interval = 4;
  CheckSame(expected, Sweep(tiny, menu, plan));
  plan.spilled = Spilled::kEverything;
  CheckSame(expected, Sweep(tiny, menu, plan));
  plan = {};
  plan.sublayers_per_unit = 1;
  plan.tiled = true;
  // The search takes the best of discrete trials: a last bit of the importance matrix, which row tiles change, tips
  // some.
  CheckSame(expected, Sweep(tiny, menu, plan, /*cache_weights=*/false), 5e-3);
}

TEST_CASE("every choice of the plan shows the same errors of candidates") {
  const Tiny tiny;
  const std::string menu = "W2A16,MXFP8,FP8_STATIC";
  const Swept expected = Sweep(tiny, menu, {}, true, 4096, "fisher");
  struct Choice {
    int sublayers, saved, interval;
    bool tiled, cached;
  };
  for (const Choice& choice :
       {Choice{1, 0, 1, false, true}, {0, 2, 1, false, true}, {0, 0, 2, false, false}, {1, 0, 1, true, false}}) {
    ExecutionPlan plan;
    plan.sublayers_per_unit = choice.sublayers, plan.saved_units = choice.saved, plan.input_interval = choice.interval;
    plan.tiled = choice.tiled, plan.head_tile_rows = 16;
    CheckSame(expected, Sweep(tiny, menu, plan, choice.cached, 2048, "fisher"), 1e-4);
  }
}

}  // namespace
}  // namespace autoscheme
