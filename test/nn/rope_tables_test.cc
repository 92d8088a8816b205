#include "nn/rope_tables.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>

namespace autoscheme {
namespace {

TEST_CASE("rope tables: position p turns by p / theta^(2i/dim)") {
  RopeConfig rope;
  rope.theta = 1e6;
  const at::Tensor tables = RopeTables(rope, 4, 3);
  REQUIRE(tables.sizes() == at::IntArrayRef({2, 3, 2}));
  for (int p = 0; p < 3; ++p) {
    for (int i = 0; i < 2; ++i) {
      const double angle = p / std::pow(rope.theta, i / 2.0);
      CHECK(tables[0][p][i].item<double>() == Approx(std::cos(angle)).epsilon(1e-6));
      CHECK(tables[1][p][i].item<double>() == Approx(std::sin(angle)).margin(1e-7).epsilon(1e-6));
    }
  }
}

TEST_CASE("rope tables: linear scaling slows every frequency by its factor") {
  RopeConfig plain, slowed;
  slowed.type = "linear", slowed.factor = 2;
  CHECK(at::allclose(RopeTables(plain, 8, 4).narrow(1, 1, 1), RopeTables(slowed, 8, 4).narrow(1, 2, 1)));
}

}  // namespace
}  // namespace autoscheme
