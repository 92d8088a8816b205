// Quantizers where tensors lie on a device: by LibTorch's operators alone, and by the loops of its table.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <limits>
#include <memory>
#include <vector>

#include "quant/device_quant_api.h"
#include "quant/quantizer.h"
#include "support/generic_device.h"

namespace autoscheme {
namespace {

at::Tensor Random(at::IntArrayRef sizes, uint64_t seed) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed));
}

// What a quantizer makes of a tensor and of a gradient.
struct Made {
  at::Tensor whole, y, into, dx;
};

Made OfWeight(const WeightQuantizer& quantizer, const at::Tensor& w, const at::Tensor& g) {
  Made made;
  made.whole = quantizer.Prepare(w);
  made.y = quantizer.Forward(w, made.whole);
  made.into = at::empty_like(w, at::kBFloat16);
  quantizer.ForwardInto(w, made.whole, made.into);
  made.dx = quantizer.Backward(w, made.whole, g);
  return made;
}

Made OfActivation(const ActivationQuantizer& quantizer, const at::Tensor& x, const at::Tensor& g) {
  Made made;
  made.y = quantizer.Forward(x);
  made.into = at::empty_like(x, at::kBFloat16);
  quantizer.ForwardInto(x, made.into);
  made.dx = quantizer.Backward(x, g);
  return made;
}

// body(what, makes) for both sides of every scheme; makes(device) -> Made, with the device's tensors where there is
// one.
template <typename Body>
void ForEachQuantizer(const at::Tensor& x, const at::Tensor& g, const Body& body) {
  for (const Scheme& scheme : SchemeCatalogue()) {
    if (const std::shared_ptr<WeightQuantizer> quantizer = MakeWeightQuantizer(scheme).value();
        quantizer != nullptr && quantizer->CheckShape(x.size(0), x.size(1)).ok()) {
      INFO(scheme.name << ", weight");
      body(scheme, [&] { return OfWeight(*quantizer, x, g); });
    }
    if (const std::shared_ptr<ActivationQuantizer> quantizer = MakeActivationQuantizer(scheme).value()) {
      INFO(scheme.name << ", activation");
      body(scheme, [&] { return OfActivation(*quantizer, x, g); });
    }
  }
}

TEST_CASE("generic quantizers give the processor's bits, and gradients that differ in sums alone") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t width : {512, 300}) {
      const at::Tensor x = Random({64, width}, 1).to(dtype), g = Random({64, width}, 2).to(dtype);
      int seen = 0;
      ForEachQuantizer(x, g, [&](const Scheme& scheme, const auto& makes) {
        const Made host = makes();
        const GenericDevice device;
        const Made generic = makes();
        CHECK(generic.whole.defined() == host.whole.defined());
        if (host.whole.defined()) CHECK(at::equal(generic.whole, host.whole));
        CHECK(at::equal(generic.y, host.y));
        CHECK(at::equal(generic.into, host.into));
        // The gradient of a scale is rounded to fp16 or bfloat16 where the scale is.
        const bool rounded = dtype != at::kFloat || scheme.data_type == "int";
        const at::Tensor apart = (generic.dx.to(at::kFloat) - host.dx.to(at::kFloat)).abs();
        CHECK(apart.max().item<float>() <= (rounded ? 0.05 : 1e-5) * host.dx.to(at::kFloat).abs().max().item<float>());
        ++seen;
      });
      CHECK(seen > 20);
    }
  }
}

TEST_CASE("a generic search by an importance matrix gives the processor's bits") {
  const at::Tensor w = Random({24, 512}, 1);
  for (const bool zeros : {false, true}) {
    at::Tensor h = Random({512}, 3).square();
    if (zeros) h.narrow(0, 3, 100).zero_();
    for (const char* name : {"GGUF:Q2_K_S", "GGUF:Q3_K_S", "GGUF:Q4_K_S", "GGUF:Q5_K_S", "GGUF:Q6_K"}) {
      INFO(name << ", zeros: " << zeros);
      const auto quantizer = MakeWeightQuantizer(FindScheme(name).value(), h).value();
      const at::Tensor host = quantizer->Forward(w, {});
      const GenericDevice device;
      CHECK(at::equal(quantizer->Forward(w, {}), host));
    }
  }
}

// A table of quantizers that does the same by the baseline's loops, a group at a time, and counts its calls.
struct Counted {
  int forward = 0, backward = 0, k_quant = 0, amax = 0;
} counted;

std::vector<float> Read(const void* x, Number type, int64_t first, int64_t count) {
  std::vector<float> wide(static_cast<size_t>(count));
  const auto* narrow = static_cast<const uint16_t*>(x) + first;
  if (type == Number::kF32) std::copy_n(static_cast<const float*>(x) + first, count, wide.begin());
  if (type == Number::kBF16) cpu::kBaselineKernels.widen_bfloat16(narrow, count, wide.data());
  if (type == Number::kF16) cpu::kBaselineKernels.widen_half(narrow, count, wide.data());
  return wide;
}

void Write(const std::vector<float>& wide, void* y, Number type, int64_t first) {
  const auto count = static_cast<int64_t>(wide.size());
  if (type == Number::kF32) std::copy_n(wide.data(), count, static_cast<float*>(y) + first);
  if (type == Number::kBF16)
    cpu::kBaselineKernels.narrow_bfloat16(wide.data(), count, static_cast<uint16_t*>(y) + first);
}

// body(first, count) for the parts of every group that lie one behind the other, tile by tile.
template <typename Body>
void ForEachGroup(const DeviceGroups& groups, const Body& body) {
  const int64_t size = groups.size == 0 ? groups.run : groups.size;  // 0: the tensor is one group
  for (int64_t run = 0; run < groups.elements; run += groups.run) {
    for (int64_t at = 0; at < groups.run; at += size) body(run + at, std::min(size, groups.run - at));
  }
}

// The magnitude of the tile that an element is in.
float TileAmax(const DeviceGroups& groups, const void* x, Number type, int64_t element) {
  const int64_t width = groups.run, height = groups.elements / width, top = element / width / groups.tile_rows,
                left = element % width / groups.size * groups.size;
  float amax = 0;
  for (int64_t row = top * groups.tile_rows; row < std::min(height, (top + 1) * groups.tile_rows); ++row) {
    for (const float v : Read(x, type, row * width + left, std::min(groups.size, width - left)))
      amax = std::max(amax, std::abs(v));
  }
  return amax;
}

DeviceResult Forward(void*, const cpu::Format* format, const DeviceGroups* groups, const void* x, Number x_type,
                     const float* whole, void* y, Number y_type) {
  ++counted.forward;
  std::vector<float> amaxes;
  ForEachGroup(*groups, [&](int64_t first, int64_t count) {
    std::vector<float> values = Read(x, x_type, first, count);
    float amax = whole != nullptr ? *whole : 0;
    if (groups->tile_rows > 0) amax = TileAmax(*groups, x, x_type, first);
    const bool known = groups->tile_rows > 0 || (whole != nullptr && format->family != cpu::Family::kNvfp4);
    cpu::kBaselineKernels.forward(*format, values.data(), {1, count, count}, known ? &amax : nullptr,
                                  whole != nullptr ? *whole : 0, values.data());
    Write(values, y, y_type, first);
  });
  return DeviceResult::kOk;
}

DeviceResult Backward(void*, const cpu::Format* format, const DeviceGroups* groups, const void* x, Number x_type,
                      const void* grad, const float* whole, int32_t constant_whole, void* dx, Number type) {
  ++counted.backward;
  const bool one = whole != nullptr && format->family != cpu::Family::kNvfp4,
             moves = whole != nullptr && !constant_whole;
  ForEachGroup(*groups, [&](int64_t first, int64_t count) {
    const std::vector<float> values = Read(x, x_type, first, count);
    std::vector<float> g = Read(grad, type, first, count);
    cpu::WholeGradient part;
    cpu::kBaselineKernels.backward(*format, values.data(), g.data(), {1, count, count}, one ? whole : nullptr,
                                   whole != nullptr ? *whole : 0, g.data(), moves ? &part : nullptr);
    Write(g, dx, type, first);
  });
  return DeviceResult::kOk;
}

DeviceResult KQuant(void*, const cpu::KFormat* format, int64_t groups, const void* x, Number x_type,
                    const float* importance, int64_t importance_groups, void* y, Number y_type, int32_t* overflowed) {
  ++counted.k_quant;
  for (int64_t first = 0; first < groups; first += format->groups) {
    const int64_t at = first * format->group;
    std::vector<float> values = Read(x, x_type, at, format->groups * format->group);
    if (!cpu::kBaselineKernels.k_quant(*format, values.data(), format->groups, importance, importance_groups, first,
                                       values.data())) {
      *overflowed = 1;
    }
    Write(values, y, y_type, at);
  }
  return DeviceResult::kOk;
}

DeviceResult Amax(void*, const void* x, Number x_type, int64_t count, float* most) {
  ++counted.amax;
  *most = 0;
  for (const float v : Read(x, x_type, 0, count)) *most = std::max(*most, std::abs(v));
  return DeviceResult::kOk;
}

constexpr DeviceQuantApi kLoops = {Forward, Backward, KQuant, Amax};

DeviceApi WithLoops() {
  DeviceApi api = {};
  api.quant = &kLoops;
  return api;
}

TEST_CASE(
    "a device's loops are given the groups that the processor's take, and whatever they cannot do is not theirs") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t width : {512, 300}) {
      const at::Tensor x = Random({48, width}, 1).to(dtype), g = Random({48, width}, 2).to(dtype);
      counted = {};
      ForEachQuantizer(x, g, [&](const Scheme& scheme, const auto& makes) {
        const Made host = makes();
        const GenericDevice device(WithLoops());
        const Made own = makes();
        if (host.whole.defined()) CHECK(at::equal(own.whole, host.whole));
        CHECK(at::equal(own.y, host.y));
        CHECK(at::equal(own.into, host.into));
        // The test's table leaves out what flows through a scale of the whole tensor, which few elements get.
        CHECK(own.dx.ne(host.dx).sum().item<int64_t>() <= (scheme.data_type == "int" ? x.numel() / 8 : 2));
      });
      CHECK(counted.forward > 20);
      CHECK(counted.backward > 10);
      CHECK(counted.amax > 0);
      CHECK((counted.k_quant > 0) == (width == 512));
    }
  }
}

TEST_CASE("a k-quant that overflows on a device is worked by LibTorch's operators") {
  const at::Tensor w = at::full({8, 256}, 3e38f);
  for (const bool weighted : {false, true}) {
    const auto quantizer =
        MakeWeightQuantizer(FindScheme("GGUF:Q4_K_S").value(), weighted ? at::ones({256}) : at::Tensor()).value();
    const at::Tensor host = quantizer->Forward(w, {});
    const GenericDevice device(WithLoops());
    const at::Tensor own = quantizer->Forward(w, {});
    CHECK(own.isfinite().all().item<bool>());
    CHECK(at::equal(own, host));
  }
}

TEST_CASE("AUTOSCHEME_DEVICE_KERNELS=0 keeps to LibTorch's operators") {
  setenv("AUTOSCHEME_DEVICE_KERNELS", "0", 1);
  const GenericDevice device(WithLoops());
  unsetenv("AUTOSCHEME_DEVICE_KERNELS");
  counted = {};
  const auto quantizer = MakeWeightQuantizer(FindScheme("W4A16").value()).value();
  const at::Tensor w = Random({8, 256}, 1);
  CHECK(quantizer->Forward(w, {}).sizes() == w.sizes());
  CHECK(counted.forward == 0);
}

TEST_CASE("a loop that fails throws what the device says of it") {
  static const DeviceQuantApi fails = [] {
    DeviceQuantApi loops = kLoops;
    loops.forward = [](void*, const cpu::Format*, const DeviceGroups*, const void*, Number, const float*, void*,
                       Number) { return DeviceResult::kBroken; };
    return loops;
  }();
  DeviceApi api = {};
  api.quant = &fails;
  const GenericDevice device(api);
  const auto quantizer = MakeWeightQuantizer(FindScheme("W4A16").value()).value();
  CHECK_THROWS_WITH(quantizer->Forward(Random({8, 256}, 1), {}),
                    Catch::Contains("generic:0") && Catch::Contains("the table's own error"));
}

}  // namespace
}  // namespace autoscheme
