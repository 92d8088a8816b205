// Planned reads worked by hand. Whether runs read as many bytes is seen by the tests of the sweeps.
#include "plan/reads.h"

#include <catch2/catch.hpp>

#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

// Two blocks in bfloat16: a norm of 32, q and o of 32 x 32, k and v of 16 x 32; a norm of 32, three matrices of 48
// x 32.
constexpr uint64_t kNorm = 2 * 32, kSquare = 2 * 1024, kNarrow = 2 * 512, kWide = 2 * 1536;
constexpr uint64_t kAttention = kNorm + 2 * kSquare + 2 * kNarrow, kMlp = kNorm + 3 * kWide;
constexpr uint64_t kBlock = kAttention + kMlp, kHead = 2 * 64 * 32;
// Six ids occur; and the last norm.
constexpr uint64_t kOnce = 6 * 2 * 32 + kNorm;
Calibration TwoRows() { return RowsOf(2, 4, {1, 2, 3, 4, 3, 4, 5, 6}); }

constexpr LinearNeeds kScored{/*quantizes_weight=*/true, /*whole_weight=*/false, /*weight_gradient=*/true,
                              /*scored=*/true};

TEST_CASE("every block twice, the head once, what lies outside and the rows of the embedding that occur once") {
  const TinySkeleton tiny;
  CHECK(PlannedReadBytes(*tiny, TwoRows(), {}, NeedsOf(*tiny, kScored)) == 4 * kBlock + kHead + kOnce);
}

TEST_CASE("the head is read once more for its gradient, and once before for a scale that spans it") {
  const TinySkeleton tiny;
  LinearNeeds head = kScored;
  CHECK(HeadPasses(*tiny, ExecutionPlan(), NeedsOf(*tiny, kScored)) == 1);
  CHECK(HeadPasses(*tiny, ExecutionPlan(), NeedsOf(*tiny, kScored, head)) == 2);
  head.whole_weight = true;
  CHECK(HeadPasses(*tiny, ExecutionPlan(), NeedsOf(*tiny, kScored, head)) == 3);
  CHECK(PlannedReadBytes(*tiny, TwoRows(), {}, NeedsOf(*tiny, kScored, head)) == 4 * kBlock + 3 * kHead + kOnce);
}

TEST_CASE("where nothing is differentiated blocks are read once and the head never") {
  const TinySkeleton tiny;
  ScorerNeeds needs = NeedsOf(*tiny, {});
  needs.variants[0].forward_only = true;
  CHECK(HeadPasses(*tiny, ExecutionPlan(), needs) == 0);
  CHECK(PlannedReadBytes(*tiny, TwoRows(), {}, needs) == 2 * kBlock + kOnce);
}

TEST_CASE("where logits are compared blocks and head are read once, and the head before where a scale spans it") {
  const TinySkeleton tiny;
  LinearNeeds head;
  ScorerNeeds needs = NeedsOf(*tiny, {}, head);
  needs.variants[0].forward_only = needs.compares_logits = true;
  CHECK(HeadPasses(*tiny, ExecutionPlan(), needs) == 1);
  CHECK(PlannedReadBytes(*tiny, TwoRows(), {}, needs) == 2 * kBlock + kHead + kOnce);
  needs.variants[0].linears.back().whole_weight = true;
  CHECK(HeadPasses(*tiny, ExecutionPlan(), needs) == 2);
  CHECK(PlannedReadBytes(*tiny, TwoRows(), {}, needs) == 2 * kBlock + 2 * kHead + kOnce);
}

TEST_CASE("cached units are read once, units that run again three times") {
  const TinySkeleton tiny;
  ExecutionPlan plan;
  plan.cached_units = 1;
  CHECK(PlannedReadBytes(*tiny, TwoRows(), plan, NeedsOf(*tiny, kScored)) == 3 * kBlock + kHead + kOnce);
  plan.cached_units = 0;
  plan.sublayers_per_unit = 1, plan.input_interval = 2;  // the first of four units runs again
  CHECK(PlannedReadBytes(*tiny, TwoRows(), plan, NeedsOf(*tiny, kScored)) == 4 * kBlock + kAttention + kHead + kOnce);
}

TEST_CASE("tiled weights are read at every use") {
  const TinySkeleton tiny;
  ExecutionPlan plan;
  plan.tiled = true, plan.sublayers_per_unit = 1;
  // Up, up again on the way down unless it is a last product, and for the gradient of the input.
  const uint64_t inner = kSquare + 2 * kNarrow + 2 * kWide, last = kSquare + kWide;
  CHECK(PlannedReadBytes(*tiny, TwoRows(), plan, NeedsOf(*tiny, kScored)) ==
        2 * (2 * 2 * kNorm + 3 * inner + 2 * last) + kHead + kOnce);
  plan.micro_batch_rows = 1;  // each of these twice, and once more where the gradient of the batch is shown
  CHECK(PlannedReadBytes(*tiny, TwoRows(), plan, NeedsOf(*tiny, kScored)) ==
        2 * (2 * 2 * kNorm + 7 * inner + 5 * last) + kHead + kOnce);
}

}  // namespace
}  // namespace autoscheme
