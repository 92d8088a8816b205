// The fused loops against the ATen expressions of the same codecs, bit for bit.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "quant/codec.h"
#include "quant/grouped.h"
#include "quant/k_quant.h"

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

// What a codec has on either side, with and without the fused loops.
struct Pair {
  Pair(Side side, const GroupSize& group) {
    side.group = group;
    fused_weight = MakeGroupedWeight(side);
    fused = MakeGroupedActivation(side);
    side.fused = false;
    plain_weight = MakeGroupedWeight(side);
    plain = MakeGroupedActivation(side);
  }
  std::unique_ptr<WeightQuantizer> fused_weight, plain_weight;
  std::unique_ptr<ActivationQuantizer> fused, plain;
};

// The same numbers, and NaN in the same places.
bool Same(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.eq(b).logical_or_(a.isnan().logical_and_(b.isnan())).all().item<bool>();
}

void CheckForward(const Side& side, const GroupSize& group) {
  const Pair pair(side, group);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    int input = 0;
    for (const at::Tensor& x : Inputs(dtype)) {
      INFO(side.type->name << side.bits << " act_bits " << side.act_bits << " group " << group.size << "x" << group.rows
                           << ", input " << input++ << ", " << (dtype == at::kFloat ? "float32" : "bfloat16"));
      const at::Tensor prepared = pair.fused_weight->Prepare(x), plain_prepared = pair.plain_weight->Prepare(x);
      CHECK(prepared.defined() == plain_prepared.defined());
      const at::Tensor y = pair.plain_weight->Forward(x, prepared);
      CHECK(Same(pair.fused_weight->Forward(x, prepared), y));
      for (const at::ScalarType into : {at::kFloat, at::kBFloat16}) {
        at::Tensor a = at::empty_like(x, into), b = at::empty_like(a);
        pair.fused_weight->ForwardInto(x, prepared, a);
        pair.plain_weight->ForwardInto(x, prepared, b);
        CHECK(Same(a, b));
      }
    }
  }
}

// Sums run in another order: the elements that set the range may differ in last digits, the others may not.
void CheckBackward(const Side& side, const GroupSize& group) {
  const Pair pair(side, group);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    int input = 0;
    for (const at::Tensor& x : Inputs(dtype)) {
      const at::Tensor g = at::randn(x.sizes(), at::detail::createCPUGenerator(7)).to(dtype);
      INFO(side.type->name << side.bits << " act_bits " << side.act_bits << " group " << group.size << ", input "
                           << input++ << ", " << (dtype == at::kFloat ? "float32" : "bfloat16"));
      const at::Tensor a = pair.fused->Backward(x, g).to(at::kFloat), b = pair.plain->Backward(x, g).to(at::kFloat);
      // Integers round the sums to fp16 or bfloat16 on the way.
      const bool coarse = dtype != at::kFloat || side.act_bits <= 8;
      const double relative = coarse ? 1.0 / 64 : side.type->codec == Codec::kInt ? 1.0 / 512 : 1e-4;
      const double absolute = relative * g.to(at::kFloat).abs().max().item<double>();
      CHECK(at::allclose(a, b, relative, absolute));
      const int64_t size = group.size > 0 ? std::min<int64_t>(group.size, x.size(-1)) : x.size(-1);
      const int64_t groups = group.size == 0 ? 1 : x.numel() / x.size(-1) * ((x.size(-1) + size - 1) / size);
      CHECK(a.ne(b).sum().item<int64_t>() <= 2 * groups);
    }
  }
}

void CheckBoth(const Side& side, const GroupSize& group) {
  CheckForward(side, group);
  CheckBackward(side, group);
}

TEST_CASE("fused symmetric integers are those of the ATen expression") {
  for (const int act_bits : {16, 8}) {
    for (const int bits : {2, 3, 4, 5, 6, 7, 8}) {
      Side side;
      side.bits = bits;
      side.act_bits = act_bits;
      side.type = FindDataType("int", bits);
      for (const int size : {32, 128, -1}) CheckForward(side, {size, 0});
      if (bits == 4 || bits == 8) CheckBackward(side, {32, 0});
    }
  }
}

TEST_CASE("fused asymmetric integers are those of the ATen expression") {
  for (const char* data_type : {"int", "int_asym_float_zp"}) {
    for (const int act_bits : {16, 8}) {
      for (const int bits : {2, 4, 5, 8}) {
        Side side;
        side.bits = bits;
        side.act_bits = act_bits;
        side.sym = false;
        side.type = FindDataType(data_type, bits);
        CheckForward(side, {32, 0});
        CheckForward(side, {-1, 0});
      }
    }
  }
}

TEST_CASE("fused MX formats are those of the ATen expression") {
  for (const char* data_type : {"mx_fp", "mx_fp_rceil", "mx_int"}) {
    for (const int bits : {4, 6, 8}) {
      if (bits != 4 && std::string(data_type) == "mx_int") continue;
      Side side;
      side.bits = bits;
      side.type = FindDataType(data_type, bits);
      CheckBoth(side, {32, 0});
      CheckForward(side, {-1, 0});
    }
  }
}

TEST_CASE("fused NVFP4 is that of the ATen expression") {
  for (const bool weight : {true, false}) {
    Side side;
    side.weight = weight;
    side.type = FindDataType("nv_fp", 4);
    CheckBoth(side, {16, 0});
  }
}

TEST_CASE("fused NVFP4 with E5M3 scales is that of the ATen expression") {
  Side side;
  side.type = FindDataType("nvfp4_v2", 4);
  for (const int size : {16, 32}) CheckBoth(side, {size, 0});
}

TEST_CASE("fused FP8 is that of the ATen expression") {
  Side side;
  side.bits = 8;
  side.type = FindDataType("fp", 8);
  for (const int size : {128, -1, 0}) CheckBoth(side, {size, 0});
  for (const GroupSize& tile : {GroupSize{128, 128}, GroupSize{16, 4}}) CheckForward(side, tile);
}

// Widths that whole super-groups fill.
std::vector<at::Tensor> SuperGroups(at::ScalarType dtype) {
  const auto generator = at::detail::createCPUGenerator(3);
  std::vector<at::Tensor> all = {at::randn({9, 512}, generator), at::randn({48, 96}, generator).mul_(0.02),
                                 at::zeros({2, 256}),
                                 at::randn({16, 256}, generator) * at::randn({16, 1}, generator).mul_(25).exp2_()};
  all.push_back(at::randn({8, 256}, generator));
  all.back().narrow(1, 16, 48).zero_();
  all.push_back(at::full({8, 256}, 3e38f));
  all.back().narrow(0, 0, 2).neg_();
  for (at::Tensor& x : all) x = x.to(dtype).contiguous();
  return all;
}

// The weight side of each k-quant.
std::vector<Side> KQuants() {
  std::vector<Side> all;
  for (const DataType& type : DataTypes()) {
    if (type.super.groups > 0) all.push_back({true, &type, type.bits[0], {type.groups[0], 0}, type.super.sym});
  }
  return all;
}

TEST_CASE("fused k-quants are those of the ATen expression") {
  REQUIRE(KQuants().size() == 5);
  for (const Side& side : KQuants()) {
    const Pair pair(side, side.group);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      int input = 0;
      for (const at::Tensor& x : SuperGroups(dtype)) {
        INFO(side.bits << " bits, input " << input++ << ", " << (dtype == at::kFloat ? "float32" : "bfloat16"));
        CHECK(Same(pair.fused_weight->Forward(x, {}), pair.plain_weight->Forward(x, {})));
      }
    }
  }
}

TEST_CASE("the fused search of k-quants is that of the ATen expression") {
  for (const Side& side : KQuants()) {
    Side plain = side;
    plain.fused = false;
    for (const bool zeros : {false, true}) {
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        int input = 0;
        for (const at::Tensor& x : SuperGroups(dtype)) {
          at::Tensor h = at::rand({x.size(1)}, at::detail::createCPUGenerator(4)).add_(0.1);
          if (zeros) h.narrow(0, 3, 30).zero_();
          INFO(side.bits << " bits, input " << input++ << ", " << (dtype == at::kFloat ? "float32" : "bfloat16"));
          const at::Tensor y = MakeKQuantSearch(plain, h)->Forward(x, {});
          CHECK(Same(MakeKQuantSearch(side, h)->Forward(x, {}), y));
        }
      }
    }
  }
}

}  // namespace
}  // namespace autoscheme
