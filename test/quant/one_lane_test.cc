// What a device runs (one lane to a thread), in plain memory, against the CPU's fused loops: every scheme's numbers to
// the bit.
#include "quant/one_lane.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "quant/codec.h"
#include "quant/fused.h"
#include "quant/k_quant.h"

namespace autoscheme {
namespace {

// Stretches of common values, and some with values of all magnitudes, zeros, the ends of the range and, where asked
// for, what is not finite.
at::Tensor Values(int64_t rows, int64_t width, bool finite, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const float top = std::numeric_limits<float>::max();
  const float odd[] = {0.0f, -0.0f, 1e-45f, -1e-40f, 1.1754944e-38f, top, -top, 65504.0f, 65520.0f, -2e6f, 0.5f, 2.5f};
  const float wild[] = {INFINITY, -INFINITY, NAN};
  at::Tensor x = at::empty({rows, width});
  float* v = x.mutable_data_ptr<float>();
  float scale = 1;
  unsigned stretch = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    if (i % 16 == 0) stretch = random() % 32;
    if (i % 512 == 0) scale = std::ldexp(1.0f, static_cast<int>(random() % 24) - 16);
    v[i] = normal(random) * scale;
    if (stretch == 0) v[i] = odd[random() % 12];
    if (stretch == 1) v[i] = std::ldexp(normal(random), static_cast<int>(random() % 280) - 150);
    if (stretch == 2)
      v[i] = std::ldexp(1.0f, static_cast<int>(random() % 40) - 20) * (random() % 2 == 0 ? 1.5f : -1.0f);
    if (stretch == 3 && !finite && random() % 256 == 0) v[i] = wild[random() % 3];
    if (stretch >= 4 && stretch < 6) v[i] = 0;
  }
  return x;
}

Number NumberOf(at::ScalarType type) {
  return type == at::kFloat ? Number::kF32 : type == at::kBFloat16 ? Number::kBF16 : Number::kF16;
}

// Elements whose bits differ, but for those of NaNs; -0 and 0 are two.
int64_t Differing(const at::Tensor& a, const at::Tensor& b) {
  if (std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0) return 0;
  const at::ScalarType bits = a.scalar_type() == at::kFloat ? at::kInt : at::kShort;
  const at::Tensor both_nan = a.isnan().logical_and_(b.isnan());
  return a.view(bits).ne(b.view(bits)).logical_and_(both_nan.logical_not()).sum().item<int64_t>();
}

// Both sides of every scheme that have a fused loop, each kind of number and group once.
std::vector<Side> Sides() {
  std::vector<Side> all;
  std::set<std::string> seen;
  const auto add = [&](const Side& side) {
    const std::string key = std::string(side.type->name) + " " + std::to_string(side.bits) + " " +
                            std::to_string(side.group.size) + "x" + std::to_string(side.group.rows) +
                            (side.sym ? " sym " : " asym ") + std::to_string(side.act_bits <= 8) +
                            (side.weight ? " w" : " a");
    if (seen.insert(key).second) all.push_back(side);
  };
  for (const Scheme& s : SchemeCatalogue()) {
    if (s.QuantizesWeight()) add({true, TypeOf(s), s.bits, s.group, s.sym, s.act_bits.value_or(16)});
    if (!s.QuantizesActivation()) continue;
    const int bits = *s.act_bits;
    add({false, FindDataType(s.act_data_type.value_or(s.data_type), bits), bits, s.act_group.value_or(s.group),
         s.act_sym.value_or(s.sym), bits});
  }
  return all;
}

std::string NameOf(const Side& side) {
  return std::string(side.type->name) + std::to_string(side.bits) + (side.sym ? "" : " asym") + " group " +
         std::to_string(side.group.size) + "x" + std::to_string(side.group.rows) + (side.weight ? " weight" : " act") +
         " act_bits " + std::to_string(side.act_bits);
}

DeviceGroups GroupsOfSide(const Side& side, const at::Tensor& x) {
  return GroupsOf(side.group.size, side.group.rows, x.numel(), x.size(-1));
}

at::Tensor WholeOf(bool needed, float whole) { return needed ? at::scalar_tensor(whole, at::kFloat) : at::Tensor(); }

void CheckForward(const Side& side, const cpu::Format& format, const at::Tensor& x, at::ScalarType into) {
  const DeviceGroups groups = GroupsOfSide(side, x);
  const bool needed = NeedsWholeTensor(*side.type, side.group);
  const float whole = needed ? Amax(x).item<float>() : 0;
  at::Tensor want = at::empty_like(x, into), got = at::empty_like(x, into);
  FusedForward(format, side.group, x, WholeOf(needed, whole), want);
  REQUIRE(kOneLaneQuant.forward(nullptr, &format, &groups, x.const_data_ptr(), NumberOf(x.scalar_type()),
                                needed ? &whole : nullptr, got.mutable_data_ptr(),
                                NumberOf(into)) == DeviceResult::kOk);
  INFO(NameOf(side) << ", " << x.size(0) << " x " << x.size(1) << " " << x.scalar_type() << " into " << into);
  CHECK(Differing(want, got) == 0);
}

TEST_CASE("one lane quantizes every scheme as the CPU does, to the bit") {
  // 4.2 million elements of each, and rows that groups do not fill.
  const std::vector<at::Tensor> inputs = {Values(1024, 4096, true, 1), Values(150, 1001, false, 2),
                                          Values(5, 7, true, 3), Values(40, 4096, false, 4)};
  std::vector<at::Tensor> narrow;
  for (const at::Tensor& x : inputs) narrow.push_back(x.to(at::kBFloat16));
  int loops = 0;
  for (const Side& side : Sides()) {
    const auto codec = MakeCodec(side);
    for (const at::ScalarType as : {at::kFloat, at::kBFloat16}) {
      const std::optional<cpu::Format> format = codec->FusedForward(as);
      if (!format.has_value()) continue;
      ++loops;
      for (const at::Tensor& x : as == at::kFloat ? inputs : narrow) CheckForward(side, *format, x, as);
      for (const at::ScalarType from : {at::kFloat, at::kBFloat16, at::kHalf}) {
        for (const at::ScalarType into : {at::kFloat, at::kBFloat16}) {
          CheckForward(side, *format, inputs[1].to(from), into);
        }
      }
    }
  }
  CHECK(loops >= 30);
}

// Whether a gradient flows through one scale of the tensor, whose sum has an order of its own.
bool ThroughWhole(const Side& side, bool constant_whole) {
  return side.group.size == 0 || (side.type->codec == Codec::kNvfp4 && !constant_whole);
}

void CheckBackward(const Side& side, const GroupCodec& codec, const at::Tensor& x, const at::Tensor& grad) {
  const std::optional<cpu::Format> format = codec.FusedBackward(x.scalar_type());
  if (!format.has_value() || side.group.rows > 0) return;
  const DeviceGroups groups = GroupsOfSide(side, x);
  const bool needed = NeedsWholeTensor(*side.type, side.group);
  const float whole = needed ? Amax(x).item<float>() : 0;
  const bool constant = !codec.backward_needs_whole_tensor();
  at::Tensor want = at::empty_like(x), got = grad.clone();
  FusedBackward(*format, side.group, x, grad, WholeOf(needed, whole), constant, want);
  const Number type = NumberOf(x.scalar_type());
  REQUIRE(kOneLaneQuant.backward(nullptr, &*format, &groups, x.const_data_ptr(), type, got.const_data_ptr(),
                                 needed ? &whole : nullptr, constant, got.mutable_data_ptr(),
                                 type) == DeviceResult::kOk);
  INFO(NameOf(side) << ", " << x.size(0) << " x " << x.size(1) << " " << x.scalar_type());
  if (!ThroughWhole(side, constant)) {
    CHECK(Differing(want, got) == 0);
    return;
  }
  const at::Tensor holders = x.abs().eq(x.abs().max());
  CHECK(Differing(want.masked_fill(holders, 0), got.masked_fill(holders, 0)) == 0);
  const double relative = x.scalar_type() == at::kFloat ? 1e-6 : 1.0 / 256;  // a last bit of bfloat16
  CHECK(at::allclose(want.to(at::kDouble), got.to(at::kDouble), relative, 0, /*equal_nan=*/true));
}

TEST_CASE("one lane differentiates every scheme as the CPU does, to the bit but for one scale of the tensor") {
  const std::vector<at::Tensor> inputs = {Values(1024, 4096, true, 5), Values(300, 1001, false, 6),
                                          Values(5, 7, true, 7), at::zeros({3, 4096}), at::ones({3, 4096}).mul_(-2.5f)};
  int loops = 0;
  for (const Side& side : Sides()) {
    const auto codec = MakeCodec(side);
    for (const at::ScalarType as : {at::kFloat, at::kBFloat16}) {
      if (codec->FusedBackward(as).has_value() && side.group.rows == 0) ++loops;
      for (const at::Tensor& x : inputs) {
        const at::Tensor grad = at::randn(x.sizes()).to(as);
        CheckBackward(side, *codec, x.to(as), grad);
        // Without values at the ends of the range, so that a gradient flows through the tensor's scale.
        if (ThroughWhole(side, !codec->backward_needs_whole_tensor())) {
          CheckBackward(side, *codec, x.nan_to_num(0, 4, -4).clamp(-4, 4).to(as), grad);
        }
      }
    }
  }
  CHECK(loops >= 20);
}

TEST_CASE("one lane quantizes k-quants as the CPU does, to the bit") {
  int types = 0;
  for (const DataType& type : DataTypes()) {
    if (type.super.groups == 0) continue;
    ++types;
    for (const at::ScalarType as : {at::kFloat, at::kBFloat16}) {
      const cpu::KFormat format = KFormatOf(type, as);
      const at::Tensor x = Values(400, 1024, true, 8).to(as), importance = at::rand({1024}).add_(0.01);
      const int64_t groups = x.numel() / format.group, repeat = importance.numel() / format.group;
      for (const bool weighted : {false, true}) {
        for (const at::ScalarType into : {at::kFloat, at::kBFloat16}) {
          at::Tensor want = at::empty_like(x, into), got = at::empty_like(x, into);
          int32_t overflowed = 0;
          const bool finite = FusedKQuant(format, x, weighted ? importance : at::Tensor(), want);
          REQUIRE(kOneLaneQuant.k_quant(nullptr, &format, groups, x.const_data_ptr(), NumberOf(as),
                                        weighted ? importance.const_data_ptr<float>() : nullptr, repeat,
                                        got.mutable_data_ptr(), NumberOf(into), &overflowed) == DeviceResult::kOk);
          INFO(type.name << type.bits[0] << (weighted ? " weighted " : " ") << as << " into " << into);
          CHECK(Differing(want, got) == 0);
          CHECK((overflowed == 0) == finite);
        }
      }
    }
  }
  CHECK(types == 5);
}

TEST_CASE("one lane says that a k-quant overflowed") {
  const cpu::KFormat format = KFormatOf(*FindDataType("int_asym_dq", 4), at::kFloat);
  at::Tensor x = at::full({1, 256}, 3e38f), y = at::empty_like(x);
  x.view({-1}).slice(0, 0, 128).neg_();
  for (const float scale : {1.0f, 1e-3f}) {
    const at::Tensor scaled = x * scale;
    int32_t overflowed = 0;
    REQUIRE(kOneLaneQuant.k_quant(nullptr, &format, 8, scaled.const_data_ptr(), Number::kF32, nullptr, 1,
                                  y.mutable_data_ptr(), Number::kF32, &overflowed) == DeviceResult::kOk);
    CHECK((overflowed == 0) == FusedKQuant(format, scaled, {}, y));
  }
}

TEST_CASE("one lane refuses what it does not take") {
  cpu::Format format;
  format.family = cpu::Family::kIntAsym, format.levels = 15, format.least_scale = 1e-5f;
  DeviceGroups groups = GroupsOf(4, 0, 8, 8);
  const float x[8] = {}, whole = 1;
  float y[8] = {};
  const auto forward = [&](const float* given, Number into) {
    return kOneLaneQuant.forward(nullptr, &format, &groups, x, Number::kF32, given, y, into);
  };
  CHECK(forward(nullptr, Number::kF32) == DeviceResult::kOk);
  CHECK(forward(nullptr, Number::kF16) == DeviceResult::kFailed);
  CHECK(kOneLaneQuant.backward(nullptr, &format, &groups, x, Number::kF32, x, nullptr, 1, y, Number::kF32) ==
        DeviceResult::kFailed);
  groups = GroupsOf(0, 0, 8, 8);
  CHECK(forward(&whole, Number::kF32) == DeviceResult::kFailed);  // integers have no scale of the tensor
  format.family = cpu::Family::kFp8, format.top = 448, format.log2_steps = 3, format.least_exponent = -6;
  CHECK(forward(nullptr, Number::kF32) == DeviceResult::kFailed);
  CHECK(forward(&whole, Number::kF32) == DeviceResult::kOk);
}

TEST_CASE("one lane finds the largest magnitude that the CPU finds") {
  for (const bool finite : {true, false}) {
    for (const at::ScalarType as : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor x = Values(300, 1001, finite, 9).to(as);
      float most = -1;
      REQUIRE(kOneLaneQuant.amax(nullptr, x.const_data_ptr(), NumberOf(as), x.numel(), &most) == DeviceResult::kOk);
      const auto want = Amax(x).item<float>();
      CHECK((most == want || (std::isnan(most) && std::isnan(want))));
    }
  }
}

TEST_CASE("one lane's sum of products is exact to 1e-12, and adds to what is there") {
  const std::vector<at::ScalarType> types = {at::kFloat, at::kBFloat16, at::kHalf};
  for (const int64_t count : {int64_t{1}, int64_t{777}, int64_t{100003}, int64_t{4200001}}) {
    for (size_t i = 0; i < types.size(); ++i) {
      const at::Tensor grad = at::randn({count}).to(types[i]), w = at::randn({count}).to(types[(i + 1) % 3]),
                       wq = (w.to(at::kFloat) + at::randn({count}) * 0.1).to(types[(i + 2) % 3]);
      double sum = 3;
      REQUIRE(OneLaneAddAbsProducts(nullptr, grad.const_data_ptr(), NumberOf(grad.scalar_type()), w.const_data_ptr(),
                                    NumberOf(w.scalar_type()), wq.const_data_ptr(), NumberOf(wq.scalar_type()), count,
                                    &sum) == DeviceResult::kOk);
      const at::Tensor terms = grad.to(at::kFloat).mul(w.to(at::kFloat).sub(wq.to(at::kFloat))).abs_();
      const float* t = terms.const_data_ptr<float>();
      long double want = 3;
      for (int64_t k = 0; k < count; ++k) want += t[k];
      CHECK(std::fabs(static_cast<double>(sum / want - 1)) < 1e-12);
    }
  }
}

TEST_CASE("one lane counts what is not finite and names the first") {
  for (const at::ScalarType as : {at::kFloat, at::kBFloat16, at::kHalf}) {
    at::Tensor x = at::full({1000}, 60000).to(as);
    NonFinite found = {7, 7};
    const auto look = [&] {
      return OneLaneFindNonFinite(nullptr, DeviceStream::kUp, x.const_data_ptr(), x.numel(), NumberOf(as), &found);
    };
    REQUIRE(look() == DeviceResult::kOk);
    CHECK(found.count == 0);
    CHECK(found.first == -1);
    x[900] = INFINITY, x[313] = NAN, x[999] = -INFINITY;
    REQUIRE(look() == DeviceResult::kOk);
    CHECK(found.count == 3);
    CHECK(found.first == 313);
  }
}

}  // namespace
}  // namespace autoscheme
