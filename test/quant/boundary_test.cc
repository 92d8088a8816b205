// Values at the edges of a format: what a step of the last bit decides.
#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "quant/quantizer.h"

namespace autoscheme {
namespace {

using Shapes = std::vector<std::vector<int64_t>>;

at::Tensor QuantizeWeight(const std::string& scheme, const at::Tensor& w) {
  const auto quantizer = MakeWeightQuantizer(FindScheme(scheme).value()).value();
  return quantizer->Forward(w, quantizer->Prepare(w));
}

TEST_CASE("the float just below half a step of an MX format goes up, as in the reference") {
  // Groups of 32 whose largest, 4 (or 1.75), makes the scale 1; then half of the smallest step, with its neighbours.
  struct Case {
    const char* scheme;
    float largest, step;
  };
  for (const Case& c : {Case{"MXFP4", 4, 0.5f}, Case{"MXFP6", 4, 0.125f}, Case{"MXFP8", 256, 0.001953125f},
                        Case{"MXINT4", 1.75f, 0.25f}}) {
    INFO(c.scheme);
    const float half = c.step / 2, below = std::nextafter(half, 0.0f), lower = std::nextafter(below, 0.0f);
    at::Tensor w = at::zeros({1, 32});
    const std::vector<float> values = {c.largest, half, below, -below, lower, std::nextafter(half, 1.0f)};
    w.narrow(1, 0, 6).copy_(at::tensor(values).view({1, 6}));
    // The tie itself goes to the even code, 0; the float below it does not: floor(0.49999997f + 0.5f) is 1.
    const std::vector<float> expected = {c.largest, 0, c.step, -c.step, 0, c.step};
    CHECK(QuantizeWeight(c.scheme, w).narrow(1, 0, 6).equal(at::tensor(expected).view({1, 6})));
  }
}

TEST_CASE("a value that overflows a k-quant's sums moves no finite value of its block") {
  // One group of the block reaches both ends of float32: its range is infinite. The other groups have their own scales,
  // of which the block's common factor leaves only the smallest.
  const at::Tensor calm = at::linspace(-1, 1, 256).view({1, 256});
  at::Tensor w = calm.clone();
  w[0][0] = 3.4028235e38f;
  for (const char* scheme : {"GGUF:Q2_K_S", "GGUF:Q4_K_S", "GGUF:Q5_K_S", "GGUF:Q3_K_S", "GGUF:Q6_K"}) {
    INFO(scheme);
    const at::Tensor one_end = QuantizeWeight(scheme, w);
    CHECK(one_end.isfinite().all().item<bool>());
    at::Tensor both = w.clone();
    both[0][1] = -3.4028235e38f;
    CHECK(QuantizeWeight(scheme, both).isfinite().all().item<bool>());
  }
}

TEST_CASE("quantizing leaves the weight as it was, with an importance matrix too") {
  const at::Tensor w = at::linspace(-2.3, 3.1, 16 * 256).view({16, 256}), before = w.clone(),
                   h = at::linspace(0.5, 2, 256);
  for (const Scheme& scheme : SchemeCatalogue()) {
    if (!scheme.QuantizesWeight()) continue;
    INFO(scheme.name);
    QuantizeWeight(scheme.name, w);
    MakeWeightQuantizer(scheme, h).value()->Forward(w, MakeWeightQuantizer(scheme, h).value()->Prepare(w));
    CHECK(w.equal(before));
  }
}

TEST_CASE("ceil scales are for activations: weights under MXFP4_RCEIL are those under MXFP4") {
  const at::Tensor w = at::linspace(-2.3, 3.1, 16 * 256).view({16, 256});
  for (const std::string scheme : {"MXFP4", "MXFP8"}) {
    INFO(scheme);
    CHECK(QuantizeWeight(scheme + "_RCEIL", w).equal(QuantizeWeight(scheme, w)));
    const auto floor = MakeActivationQuantizer(FindScheme(scheme).value()).value();
    CHECK_FALSE(
        MakeActivationQuantizer(FindScheme(scheme + "_RCEIL").value()).value()->Forward(w).equal(floor->Forward(w)));
  }
}

TEST_CASE("tensors without elements pass through") {
  for (const Scheme& scheme : SchemeCatalogue()) {
    INFO(scheme.name);
    for (const std::vector<int64_t>& sizes : Shapes{{0, 256}, {16, 0}}) {
      const at::Tensor empty = at::empty(sizes);
      if (scheme.QuantizesWeight()) {
        const auto quantizer = MakeWeightQuantizer(scheme).value();
        CHECK(quantizer->Forward(empty, quantizer->Prepare(empty)).sizes() == empty.sizes());
        CHECK(quantizer->Backward(empty, quantizer->Prepare(empty), empty).sizes() == empty.sizes());
      }
      if (scheme.QuantizesActivation()) {
        const auto quantizer = MakeActivationQuantizer(scheme).value();
        CHECK(quantizer->Forward(empty).sizes() == empty.sizes());
        CHECK(quantizer->Backward(empty, empty).sizes() == empty.sizes());
      }
    }
  }
}

TEST_CASE("single columns, single rows and ragged rows are quantized as their groups are") {
  for (const Scheme& scheme : SchemeCatalogue()) {
    if (!scheme.QuantizesWeight() || scheme.super_bits.has_value()) continue;
    INFO(scheme.name);
    for (const std::vector<int64_t>& sizes : Shapes{{1, 1}, {3, 1}, {1, 130}, {5, 17}}) {
      const at::Tensor w = at::linspace(-2.3, 3.1, sizes[0] * sizes[1]).view(sizes);
      const at::Tensor y = QuantizeWeight(scheme.name, w);
      REQUIRE(y.sizes() == w.sizes());
      // Half a step of the coarsest code, or what MXFP4 clips.
      CHECK((y - w).abs().max().item<float>() <= w.abs().max().item<float>() * (scheme.bits == 2 ? 0.51f : 0.26f));
    }
  }
}

}  // namespace
}  // namespace autoscheme
