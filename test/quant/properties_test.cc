// What holds for every scheme, or for every scheme of a kind, on random and on hard inputs.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "quant/quantizer.h"

namespace autoscheme {
namespace {

at::Tensor Random(at::IntArrayRef sizes, uint64_t seed, at::ScalarType dtype = at::kFloat) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed)).to(dtype);
}

// Without presets that are another's alias.
std::vector<Scheme> WeightSchemes() {
  std::vector<Scheme> all;
  for (const Scheme& scheme : SchemeCatalogue()) {
    bool fresh = scheme.QuantizesWeight();
    for (const Scheme& earlier : all) fresh = fresh && !SameScheme(earlier, scheme);
    if (fresh) all.push_back(scheme);
  }
  return all;
}

std::vector<Scheme> ActivationSchemes() {
  std::vector<Scheme> all;
  for (const Scheme& scheme : SchemeCatalogue()) {
    if (scheme.QuantizesActivation()) all.push_back(scheme);
  }
  return all;
}

at::Tensor QuantizeWeight(const Scheme& scheme, const at::Tensor& w) {
  const auto quantizer = MakeWeightQuantizer(scheme).value();
  return quantizer->Forward(w, quantizer->Prepare(w));
}

TEST_CASE("any chunking of the rows gives what the whole weight gives") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor w = Random({136, 128}, 1, dtype);
    for (const Scheme& scheme : WeightSchemes()) {
      INFO(scheme.name);
      const auto quantizer = MakeWeightQuantizer(scheme).value();
      const at::Tensor prepared = quantizer->Prepare(w);
      const at::Tensor whole = quantizer->Forward(w, prepared);
      for (const int64_t multiples : {1, 3}) {
        const int64_t step = quantizer->row_multiple() * multiples;
        std::vector<at::Tensor> parts;
        for (int64_t row = 0; row < w.size(0); row += step) {
          parts.push_back(quantizer->Forward(w.narrow(0, row, std::min(step, w.size(0) - row)), prepared));
        }
        CHECK(at::cat(parts).equal(whole));
      }
    }
  }
}

TEST_CASE("chunks of a weight searched with an imatrix give what the whole gives") {
  const at::Tensor w = Random({24, 256}, 2), h = Random({256}, 3).square();
  for (const char* name : {"GGUF:Q2_K_S", "GGUF:Q3_K_S", "GGUF:Q4_K_S", "GGUF:Q6_K"}) {
    INFO(name);
    const auto quantizer = MakeWeightQuantizer(FindScheme(name).value(), h).value();
    const at::Tensor whole = quantizer->Forward(w, {});
    CHECK(
        at::cat({quantizer->Forward(w.narrow(0, 0, 16), {}), quantizer->Forward(w.narrow(0, 16, 8), {})}).equal(whole));
  }
}

TEST_CASE("the number of threads changes no bit") {
  const at::Tensor w = Random({512, 768}, 4), x = Random({3, 170, 768}, 5), g = Random({3, 170, 768}, 6);
  const int threads = at::get_num_threads();
  for (const Scheme& scheme : WeightSchemes()) {
    INFO(scheme.name);
    at::set_num_threads(1);
    const at::Tensor one = QuantizeWeight(scheme, w);
    at::set_num_threads(4);
    CHECK(QuantizeWeight(scheme, w).equal(one));
  }
  for (const Scheme& scheme : ActivationSchemes()) {
    INFO(scheme.name);
    const auto quantizer = MakeActivationQuantizer(scheme).value();
    at::set_num_threads(1);
    const at::Tensor y = quantizer->Forward(x), dx = quantizer->Backward(x, g);
    at::set_num_threads(4);
    CHECK(quantizer->Forward(x).equal(y));
    CHECK(quantizer->Backward(x, g).equal(dx));
  }
  at::set_num_threads(threads);
}

TEST_CASE("strided inputs give what their contiguous copies give") {
  const at::Tensor w = Random({160, 192}, 7).t();
  for (const Scheme& scheme : WeightSchemes()) {
    INFO(scheme.name);
    CHECK(QuantizeWeight(scheme, w).equal(QuantizeWeight(scheme, w.contiguous())));
  }
}

TEST_CASE("quantizing twice changes nothing where a result is on its own grid") {
  const at::Tensor w = Random({64, 256}, 8);
  // Not for the rest: rounding the scale in fp16, E4M3 or E5M3 moves it once more, and a k-quant's or asymmetric grid
  // is fitted anew.
  for (const char* name : {"MXFP4", "MXFP6", "MXFP8", "MXINT4"}) {
    INFO(name);
    const at::Tensor once = QuantizeWeight(FindScheme(name).value(), w);
    CHECK(QuantizeWeight(FindScheme(name).value(), once).equal(once));
  }
  for (const int bits : {2, 3, 4, 8}) {
    const Scheme scheme = FindScheme("W" + std::to_string(bits) + "A16").value();
    const at::Tensor once = QuantizeWeight(scheme, w);
    CHECK(at::allclose(QuantizeWeight(scheme, once), once, 1e-3, 1e-3));
  }
}

TEST_CASE("mirrored weights give mirrored results where the code is symmetric") {
  const at::Tensor w = Random({64, 512}, 9);
  // Symmetric integers use a signed scale, so they mirror too, but for groups whose two ends tie.
  for (const char* name : {"W4A16", "W2A16", "INT8", "MXFP4", "MXFP6", "MXFP8", "MXFP4_RCEIL", "MXINT4", "NVFP4",
                           "NVFP4_E5M3", "FPW8A16", "FP8_BLOCK", "FP8_STATIC", "GGUF:Q3_K_S", "GGUF:Q6_K"}) {
    INFO(name);
    const Scheme scheme = FindScheme(name).value();
    CHECK(QuantizeWeight(scheme, w.neg()).equal(QuantizeWeight(scheme, w).neg()));
  }
}

// Largest error of an element, relative to the largest magnitude of its group.
void CheckErrorBound(const char* name, int64_t group, double bound) {
  INFO(name);
  const at::Tensor w = Random({64, 512}, 10);
  const at::Tensor groups = w.reshape({-1, group});
  const at::Tensor error = (QuantizeWeight(FindScheme(name).value(), w).reshape({-1, group}) - groups).abs();
  const double worst = (error / groups.abs().amax(1, true)).max().item<double>();
  CHECK(worst <= bound);
  CHECK(worst > bound / 4);
}

TEST_CASE("the error of an element is bounded by half a step, or one step at the clipped end") {
  // Symmetric integers: a step is 1 / 2^(bits-1) of the largest; the end opposite to it is clipped by up to one step.
  CheckErrorBound("W2A16", 128, 1.0 / 2 * 1.002);
  CheckErrorBound("W4A16", 128, 1.0 / 8 * 1.004);
  CheckErrorBound("W8A16", 128, 1.0 / 128 * 1.06);
  // 4-bit floats: the largest gap is 4 to 6; a power-of-two scale may clip 8 to 6.
  CheckErrorBound("MXFP4", 32, 0.25);
  CheckErrorBound("MXFP6", 32, 0.5 / 8);
  CheckErrorBound("MXFP8", 32, 64.0 / 512);
  CheckErrorBound("MXINT4", 32, 0.25 / 2);
  CheckErrorBound("NVFP4", 16, 1.0 / 6 * 1.07);
  CheckErrorBound("FPW8A16", 512 * 64, 16.0 / 448);
  CheckErrorBound("FP8_STATIC", 512, 16.0 / 448);
}

TEST_CASE("more bits never give a larger squared error") {
  const at::Tensor w = Random({64, 512}, 11);
  const auto error = [&](const std::string& name) {
    return (QuantizeWeight(FindScheme(name).value(), w) - w).square().sum().item<double>();
  };
  const std::vector<std::vector<std::string>> ladders = {
      {"W2A16", "W3A16", "W4A16", "W5A16", "W6A16", "W8A16"},
      {"MXFP4", "MXFP6", "INT8"},
      {"GGUF:Q2_K_S", "GGUF:Q3_K_S", "GGUF:Q4_K_S", "GGUF:Q5_K_S", "GGUF:Q6_K", "GGUF:Q8_0"}};
  for (const auto& ladder : ladders) {
    for (size_t i = 1; i < ladder.size(); ++i) {
      INFO(ladder[i]);
      CHECK(error(ladder[i]) < error(ladder[i - 1]));
    }
  }
}

TEST_CASE("an imatrix lowers the weighted error of a k-quant") {
  const at::Tensor w = Random({64, 512}, 12), h = Random({512}, 13).square() + 1e-3;
  for (const char* name : {"GGUF:Q2_K_S", "GGUF:Q3_K_S", "GGUF:Q4_K_S", "GGUF:Q5_K_S", "GGUF:Q6_K"}) {
    INFO(name);
    const Scheme scheme = FindScheme(name).value();
    const at::Tensor searched = MakeWeightQuantizer(scheme, h).value()->Forward(w, {});
    CHECK(((searched - w).square() * h).sum().item<double>() <
          ((QuantizeWeight(scheme, w) - w).square() * h).sum().item<double>());
  }
}

// Finite in, finite out: zeros, the ends of the float range, subnormals, and mixtures.
std::vector<at::Tensor> HardInputs(at::ScalarType dtype) {
  const double top = dtype == at::kFloat ? 3.4028234e38 : 3.3895313892515355e38;
  at::Tensor mixed = Random({16, 512}, 14);
  mixed.narrow(1, 0, 64).zero_();
  mixed.narrow(1, 64, 32).mul_(1e-40);
  mixed.narrow(1, 96, 32).mul_(1e30);
  mixed.narrow(1, 128, 16).fill_(-0.0);
  mixed.index_put_({at::tensor({3, 5, 5}), at::tensor({200, 201, 330})}, at::tensor({1e38f, -3e38f, 3e38f}));
  at::Tensor ends = at::full({16, 512}, top);
  ends.narrow(1, 1, 100).fill_(-top);
  return {at::zeros({16, 512}).to(dtype),
          mixed.to(dtype),
          ends.to(dtype),
          at::full({16, 512}, 1e-40).to(dtype),
          at::full({16, 512}, 65504.0).to(dtype),
          at::full({16, 512}, -2e6).to(dtype)};
}

TEST_CASE("finite weights give finite results and gradients, whatever their size") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const Scheme& scheme : WeightSchemes()) {
      const auto quantizer = MakeWeightQuantizer(scheme).value();
      int input = 0;
      for (const at::Tensor& w : HardInputs(dtype)) {
        INFO(scheme.name << ", input " << input++ << ", " << (dtype == at::kFloat ? "float32" : "bfloat16"));
        const at::Tensor prepared = quantizer->Prepare(w);
        CHECK(quantizer->Forward(w, prepared).to(at::kFloat).isfinite().all().item<bool>());
        CHECK(quantizer->Backward(w, prepared, at::ones_like(w)).to(at::kFloat).isfinite().all().item<bool>());
      }
    }
  }
}

TEST_CASE("finite activations give finite results and gradients, whatever their size") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const Scheme& scheme : ActivationSchemes()) {
      const auto quantizer = MakeActivationQuantizer(scheme).value();
      int input = 0;
      for (const at::Tensor& x : HardInputs(dtype)) {
        INFO(scheme.name << ", input " << input++ << ", " << (dtype == at::kFloat ? "float32" : "bfloat16"));
        CHECK(quantizer->Forward(x).to(at::kFloat).isfinite().all().item<bool>());
        CHECK(quantizer->Backward(x, Random(x.sizes(), 15, dtype)).to(at::kFloat).isfinite().all().item<bool>());
      }
    }
  }
}

TEST_CASE("a NaN stays where it is, and in its group") {
  at::Tensor w = Random({16, 512}, 20);
  w[3][70] = std::nanf("");
  w[5][0] = -std::nanf("");
  for (const Scheme& scheme : WeightSchemes()) {
    INFO(scheme.name);
    const at::Tensor y = QuantizeWeight(scheme, w);
    CHECK(y.isnan().logical_and_(w.isnan()).sum().item<int64_t>() == 2);
    // A tile with a NaN is all NaN, whatever its rows after that one hold.
    if (scheme.group.rows > 0) CHECK(y.narrow(1, 0, 128).isnan().all().item<bool>());
    if (scheme.group.size > 0 && scheme.group.rows == 0 && !MakeWeightQuantizer(scheme).value()->needs_whole_tensor()) {
      CHECK(y.narrow(0, 8, 8).equal(QuantizeWeight(scheme, w.narrow(0, 8, 8))));
    }
  }
  for (const Scheme& scheme : ActivationSchemes()) {
    INFO(scheme.name);
    const auto quantizer = MakeActivationQuantizer(scheme).value();
    CHECK(quantizer->Forward(w).isnan().logical_and_(w.isnan()).sum().item<int64_t>() == 2);
    quantizer->Backward(w, at::ones_like(w));  // must not touch memory that is not its own
  }
}

TEST_CASE("rows narrower than a group, of one element, and none at all are quantized") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const Scheme& scheme : WeightSchemes()) {
      const auto quantizer = MakeWeightQuantizer(scheme).value();
      for (const int64_t width : {1, 7, 20, 130, 200}) {
        const at::Tensor w = Random({16, width}, 21, dtype);
        if (!quantizer->CheckShape(16, width).ok()) continue;
        INFO(scheme.name << ", width " << width);
        const at::Tensor y = quantizer->Forward(w, quantizer->Prepare(w));
        CHECK(y.sizes() == w.sizes());
        CHECK(y.scalar_type() == dtype);
        CHECK(y.isfinite().all().item<bool>());
        // No format moves an element by more than the group's largest.
        CHECK((y - w).abs().max().item<float>() <= w.abs().max().item<float>());
      }
      const at::Tensor none = at::empty({0, 64}, dtype);
      CHECK(quantizer->Forward(none, quantizer->Prepare(none)).numel() == 0);
    }
    for (const Scheme& scheme : ActivationSchemes()) {
      INFO(scheme.name);
      const auto quantizer = MakeActivationQuantizer(scheme).value();
      for (const int64_t width : {1, 7, 130}) {
        const at::Tensor x = Random({2, 3, width}, 22, dtype);
        CHECK(quantizer->Forward(x).sizes() == x.sizes());
        CHECK(quantizer->Backward(x, x).isfinite().all().item<bool>());
      }
      const at::Tensor none = at::empty({0, 64}, dtype);
      CHECK(quantizer->Forward(none).numel() == 0);
      CHECK(quantizer->Backward(none, none).numel() == 0);
    }
  }
}

TEST_CASE("quantizing into a tensor gives the float32 result, rounded once") {
  for (const at::ScalarType stored : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor w = Random({32, 640}, 23, stored);
    for (const at::ScalarType wanted : {at::kFloat, at::kBFloat16}) {
      at::Tensor y = at::empty({32, 640}, wanted);
      for (const Scheme& scheme : WeightSchemes()) {
        INFO(scheme.name);
        const auto quantizer = MakeWeightQuantizer(scheme).value();
        const at::Tensor prepared = quantizer->Prepare(w);
        quantizer->ForwardInto(w, prepared, y);
        CHECK(y.equal(quantizer->Forward(w.to(at::kFloat), prepared).to(wanted)));
      }
      for (const char* name : {"GGUF:Q2_K_S", "GGUF:Q3_K_S", "GGUF:Q4_K_S", "GGUF:Q6_K"}) {
        INFO(name);
        const auto quantizer = MakeWeightQuantizer(FindScheme(name).value(), at::rand({640})).value();
        quantizer->ForwardInto(w, {}, y);
        CHECK(y.equal(quantizer->Forward(w.to(at::kFloat), {}).to(wanted)));
      }
      for (const Scheme& scheme : ActivationSchemes()) {
        INFO(scheme.name);
        const auto quantizer = MakeActivationQuantizer(scheme).value();
        quantizer->ForwardInto(w, y);
        CHECK(y.equal(quantizer->Forward(w.to(at::kFloat)).to(wanted)));
      }
    }
  }
}

TEST_CASE("zeros stay zeros") {
  const at::Tensor zeros = at::zeros({16, 512});
  for (const Scheme& scheme : WeightSchemes()) {
    INFO(scheme.name);
    CHECK(QuantizeWeight(scheme, zeros).eq(0).all().item<bool>());
  }
  for (const Scheme& scheme : ActivationSchemes()) {
    INFO(scheme.name);
    CHECK(MakeActivationQuantizer(scheme).value()->Forward(zeros).eq(0).all().item<bool>());
  }
}

TEST_CASE("a group whose fp16 scale overflows is quantized with a float32 scale") {
  // 1e6 / 2 is far beyond fp16; the largest element maps to a code exactly, so it comes back as it was.
  const at::Tensor w = Random({1, 128}, 16);
  at::Tensor huge = w.clone();
  huge[0][5] = 1e6f;
  const at::Tensor y = QuantizeWeight(FindScheme("W2A16").value(), huge);
  CHECK(y[0][5].item<float>() == 1e6f);
  CHECK(y[0][6].item<float>() == 0);
}

TEST_CASE("gradients of zero groups are those of the other groups' own") {
  // The first group is zeros: its gradient is finite, and the second group's does not know of it.
  const at::Tensor g = Random({1, 64}, 17);
  at::Tensor x = Random({1, 64}, 18);
  x.narrow(1, 0, 32).zero_();
  for (const char* name : {"MXFP4", "MXFP8_RCEIL", "MXINT4", "NVFP4_E5M3"}) {
    INFO(name);
    const auto quantizer = MakeActivationQuantizer(FindScheme(name).value()).value();
    const at::Tensor dx = quantizer->Backward(x, g);
    CHECK(dx.narrow(1, 0, 32).eq(0).all().item<bool>());
    CHECK(dx.narrow(1, 32, 32).equal(quantizer->Backward(x.narrow(1, 32, 32), g.narrow(1, 32, 32))));
  }
}

TEST_CASE("inputs that require a gradient get results that do not") {
  at::Tensor w = Random({16, 256}, 19).set_requires_grad(true);
  CHECK_FALSE(QuantizeWeight(FindScheme("W4A16").value(), w).requires_grad());
  CHECK_FALSE(MakeActivationQuantizer(FindScheme("MXFP4").value()).value()->Forward(w).requires_grad());
}

}  // namespace
}  // namespace autoscheme
