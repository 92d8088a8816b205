#include "plan/calibration_ids.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

TEST_CASE("ids that the model can take are taken, each once for the embedding") {
  const TinySkeleton tiny;  // 64 ids, 128 positions
  const Calibration calibration = RowsOf(2, 3, {63, 0, 5, 5, 63, 7});
  CHECK(CheckCalibration(calibration, *tiny).ok());
  CHECK(DistinctIds(calibration) == std::vector<int32_t>{0, 5, 7, 63});
}

TEST_CASE("what the model cannot take is refused with its place and numbers") {
  const TinySkeleton tiny;
  struct Row {
    Calibration calibration;
    const char* message;
  };
  for (const Row& row :
       {Row{RowsOf(0, 4, {}), "calibration of 0 rows of 4 tokens holds 0 ids; at least one row is needed"},
        Row{RowsOf(2, 2, {1, 2, 3}), "calibration of 2 rows of 2 tokens holds 3 ids; at least one row is needed"},
        Row{RowsOf(2, 1, {1, 2}),
            "calibration rows of 1 token predict nothing; the loss needs at least 2 tokens per row"},
        Row{RowsOf(1, 129, std::vector<int32_t>(129)),
            "calibration rows of 129 tokens are longer than the model's 128 positions; use a smaller seqlen"},
        Row{RowsOf(2, 3, {0, 1, 2, 3, 64, 5}),
            "calibration row 1, column 1: id 64 is outside the vocabulary of 64; were the ids made with another "
            "tokenizer?"},
        Row{RowsOf(1, 2, {-1, 1}),
            "calibration row 0, column 0: id -1 is outside the vocabulary of 64; were the ids made with another "
            "tokenizer?"}}) {
    const absl::Status status = CheckCalibration(row.calibration, *tiny);
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(std::string(status.message()) == row.message);
  }
}

}  // namespace
}  // namespace autoscheme
