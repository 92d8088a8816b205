#include "exec/embedding.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

// Row i of the embedding is 100 i, 100 i + 1, ..; but for one row it may be NaN.
TinySkeleton Counting(int nan_row = -1) {
  TinyModel model;
  model.dtype = "F32";
  std::vector<RawTensor> tensors = MakeTinyTensors(model);
  std::vector<float> values(model.vocab * model.hidden);
  for (int64_t i = 0; i < model.vocab; ++i) {
    for (int64_t j = 0; j < model.hidden; ++j) {
      values[i * model.hidden + j] = i == nan_row ? NAN : static_cast<float>(100 * i + j);
    }
  }
  std::memcpy(tensors[0].bytes.data(), values.data(), tensors[0].bytes.size());
  return TinySkeleton(model, tensors);
}

TEST_CASE("the rows of a micro-batch are gathered in the order of its ids, and each row is read once") {
  const TinySkeleton tiny = Counting();
  const Calibration calibration = RowsOf(3, 2, {9, 1, 63, 1, 2, 0});
  const uint64_t before = tiny->checkpoint().bytes_read();
  const EmbeddingRows rows = EmbeddingRows::Read(*tiny, calibration).value();
  CHECK(tiny->checkpoint().bytes_read() - before == 5 * 32 * 4);  // 0, 1, 2, 9, 63
  const at::Tensor x = rows.Of(calibration, {0, 1, 2, true}, at::empty({2, 2, 32}));
  const int ids[2][2] = {{63, 1}, {2, 0}};
  for (const int row : {0, 1}) {
    for (const int token : {0, 1}) {
      CHECK(at::equal(x[row][token], at::arange(32, at::kFloat) + 100 * ids[row][token]));
    }
  }
}

TEST_CASE("rows are converted to the dtype of their place") {
  const TinySkeleton tiny = Counting();
  const Calibration calibration = RowsOf(1, 2, {1, 3});
  const EmbeddingRows rows = EmbeddingRows::Read(*tiny, calibration).value();
  const at::Tensor x = rows.Of(calibration, {0, 0, 1, true}, at::empty({1, 2, 32}, at::kBFloat16));
  CHECK(x.scalar_type() == at::kBFloat16);
  CHECK(at::equal(x[0][1], (at::arange(32, at::kFloat) + 300).to(at::kBFloat16)));
}

TEST_CASE("NaN in a row that occurs is refused, in another it is nobody's") {
  const TinySkeleton tiny = Counting(/*nan_row=*/7);
  CHECK(EmbeddingRows::Read(*tiny, RowsOf(1, 2, {6, 8})).ok());
  const absl::Status status = EmbeddingRows::Read(*tiny, RowsOf(1, 2, {6, 7})).status();
  CHECK(status.code() == absl::StatusCode::kDataLoss);
  CHECK_THAT(std::string(status.message()), Catch::Contains("\"model.embed_tokens.weight\" holds 32 NaN"));
}

}  // namespace
}  // namespace autoscheme
