#include "exec/head_tiles.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <utility>
#include <vector>

#include "exec/loaded.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

constexpr int64_t kRows = 3, kSeq = 4;

// 3 rows of 4 tokens in batches of 2; hidden states are what a test says.
struct HeadTilesCase {
  explicit HeadTilesCase(int64_t tile_rows) : calibration(RowsOf(kRows, kSeq, {})), needs(NeedsOf(*tiny, {})) {
    for (int64_t i = 0; i < kRows * kSeq; ++i) calibration.ids.push_back(static_cast<int32_t>(i));
    plan.batch_size = 2, plan.head_tile_rows = tile_rows;
    input.shape = {kRows, kSeq, 2, 0};
    input.step = [&](int64_t done, int64_t total) { return steps = {done, total}, absl::OkStatus(); };
    tiles.emplace(run, *tiny, calibration, plan, needs, input);
  }
  TinySkeleton tiny;
  Context context;
  RunResources run{context};
  Calibration calibration;
  ExecutionPlan plan;
  ScorerNeeds needs;
  HeadInput input;
  std::pair<int64_t, int64_t> steps;
  std::optional<HeadTiles> tiles;
};

TEST_CASE("tiles hold every row once, as high as plan and quantizers ask") {
  struct Height {
    int64_t plan, multiple, wanted;
  };
  for (const Height& height : {Height{20, 1, 20}, {20, 8, 16}, {20, 24, 24}, {20, 0, 64}, {100, 1, 64}}) {
    HeadTilesCase head(height.plan);
    REQUIRE(head.tiles->Begin(height.multiple).ok());
    std::vector<at::Tensor> seen;
    int64_t next = 0;
    REQUIRE(head.tiles
                ->ForEach([&](int64_t first, const at::Tensor& w) {
                  CHECK(first == next);
                  CHECK(w.size(0) == std::min(height.wanted, 64 - first));
                  next = first + w.size(0);
                  return seen.push_back(w.clone()), absl::OkStatus();
                })
                .ok());
    CHECK(at::cat(seen).equal(Float(*head.tiny, *head.tiny->head().weight)));
    CHECK(head.steps == std::pair(static_cast<int64_t>(seen.size()), static_cast<int64_t>(seen.size())));
    CHECK(head.run.stats.read_bytes == head.tiny->head().weight->bytes);
  }
}

TEST_CASE("labels are the ids that follow, and are found in the tile that holds them") {
  const HeadTilesCase head(64);
  const at::Tensor labels = head.tiles->Labels({0, 0, 2, true});
  CHECK(labels.equal(at::tensor(std::vector<int64_t>{1, 2, 3, 5, 6, 7})));
  const auto [predictions, columns] = HeadTiles::Find(labels, 3, 4);
  CHECK(predictions.equal(at::tensor(std::vector<int64_t>{2, 3, 4})));
  CHECK(columns.equal(at::tensor(std::vector<int64_t>{0, 2, 3})));
  CHECK(HeadTiles::Find(labels, 8, 4).columns.numel() == 0);
}

TEST_CASE("what predicts is all positions but a row's last") {
  HeadTilesCase head(64);
  const at::Tensor x = at::rand({2, kSeq, 32});
  head.input.hidden = [&](int, int) -> absl::StatusOr<at::Tensor> { return x; };
  const at::Tensor inputs = head.tiles->Inputs({}, 0, 0).value();
  CHECK(inputs.equal(x.narrow(1, 0, kSeq - 1).reshape({6, 32})));
  const at::Tensor w = at::rand({5, 32});
  CHECK(at::allclose(head.tiles->Logits(inputs, w, 0), at::matmul(inputs, w.t())));
  CHECK_FALSE(head.tiles->has_slopes());
}

}  // namespace
}  // namespace autoscheme
