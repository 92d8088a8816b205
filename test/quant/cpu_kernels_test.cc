// The fused loops against the ATen expressions of the same codecs, bit for bit.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "quant/codec.h"

namespace autoscheme {
namespace {

// Rows around every power of two, where logarithms round; around halves of codes; and of all magnitudes.
std::vector<at::Tensor> Inputs(at::ScalarType dtype) {
  const auto generator = at::detail::createCPUGenerator(1);
  std::vector<at::Tensor> all = {at::randn({300, 96}, generator), at::randn({64, 37}, generator),
                                 at::randn({5, 3}, generator), at::zeros({3, 32})};
  std::vector<float> near_powers;
  for (int exponent = -140; exponent <= 127; ++exponent) {
    float below = std::ldexp(1.0f, exponent), above = below;
    for (int i = 0; i < 120; ++i) {
      near_powers.push_back(i % 2 == 0 ? below : -above);
      below = std::nextafter(below, 0.0f);
      above = std::nextafter(above, std::numeric_limits<float>::max());
    }
  }
  const int64_t rows = static_cast<int64_t>(near_powers.size()) / 8;
  // Groups of one value each show the shared scale; groups of many show the elements.
  all.push_back(at::tensor(near_powers).reshape({-1, 1}).repeat({1, 4}));
  all.push_back(at::tensor(near_powers).narrow(0, 0, rows * 8).reshape({rows, 8}));
  all.push_back(at::arange(-96, 96).to(at::kFloat).div_(8).reshape({2, 96}));
  all.push_back(at::randn({64, 64}, generator) * at::randn({64, 1}, generator).mul_(25).exp2_());
  for (at::Tensor& x : all) x = x.to(dtype).contiguous();
  return all;
}

void CheckAgree(Side side, std::unique_ptr<GroupCodec> (*make)(const Side&)) {
  const auto fused = make(side);
  side.fused = false;
  const auto plain = make(side);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    int input = 0;
    for (const at::Tensor& x : Inputs(dtype)) {
      at::Tensor a = at::empty_like(x), b = at::empty_like(x);
      fused->ForwardInto(x, {}, a);
      plain->ForwardInto(x, {}, b);
      INFO(side.data_type << side.bits << " act_bits " << side.act_bits << ", input " << input++ << ", "
                          << (dtype == at::kFloat ? "float32" : "bfloat16"));
      CHECK(a.equal(b));
    }
  }
}

TEST_CASE("fused symmetric integers are those of the ATen expression") {
  for (const int act_bits : {16, 8}) {
    for (const int bits : {2, 3, 4, 5, 6, 7, 8}) {
      Side side;
      side.bits = bits;
      side.act_bits = act_bits;
      side.data_type = "int";
      CheckAgree(side, MakeIntCodec);
    }
  }
}

TEST_CASE("fused MX formats are those of the ATen expression") {
  for (const char* data_type : {"mx_fp", "mx_fp_rceil", "mx_int"}) {
    for (const int bits : {4, 6, 8}) {
      if (bits != 4 && std::string(data_type) == "mx_int") continue;
      Side side;
      side.bits = bits;
      side.data_type = data_type;
      CheckAgree(side, MakeMxCodec);
    }
  }
}

}  // namespace
}  // namespace autoscheme
