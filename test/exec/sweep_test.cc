// Every choice of the plan, run on a tiny model: the scores stay, and the bytes read are those planned.
#include "exec/sweep.h"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "autoscheme/scheme.h"
#include "scorers/delta_loss.h"
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
  ScoreTable table;
  SweepStats stats;
};

// Linears of all blocks and the head, 5 rows of 12 tokens in batches of 3: the last batch is short.
Swept Sweep(const Tiny& tiny, const std::string& menu, SweepOptions options, bool cache_weights = true, uint64_t chunk_bytes = 4096) {
  Swept swept;
  ScoreTable& table = swept.table;
  table.schemes = ParseSchemeList(menu).value();
  for (size_t b = 0; b < tiny.skeleton->blocks().size(); ++b) {
    for (const LinearLayer& linear : tiny.skeleton->blocks()[b].linears) {
      LayerInfo info;
      info.name = linear.name, info.out_features = linear.out_features, info.in_features = linear.in_features;
      info.block = static_cast<int>(b);
      table.layers.push_back(info);
    }
  }
  LayerInfo head;
  head.name = "lm_head", head.out_features = tiny.skeleton->vocab_size(), head.in_features = tiny.skeleton->hidden_size();
  head.is_head = true;
  table.layers.push_back(head);

  options.batch_size = 3;
  DeltaLoss::Options measure;
  measure.batches = 2;
  measure.cache_weights = cache_weights;
  measure.chunk_bytes = chunk_bytes;
  measure.sliced = options.slice_rows > 0;
  const auto measurement = DeltaLoss::Create(table, measure).value();
  const absl::Status status = RunSweeps({}, *tiny.skeleton, tiny.calibration, options, *measurement, &swept.stats);
  INFO(status.ToString());
  REQUIRE(status.ok());
  return swept;
}

void CheckSame(const Swept& expected, const Swept& actual, double epsilon = 1e-5) {
  CHECK(actual.stats.read_bytes == actual.stats.planned_read_bytes);
  for (size_t s = 0; s < expected.table.schemes.size(); ++s) {
    for (size_t b = 0; b < expected.table.ce_loss[s].size(); ++b) {
      CHECK(actual.table.ce_loss[s][b] == Approx(expected.table.ce_loss[s][b]).epsilon(epsilon > 1e-5 ? epsilon : 1e-6));
    }
    for (size_t l = 0; l < expected.table.layers.size(); ++l) {
      INFO(expected.table.schemes[s].name << " " << expected.table.layers[l].name);
      CHECK(expected.table.scores[s][l].weight > 0);
      CHECK(actual.table.scores[s][l].weight == Approx(expected.table.scores[s][l].weight).epsilon(epsilon));
      CHECK(actual.table.scores[s][l].activation == Approx(expected.table.scores[s][l].activation).epsilon(epsilon));
    }
  }
}

TEST_CASE("units of a segment, of a block and of several blocks give the same scores") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16,MXFP8", {});
  for (const int segments : {1, 2, 3, 4, 100}) {
    SweepOptions options;
    options.segments_per_unit = segments;
    INFO(segments << " segments per unit");
    CheckSame(expected, Sweep(tiny, "W4A16,MXFP8", options));
  }
}

TEST_CASE("slices of a batch give the scores of the batch") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16,MXFP8", {});
  for (const int64_t rows : {1, 2}) {
    for (const bool cache : {true, false}) {
      SweepOptions options;
      options.slice_rows = rows;
      INFO(rows << " rows to a slice, weights cached: " << cache);
      CheckSame(expected, Sweep(tiny, "W4A16,MXFP8", options, cache));
    }
  }
}

TEST_CASE("weights by row tiles give the scores of resident ones, and every use is counted") {
  const Tiny tiny;
  // NVFP4 must see a weight whole before it quantizes a row of it.
  const Swept expected = Sweep(tiny, "W4A16,NVFP4", {});
  for (const int segments : {1, 0, 3}) {
    for (const int slots : {1, 2}) {
      SweepOptions options;
      options.segments_per_unit = segments;
      options.unit_slots = slots;
      options.tiled = true;
      INFO(segments << " segments, " << slots << " slots");
      const Swept tiled = Sweep(tiny, "W4A16,NVFP4", options, /*cache_weights=*/false, /*chunk_bytes=*/2048);
      CheckSame(expected, tiled);
      CHECK(tiled.stats.read_bytes > expected.stats.read_bytes);
    }
  }
  SweepOptions sliced;
  sliced.segments_per_unit = 1;
  sliced.tiled = true;
  sliced.slice_rows = 2;
  CheckSame(Sweep(tiny, "W4A16", {}), Sweep(tiny, "W4A16", sliced, /*cache_weights=*/false));
}

TEST_CASE("weights that stay between the sweeps are read once") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16,MXFP8", {});
  uint64_t saved = 0;
  const int blocks = static_cast<int>(tiny.skeleton->blocks().size());
  for (int cached = 1; cached <= blocks; ++cached) {
    saved += tiny.skeleton->blocks()[blocks - cached].bytes;
    SweepOptions options;
    options.cached_units = cached;
    const Swept swept = Sweep(tiny, "W4A16,MXFP8", options);
    CheckSame(expected, swept);
    CHECK(swept.stats.read_bytes + saved == expected.stats.read_bytes);
  }
}

TEST_CASE("activations that stay give the scores of recomputed ones") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16,MXFP8", {});
  for (const int kept : {1, 2, 100}) {
    for (const bool in_ram : {true, false}) {
      SweepOptions options;
      options.kept_units = kept;
      options.cached_units = 1;
      options.spilled = in_ram ? Spilled::kNothing : Spilled::kBoundaries;
      INFO(kept << " kept, boundaries in RAM: " << in_ram);
      CheckSame(expected, Sweep(tiny, "W4A16,MXFP8", options));
    }
  }
}

TEST_CASE("inputs that are computed again give the scores of stored ones, and the units that run again are read again") {
  const Tiny tiny;
  for (const char* menu : {"W4A16,MXFP8", "W4A16,NVFP4"}) {
    const Swept expected = Sweep(tiny, menu, {});
    for (const int segments : {0, 1}) {
      const int units = segments == 0 ? 3 : 6;
      for (const int interval : {2, 3, 4, 100}) {
        for (const int kept : {0, 1, 3}) {
          SweepOptions options;
          options.segments_per_unit = segments;
          options.boundary_interval = interval;
          options.kept_units = kept;
          INFO(menu << ", " << units << " units, interval " << interval << ", " << kept << " kept");
          const Swept swept = Sweep(tiny, menu, options);
          CheckSame(expected, swept);
          // With fewer than two stretches all inputs are still there.
          CHECK((swept.stats.read_bytes > expected.stats.read_bytes) == (units - kept > interval));
        }
      }
    }
    SweepOptions options;
    options.segments_per_unit = 1;
    options.boundary_interval = 2;
    for (const int cached : {1, 3, 4, 5}) {  // stretches read, kept and both
      for (const Spilled spilled : {Spilled::kBoundaries, Spilled::kEverything}) {
        options.cached_units = cached;
        options.spilled = spilled;
        CheckSame(expected, Sweep(tiny, menu, options));
      }
    }
    options.cached_units = 0;
    options.tiled = true;
    options.slice_rows = std::string(menu) == "W4A16,MXFP8" ? 2 : 0;  // NVFP4 sees a batch whole
    CheckSame(expected, Sweep(tiny, menu, options, /*cache_weights=*/false));
  }
}

TEST_CASE("units that run again are read three times: an example worked by hand") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16", {});
  SweepOptions options;
  options.boundary_interval = 2;  // stored: inputs of blocks 0 and 2; before block 1's gradient block 0 runs again
  const Swept swept = Sweep(tiny, "W4A16", options);
  CHECK(swept.stats.read_bytes == expected.stats.read_bytes + tiny.skeleton->blocks()[0].bytes);
}

TEST_CASE("what passes between units gives the same scores on disk, and only what is on disk counts as spilled") {
  const Tiny tiny;
  const Swept expected = Sweep(tiny, "W4A16,MXFP8", {});
  CHECK(expected.stats.spill_bytes == 0);
  uint64_t spilled[2];
  for (const bool passing_in_ram : {true, false}) {
    SweepOptions options;
    options.spilled = passing_in_ram ? Spilled::kBoundaries : Spilled::kEverything;
    const Swept swept = Sweep(tiny, "W4A16,MXFP8", options);
    CheckSame(expected, swept);
    spilled[passing_in_ram] = swept.stats.spill_bytes;
  }
  // 5 rows of 12 tokens of 64 float32: the embedded input once, for each of two schemes two more inputs.
  CHECK(spilled[1] == 5 * 12 * 64 * 4 * (1 + 2 * 2));
  // And for each scheme: the last output, four gradients, and of 11 predictions a row what the head puts at its one tile.
  CHECK(spilled[0] == spilled[1] + 5 * 12 * 64 * 4 * 2 * (1 + 4) + 5 * 11 * 64 * 4 * 2 * 2);
}

TEST_CASE("K types with a collected importance matrix score the same under every choice") {
  const Tiny tiny(256);
  const std::string menu = "GGUF:Q4_K_S,W4A16";
  const Swept expected = Sweep(tiny, menu, {});
  SweepOptions options;
  options.segments_per_unit = 1;
  options.kept_units = 2;
  CheckSame(expected, Sweep(tiny, menu, options));
  options.kept_units = 0;
  options.boundary_interval = 4;
  CheckSame(expected, Sweep(tiny, menu, options));
  options.spilled = Spilled::kEverything;
  CheckSame(expected, Sweep(tiny, menu, options));
  options = {};
  options.segments_per_unit = 1;
  options.tiled = true;
  // The search takes the best of discrete trials: a last bit of the importance matrix, which row tiles change, tips some.
  CheckSame(expected, Sweep(tiny, menu, options, /*cache_weights=*/false), 5e-3);
}

}  // namespace
}  // namespace autoscheme
