#include "exec/candidates.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "autoscheme/scheme.h"
#include "plan/precision.h"
#include "tensor/products.h"

namespace autoscheme {
namespace {

Treatment TreatmentOf(const char* scheme) {
  return {MakeWeightQuantizer(*FindScheme(scheme)).value(), MakeActivationQuantizer(*FindScheme(scheme)).value()};
}

struct Call {
  at::Tensor w = at::randn({96, 64}), x = at::randn({2, 5, 64}), grad = at::randn({10, 96});
  // Sum over outputs of grad (y(candidate) - y), in double.
  at::Tensor Want(const Treatment& candidate) const {
    const at::Tensor wq =
        candidate.weight == nullptr
            ? w
            : candidate.weight->Forward(
                  w, candidate.weight->needs_whole_tensor() ? candidate.weight->Prepare(w) : at::Tensor());
    const at::Tensor xq = candidate.activation == nullptr ? x : candidate.activation->Forward(x);
    const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
    const at::Tensor dy = wide(xq).matmul(wide(wq).t()) - wide(x).matmul(wide(w).t());
    return (dy.reshape({10, 96}) * wide(grad)).sum(1);
  }
};

TEST_CASE("errors of candidates are those of whole weights, however the rows come") {
  at::manual_seed(7);
  const Call call;
  std::vector<Treatment> treatments;
  for (const char* scheme : {"W2A16", "W8A16", "MXFP4", "FP8_STATIC", "NVFP4", "INT8"})
    treatments.push_back(TreatmentOf(scheme));
  treatments.push_back({nullptr, treatments[2].activation});  // the input alone is quantized
  const Context context;
  for (const int64_t chunk : {16, 40, 96}) {
    RunResources run(context);
    Candidates candidates(run, treatments);
    REQUIRE(candidates.needs_whole_tensor());
    candidates.PrepareRows(call.w.narrow(0, 0, 50));
    candidates.PrepareRows(call.w.narrow(0, 50, 46));
    const Candidates::Inputs inputs = candidates.Quantize(call.x, 5);
    at::Tensor errors = candidates.NewErrors(inputs);
    for (int64_t first = 0; first < 96; first += chunk) {
      const int64_t count = std::min<int64_t>(chunk, 96 - first);
      candidates.Add(inputs, call.w.narrow(0, first, count), call.grad.narrow(1, first, count), errors);
    }
    for (size_t c = 0; c < treatments.size(); ++c) {
      INFO("candidate " << c << ", chunks of " << chunk);
      const at::Tensor want = call.Want(treatments[c]);
      // With a quantized input it is the small difference of two float32 outputs.
      CHECK((errors[c] - want).abs().max().item<double>() <= 1e-4 * want.abs().max().item<double>());
    }
  }
}

TEST_CASE("errors of fine formats are more than what bfloat16 rounds") {
  at::manual_seed(8);
  Call call;
  call.w = call.w.to(at::kBFloat16).to(at::kFloat), call.x = call.x.to(at::kBFloat16).to(at::kFloat);
  const Context context;
  RunResources run(context);
  run.precision = ParsePrecision("bfloat16", {false, MultipliesBfloat16()}).value();
  std::vector<Treatment> treatments;
  for (const char* scheme : {"W4A16", "W8A16", "INT8", "MXFP8"}) treatments.push_back(TreatmentOf(scheme));
  const Candidates candidates(run, treatments);
  const Candidates::Inputs inputs = candidates.Quantize(call.x.to(at::kBFloat16), 5);
  at::Tensor errors = candidates.NewErrors(inputs);
  candidates.Add(inputs, call.w.to(at::kBFloat16), call.grad, errors);
  for (size_t c = 0; c < treatments.size(); ++c) {
    INFO("candidate " << c);
    const at::Tensor want = call.Want(treatments[c]);
    CHECK((errors[c] - want).norm().item<double>() <= 0.01 * want.norm().item<double>());
  }
}

TEST_CASE("positions that predict nothing are quantized with the others and then left out") {
  const Call call;
  const Context context;
  RunResources run(context);
  const Candidates candidates(run, {TreatmentOf("NVFP4")});
  const Candidates::Inputs inputs = candidates.Quantize(call.x, 4);
  CHECK(inputs.x.equal(call.x.narrow(1, 0, 4).reshape({8, 64})));
  CHECK(inputs.quantized[0].equal(TreatmentOf("NVFP4").activation->Forward(call.x).narrow(1, 0, 4).reshape({8, 64})));
}

TEST_CASE("a chunk's height suits all candidates") {
  const Context context;
  RunResources run(context);
  CHECK(Candidates(run, {}).RowMultiple(3) == 3);
  CHECK(Candidates(run, {TreatmentOf("W4A16")}).RowMultiple(3) == 3);
  CHECK(Candidates(run, {TreatmentOf("FP8_BLOCK"), TreatmentOf("W4A16")}).RowMultiple(3) == 384);
  CHECK(Candidates(run, {TreatmentOf("W4A16")}).RowMultiple(0) == 0);
}

}  // namespace
}  // namespace autoscheme
