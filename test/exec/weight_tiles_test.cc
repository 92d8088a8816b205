#include "exec/weight_tiles.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "exec/loaded.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

using Tiles = std::vector<std::pair<int64_t, int64_t>>;  // first row, rows

TEST_CASE("tiles come in order with the rows of the weight, and every use is read") {
  const TinySkeleton tiny;
  const LinearLayer& layer = tiny->blocks()[0].linears[4];  // gate_proj, [48, 32]
  const TensorInfo& weight = *layer.weight;
  const std::vector<std::byte> expected = BytesOf(*tiny, weight);
  for (const int slots : {1, 2}) {
    Context context;
    RunResources run(context);
    WeightTiles tiles(run, tiny->checkpoint(), slots);
    for (const uint64_t use : {1, 2}) {
      Tiles seen;
      std::vector<std::byte> bytes;
      tiles.ForEach(layer, 20, [&](int64_t first, int64_t count, const std::byte* rows) {
        seen.emplace_back(first, count);
        bytes.insert(bytes.end(), rows, rows + count * 32 * 2);
      });
      CHECK(tiles.status().ok());
      CHECK((seen == Tiles{{0, 20}, {20, 20}, {40, 8}}));
      CHECK((bytes == expected));
      CHECK(run.stats.read_bytes == use * weight.bytes);
    }
  }
}

TEST_CASE("after NaN nothing is read any more, and the status tells why") {
  TinyModel model;
  model.dtype = "F32";
  std::vector<RawTensor> tensors = MakeTinyTensors(model);
  for (RawTensor& tensor : tensors) {
    if (tensor.name != "model.layers.0.mlp.gate_proj.weight") continue;
    const float infinite = INFINITY;
    std::memcpy(tensor.bytes.data() + 21 * 32 * 4, &infinite, 4);
  }
  const TinySkeleton tiny(model, tensors);
  const LinearLayer& layer = tiny->blocks()[0].linears[4];  // gate_proj
  Context context;
  RunResources run(context);
  for (const bool checks : {true, false}) {
    WeightTiles tiles(run, tiny->checkpoint(), 2);
    tiles.set_check_finite(checks);
    int calls = 0;
    for (int use = 0; use < 2; ++use) {
      tiles.ForEach(layer, 20, [&](int64_t, int64_t, const std::byte*) { ++calls; });
    }
    CHECK(calls == (checks ? 1 : 6));
    CHECK(tiles.status().code() == (checks ? absl::StatusCode::kDataLoss : absl::StatusCode::kOk));
    if (checks) {
      CHECK_THAT(std::string(tiles.status().message()),
                 Catch::Contains("\"model.layers.0.mlp.gate_proj.weight\" holds 1 NaN or infinite"));
    }
  }
}

}  // namespace
}  // namespace autoscheme
