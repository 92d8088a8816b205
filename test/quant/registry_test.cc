// Which schemes get a quantizer, and what it says of itself.
#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include "quant/quantizer.h"

namespace autoscheme {
namespace {

std::unique_ptr<WeightQuantizer> Weight(const char* name) {
  return MakeWeightQuantizer(FindScheme(name).value()).value();
}

TEST_CASE("every preset has the quantizers that its bits ask for") {
  for (const Scheme& scheme : SchemeCatalogue()) {
    INFO(scheme.name);
    const auto weight = MakeWeightQuantizer(scheme);
    const auto activation = MakeActivationQuantizer(scheme);
    REQUIRE(weight.ok());
    REQUIRE(activation.ok());
    CHECK((*weight != nullptr) == scheme.QuantizesWeight());
    CHECK((*activation != nullptr) == scheme.QuantizesActivation());
  }
}

TEST_CASE("a scheme that makes no sense is refused before anything is quantized") {
  Scheme scheme = FindScheme("W4A16").value();
  scheme.data_type = "float7";
  CHECK(MakeWeightQuantizer(scheme).status().code() == absl::StatusCode::kInvalidArgument);
  scheme = FindScheme("MXFP4").value();
  scheme.act_bits = 5;
  CHECK(MakeActivationQuantizer(scheme).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("chunk heights follow what shares a scale") {
  CHECK(Weight("W4A16")->row_multiple() == 1);
  CHECK(Weight("FP8_BLOCK")->row_multiple() == 128);
  CHECK(Weight("FPW8A16")->row_multiple() == 1);
  CHECK(Weight("FPW8A16")->needs_whole_tensor());
  CHECK(Weight("NVFP4")->needs_whole_tensor());
  CHECK_FALSE(Weight("MXFP4")->needs_whole_tensor());
  CHECK(Weight("GGUF:Q2_K_S")->row_multiple() == 16);
  Scheme whole = FindScheme("W4A16").value();
  whole.group = {0, 0};
  CHECK(MakeWeightQuantizer(whole).value()->row_multiple() == 0);
}

TEST_CASE("k-quants refuse weights that super-groups do not divide, with both numbers") {
  using Catch::Matchers::Contains;
  const auto quantizer = Weight("GGUF:Q2_K_S");
  CHECK(quantizer->CheckShape(16, 40).ok());
  CHECK(quantizer->CheckShape(4, 256).ok());
  const absl::Status status = quantizer->CheckShape(4, 200);
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()), Contains("4 x 200") && Contains("52") && Contains("16"));
}

TEST_CASE("an imatrix must be finite, not negative and as long as the weight is wide") {
  const Scheme scheme = FindScheme("GGUF:Q4_K_S").value();
  CHECK(MakeWeightQuantizer(scheme, at::full({256}, -1.0f)).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_FALSE(MakeWeightQuantizer(scheme, at::full({256}, std::numeric_limits<float>::quiet_NaN())).ok());
  CHECK_FALSE(MakeWeightQuantizer(scheme, at::ones({16, 16})).ok());
  CHECK_FALSE(MakeWeightQuantizer(scheme, at::ones({256}, at::kDouble)).ok());
  const auto quantizer = MakeWeightQuantizer(scheme, at::ones({256})).value();
  CHECK(quantizer->CheckShape(4, 256).ok());
  CHECK(quantizer->CheckShape(4, 512).code() == absl::StatusCode::kInvalidArgument);
  CHECK(MakeWeightQuantizer(FindScheme("W4A16").value(), at::full({3}, -1.0f)).ok());  // ignored
}

TEST_CASE("what an imatrix does depends on ratios alone, however large or small its numbers are") {
  const at::Tensor w = at::linspace(-2.3, 3.1, 16 * 512).view({16, 512}).sin();
  const at::Tensor h = at::pow(2, at::arange(512).mul(7).remainder(13).to(at::kFloat));
  for (const char* name : {"GGUF:Q2_K_S", "GGUF:Q3_K_S", "GGUF:Q4_K_S", "GGUF:Q5_K_S", "GGUF:Q6_K"}) {
    const Scheme scheme = FindScheme(name).value();
    const auto quantized = [&](const at::Tensor& imatrix, at::ScalarType type) {
      return MakeWeightQuantizer(scheme, imatrix).value()->Forward(w.to(type), {});
    };
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      for (const int exponent : {-130, -80, -60, 50, 60, 100, 114}) {
        CAPTURE(name, exponent, at::toString(type));
        CHECK(quantized(h * std::ldexp(1.0, exponent), type).equal(quantized(h, type)));
      }
      // No power of two: what is left of it are its digits.
      CHECK(quantized(h * 1e34, type).equal(quantized(h * std::ldexp(static_cast<float>(1e34), -112), type)));
      at::Tensor zeros = h.clone();
      zeros.narrow(0, 32, 40).zero_();
      // Groups of zeros weigh by their own magnitudes beside the others: as if the largest number, 2^12, were 1.
      CHECK(quantized(zeros * std::ldexp(1.0, 100), type).equal(quantized(zeros * std::ldexp(1.0, -12), type)));
      CHECK(quantized(zeros * 0, type).isfinite().all().item<bool>());
    }
  }
}

TEST_CASE("symmetric k-quants fall back to the plain form where the imatrix search cannot go") {
  const Scheme scheme = FindScheme("GGUF:Q6_K").value();
  const at::Tensor w = at::linspace(-1, 1, 4 * 576).reshape({4, 576});
  const at::Tensor searched = MakeWeightQuantizer(scheme, at::ones({576})).value()->Forward(w, {});
  CHECK(searched.equal(MakeWeightQuantizer(scheme).value()->Forward(w, {})));
}

TEST_CASE("empty tensors come back as they are") {
  const at::Tensor none = at::empty({0, 64});
  CHECK(Weight("W4A16")->Forward(none, {}).sizes() == none.sizes());
  const auto nv = Weight("NVFP4");
  CHECK(nv->Forward(none, nv->Prepare(none)).sizes() == none.sizes());
  const auto activation = MakeActivationQuantizer(FindScheme("NVFP4").value()).value();
  CHECK(activation->Forward(at::empty({2, 0, 64})).numel() == 0);
  CHECK(activation->Backward(at::empty({2, 0, 64}), at::empty({2, 0, 64})).numel() == 0);
}

}  // namespace
}  // namespace autoscheme
