// Small cases of every data type (docs/algorithm.md 4, 5), with numbers that the reference's own functions gave.
#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "quant/quantizer.h"

namespace autoscheme {
namespace {

at::Tensor Row(const std::vector<float>& values) {
  return at::tensor(values, at::kFloat).reshape({1, static_cast<int64_t>(values.size())});
}

const at::Tensor& X() {
  static const at::Tensor x = Row({0.1f, -0.75f, 0, 1.3f, -2.2f, 0.04f, 3.1f, -0.6f});
  return x;
}

void CheckRow(const at::Tensor& got, const std::vector<float>& want, double tolerance) {
  INFO(got);
  CHECK(at::allclose(got, Row(want), 0, tolerance));
}

Scheme Weight(int bits, const std::string& data_type, int group, bool sym = true) {
  Scheme s;
  s.bits = bits;
  s.data_type = data_type;
  s.group = {group, 0};
  s.sym = sym;
  return s;
}

struct Vector {
  Scheme scheme;
  std::vector<float> y, dx;
  double scale_rounding;  // the vectors have float32 scales, ours are rounded to fp16 for integers
};

TEST_CASE("weights: forward and backward agree with the reference's vectors") {
  const at::Tensor g = Row({1, 2, 3, 4, 5, 6, 7, 8});
  const std::vector<Vector> vectors = {
      {Weight(4, "int", 8),
       {0, -0.775f, 0, 1.1625f, -2.325f, 0, 3.1f, -0.775f},
       {1, 2, 3, 4, 5, 6, 6.043549f, 8},
       5e-3},
      {Weight(4, "int", 8, false),
       {0, -0.7066667f, 0, 1.4133334f, -2.12f, 0, 3.18f, -0.7066667f},
       {1, 2, 3, 4, 4.942138f, 6, 7.057862f, 8},
       5e-3},
      {Weight(4, "mx_fp", 8),
       {0, -0.75f, 0, 1.5f, -2, 0, 3, -0.5f},
       {1, 2, 0, 4.615385f, 4.545455f, 6, 6.664516f, 6.666666f},
       0},
      {Weight(6, "mx_fp", 8),
       {0.125f, -0.75f, 0, 1.25f, -2.25f, 0.0625f, 3, -0.625f},
       {1, 2, 0, 3.846154f, 5.113636f, 6, 6.825807f, 8.333333f},
       0},
      {Weight(8, "mx_fp", 8),
       {0.1015625f, -0.75f, 0, 1.25f, -2.25f, 0.0390625f, 3, -0.625f},
       {1.015625f, 2, 0, 3.846154f, 5.113636f, 5.859375f, 6.774194f, 8.333333f},
       0},
      {Weight(4, "mx_fp_rceil", 8),
       {0, -1, 0, 1.5f, -2, 0, 3, -0.5f},
       {1, 2, 0, 4.615385f, 4.545455f, 6, 6.761291f, 8},
       0},
      {Weight(4, "mx_int", 8), {0, -1, 0, 1.5f, -2, 0, 3, -0.5f}, {1, 2, 0, 4, 5, 6, 7.341936f, 8}, 0},
      {Weight(4, "nv_fp", 16),
       {0, -0.775f, 0, 1.55f, -2.0666666f, 0, 3.1f, -0.5166667f},
       {1, 2, 0, 4, 5, 6, 7.626882f, 8},
       0},
      {Weight(4, "nvfp4_v2", 16), {0, -0.75f, 0, 1.5f, -2, 0, 3, -0.5f}, {1, 2, 0, 4, 5, 6, 7.753334f, 8}, 0},
      {Weight(8, "fp", 8),
       {0.096875f, -0.775f, 0, 1.3285713f, -2.2142856f, 0.0415179f, 3.1f, -0.6089286f},
       {1, 2, 3, 4, 5, 6, 6.976584f, 8},
       0},
  };
  for (const Vector& v : vectors) {
    INFO(v.scheme.data_type << " " << v.scheme.bits);
    const auto quantizer = MakeWeightQuantizer(v.scheme).value();
    const at::Tensor prepared = quantizer->Prepare(X());
    CheckRow(quantizer->Forward(X(), prepared), v.y, 1e-6 + v.scale_rounding);
    CheckRow(quantizer->Backward(X(), prepared, g), v.dx, 5e-6 + v.scale_rounding);
  }
}

// A weight [2, 512] and an importance matrix for it that are easily made anywhere.
at::Tensor KWeight() {
  const at::Tensor i = at::arange(1024, at::kLong);
  return ((i * 7919 + 13).remainder(1009) - 504).to(at::kFloat).div_(4096).reshape({2, 512});
}

at::Tensor KImatrix() { return ((at::arange(512, at::kLong) * 31 + 7).remainder(97) + 1).to(at::kFloat).div_(16); }

struct KVector {
  const char* scheme;
  double sum, squared_error;
  std::vector<float> first;
};

void CheckK(const KVector& v, const at::Tensor& imatrix, double tolerance) {
  INFO(v.scheme);
  const at::Tensor w = KWeight();
  const auto quantizer = MakeWeightQuantizer(FindScheme(v.scheme).value(), imatrix).value();
  REQUIRE(quantizer->CheckShape(2, 512).ok());
  const at::Tensor y = quantizer->Forward(w, {});
  CHECK(y.sum(at::kDouble).item<double>() == Approx(v.sum).epsilon(tolerance).margin(1e-5));
  CHECK((y - w).to(at::kDouble).square().sum().item<double>() == Approx(v.squared_error).epsilon(tolerance));
  CheckRow(y.narrow(0, 0, 1).narrow(1, 0, 4), v.first, 1e-7);
}

TEST_CASE("k-quants without an imatrix agree with the reference's vectors") {
  CheckK({"GGUF:Q2_K_S", 0.503437169, 0.4731461206, {-0.12280273f, 0.10839844f, 0.03133138f, 0.03133138f}}, {}, 1e-5);
  CheckK({"GGUF:Q3_K_S", -0.066341400, 0.1004467089, {-0.11896515f, 0.08922386f, 0.05948257f, 0}}, {}, 1e-5);
  CheckK({"GGUF:Q4_K_S", -0.095932215, 0.02106318319, {-0.11890423f, 0.08845255f, 0.0565515f, 0.00869994f}}, {}, 1e-5);
  CheckK({"GGUF:Q5_K_S", 0.052251026, 0.004580609391, {-0.11890423f, 0.08948161f, 0.05089164f, 0.01230167f}}, {}, 1e-5);
  CheckK({"GGUF:Q6_K", -0.047323942, 0.001040363981, {-0.11992455f, 0.08994341f, 0.05246699f, 0.01499057f}}, {}, 1e-5);
}

TEST_CASE("k-quants with an imatrix agree with the reference's vectors") {
  const at::Tensor h = KImatrix();
  CheckK({"GGUF:Q2_K_S", 0.238399334, 0.3430896700, {-0.08105158f, 0.09981062f, 0.03952322f, 0.03952322f}}, h, 1e-3);
  CheckK({"GGUF:Q3_K_S", 0.013754562, 0.09435192212, {-0.12874925f, 0.09656194f, 0.06437463f, 0}}, h, 1e-3);
  CheckK({"GGUF:Q4_K_S", 0.035841350, 0.01832740418, {-0.11684692f, 0.09306645f, 0.04808502f, 0.01809739f}}, h, 1e-3);
  CheckK({"GGUF:Q5_K_S", -0.033101533, 0.001955692446, {-0.11295912f, 0.0894138f, 0.05193733f, 0.01446087f}}, h, 1e-3);
  CheckK({"GGUF:Q6_K", -0.001635608, 0.0007857126344, {-0.11965503f, 0.08974127f, 0.05234908f, 0.01495688f}}, h, 1e-3);
}

TEST_CASE("k-quants with an imatrix of zeros agree with the reference's vectors") {
  const at::Tensor h = at::zeros({512});
  CheckK({"GGUF:Q2_K_S", 0.248925194, 0.3322559617, {-0.11337648f, 0.09785415f, 0.02744395f, 0.02744395f}}, h, 1e-3);
  CheckK({"GGUF:Q3_K_S", -0.077619601, 0.09355046380, {-0.1205641f, 0.09042307f, 0.06028205f, 0}}, h, 1e-3);
  CheckK({"GGUF:Q4_K_S", -0.016388208, 0.01870998949, {-0.11921689f, 0.08466287f, 0.05329676f, 0.02193063f}}, h, 1e-3);
  CheckK({"GGUF:Q5_K_S", -0.020955890, 0.001901554026, {-0.12151921f, 0.08901428f, 0.051419f, 0.01382375f}}, h, 1e-3);
  CheckK({"GGUF:Q6_K", -0.060448893, 0.0008035525376, {-0.11922015f, 0.08941512f, 0.05215882f, 0.01490252f}}, h, 1e-3);
}

TEST_CASE("bfloat16 tiles and rows are rounded step by step as the reference's vectors") {
  const at::Tensor w = KWeight().to(at::kBFloat16);
  const auto error = [&](const char* name, double sum, double squared_error) {
    INFO(name);
    const at::Tensor y = MakeWeightQuantizer(FindScheme(name).value()).value()->Forward(w, {});
    CHECK(y.to(at::kDouble).sum().item<double>() == Approx(sum).epsilon(1e-6));
    CHECK((y.to(at::kDouble) - w.to(at::kDouble)).square().sum().item<double>() == Approx(squared_error).epsilon(1e-6));
  };
  error("FP8_BLOCK", -0.108947754, 0.003280826735);
  error("INT8", -0.053817749, 0.0001033062581);
}

TEST_CASE("NVFP4 of one row with its own global scale agrees with the reference's vector") {
  const at::Tensor w = KWeight().narrow(0, 0, 1);
  const auto quantizer = MakeWeightQuantizer(FindScheme("NVFP4").value()).value();
  const at::Tensor y = quantizer->Forward(w, quantizer->Prepare(w));
  CHECK(y.sum(at::kDouble).item<double>() == Approx(0.114031121).epsilon(1e-6));
  CHECK((y - w).to(at::kDouble).square().sum().item<double>() == Approx(0.02972758696).epsilon(1e-6));
}

}  // namespace
}  // namespace autoscheme
