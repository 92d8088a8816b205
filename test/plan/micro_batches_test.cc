#include "plan/micro_batches.h"

#include <catch2/catch.hpp>
#include <tuple>
#include <vector>

namespace autoscheme {
namespace {

using Cut = std::vector<std::tuple<int64_t, int64_t, int64_t, bool>>;  // batch, first row, rows, ends the batch
Cut CutOf(const BatchShape& shape) {
  Cut cut;
  for (const MicroBatch& m : shape.micro_batches()) cut.emplace_back(m.batch, m.first_row, m.rows, m.ends_batch);
  return cut;
}

TEST_CASE("batches are whole, the last one short") {
  const BatchShape shape{5, 12, 3, 0};
  CHECK(shape.batches() == 2);
  CHECK(shape.rows(0) == 3);
  CHECK(shape.rows(1) == 2);
  CHECK_FALSE(shape.cut());
  CHECK(CutOf(shape) == Cut{{0, 0, 3, true}, {1, 3, 2, true}});
}

TEST_CASE("micro-batches do not reach from one batch into the next") {
  const BatchShape shape{5, 12, 3, 2};
  CHECK(shape.most_rows() == 2);
  CHECK(shape.cut());
  CHECK(CutOf(shape) == Cut{{0, 0, 2, false}, {0, 2, 1, true}, {1, 3, 2, true}});
}

TEST_CASE("fewer rows than a batch or a micro-batch holds are one") {
  const BatchShape shape{2, 12, 8, 4};
  CHECK(shape.batches() == 1);
  CHECK(shape.most_rows() == 2);
  CHECK_FALSE(shape.cut());
  CHECK(CutOf(shape) == Cut{{0, 0, 2, true}});
}

}  // namespace
}  // namespace autoscheme
