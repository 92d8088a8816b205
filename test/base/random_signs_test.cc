#include "base/random_signs.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

namespace autoscheme {
namespace {

std::vector<float> SignsOf(uint64_t row, int64_t first, int64_t count) {
  std::vector<float> signs(count);
  RandomSigns(row, first, count, signs.data());
  return signs;
}

TEST_CASE("signs are found by their place, however a row is divided") {
  const std::vector<float> whole = SignsOf(5, 0, 1000);
  for (const int64_t step : {1, 7, 64, 100}) {
    for (int64_t first = 0; first < 1000; first += step) {
      const int64_t count = std::min<int64_t>(step, 1000 - first);
      CHECK(SignsOf(5, first, count) == std::vector<float>(whole.begin() + first, whole.begin() + first + count));
    }
  }
}

TEST_CASE("signs are as many of one kind as of the other, and rows and columns have nothing to do with each other") {
  constexpr int64_t kRows = 200, kColumns = 4096;
  std::vector<std::vector<float>> rows;
  double sum = 0, of_neighbours = 0, of_rows = 0, of_words = 0;
  for (uint64_t r = 0; r < kRows; ++r) {
    rows.push_back(SignsOf(r, 0, kColumns));
    for (int64_t c = 0; c < kColumns; ++c) {
      const float sign = rows[r][c];
      REQUIRE(std::abs(sign) == 1);
      sum += sign;
      if (c > 0) of_neighbours += sign * rows[r][c - 1];
      if (c >= 64) of_words += sign * rows[r][c - 64];
      if (r > 0) of_rows += sign * rows[r - 1][c];
    }
  }
  // Four standard deviations of a sum of that many.
  const double most = 4 * std::sqrt(double{kRows * kColumns});
  CHECK(std::abs(sum) < most);
  CHECK(std::abs(of_neighbours) < most);
  CHECK(std::abs(of_rows) < most);
  CHECK(std::abs(of_words) < most);
}

}  // namespace
}  // namespace autoscheme
