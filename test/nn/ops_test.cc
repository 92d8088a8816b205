// The differentiable pieces of blocks against plain formulas in float64, values and gradients.
#include "nn/ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "nn/attention.h"
#include "nn/node.h"
#include "nn/rope_tables.h"

namespace autoscheme {
namespace {

using Tensors = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Tensors&)>;

at::Tensor Random(at::IntArrayRef sizes, int seed) {
  return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions().dtype(at::kDouble));
}

// Relative to the largest value; a tensor of zeros (the gradient of a lone query) has none.
double Apart(const at::Tensor& got, const at::Tensor& want) {
  return ((got.to(at::kDouble) - want).abs().max() / want.abs().max().clamp_min(1e-2)).item<double>();
}

// f against g, which gets the same inputs as float64; both for one random gradient of the result.
void Compare(const Function& f, const Function& g, const Tensors& inputs, at::ScalarType dtype, double tolerance) {
  Tensors narrow, wide;
  for (const at::Tensor& t : inputs) {
    narrow.push_back(t.to(dtype).detach().requires_grad_(true));
    wide.push_back(narrow.back().detach().to(at::kDouble).requires_grad_(true));
  }
  const at::Tensor y = f(narrow), want = g(wide);
  REQUIRE(y.sizes() == want.sizes());
  CHECK(y.scalar_type() == dtype);
  CHECK(Apart(y, want.detach()) < tolerance);
  const at::Tensor grad = Random(want.sizes(), 99).to(dtype);
  const Tensors got = torch::autograd::grad({y}, narrow, {grad});
  const Tensors exact = torch::autograd::grad({want}, wide, {grad.to(at::kDouble)});
  for (size_t i = 0; i < inputs.size(); ++i) {
    INFO("input " << i);
    CHECK(got[i].scalar_type() == dtype);
    CHECK(Apart(got[i], exact[i]) < tolerance);
  }
}

LoadedNorm Rms(const at::Tensor& weight, double eps) {
  Norm norm;
  norm.kind = Norm::kRms, norm.eps = eps;
  return {norm, weight, {}};
}

at::Tensor PlainNorm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x * (x.square().mean(-1, true) + eps).rsqrt() * weight.to(at::kDouble);
}

at::Tensor PlainAttention(const Tensors& in, const at::Tensor& tables, const AttentionShape& shape) {
  const int64_t rows = in[0].size(0), seq = in[0].size(1), half = shape.head_dim / 2;
  const auto heads = [&](const at::Tensor& t, int64_t n) {
    return t.view({rows, seq, n, shape.head_dim}).transpose(1, 2);
  };
  const auto rotated = [&](const at::Tensor& t) {
    const at::Tensor a = t.narrow(-1, 0, half), b = t.narrow(-1, half, half), c = tables[0].to(at::kDouble),
                     s = tables[1].to(at::kDouble);
    return at::cat({a * c - b * s, b * c + a * s}, -1);
  };
  const int64_t group = shape.heads / shape.kv_heads;
  const at::Tensor q = rotated(heads(in[0], shape.heads)),
                   k = rotated(heads(in[1], shape.kv_heads)).repeat_interleave(group, 1),
                   v = heads(in[2], shape.kv_heads).repeat_interleave(group, 1);
  const at::Tensor position = at::arange(seq), distance = position.unsqueeze(1) - position.unsqueeze(0);
  at::Tensor hidden = distance.lt(0);
  if (shape.window > 0) hidden = hidden.logical_or(distance.ge(shape.window));
  const at::Tensor scores = at::matmul(q, k.transpose(-1, -2)) / std::sqrt(static_cast<double>(shape.head_dim));
  return at::matmul(scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1), v)
      .transpose(1, 2)
      .reshape({rows, seq, -1});
}

TEST_CASE("attention and its gradients are those of the formula") {
  struct Case {
    const char* name;
    AttentionShape shape;
    int64_t rows, seq;
  };
  // Stretches are of 64 queries: none, one, and several, the last one ragged; windows narrower and wider than a
  // stretch.
  const Case cases[] = {{"one token", {2, 1, 8, 0}, 1, 1},        {"own keys", {3, 3, 16, 0}, 2, 17},
                        {"shared keys", {6, 2, 16, 0}, 3, 64},    {"several stretches", {4, 2, 32, 0}, 2, 150},
                        {"narrow window", {4, 2, 16, 5}, 2, 150}, {"window of a stretch", {2, 1, 16, 64}, 1, 200},
                        {"wide window", {2, 2, 16, 100}, 1, 230}, {"window beyond the row", {2, 1, 8, 500}, 1, 90},
                        {"window of one", {2, 1, 8, 1}, 1, 70}};
  for (const Case& c : cases) {
    INFO(c.name);
    const int64_t q = c.shape.heads * c.shape.head_dim, kv = c.shape.kv_heads * c.shape.head_dim;
    const Tensors inputs = {Random({c.rows, c.seq, q}, 1), Random({c.rows, c.seq, kv}, 2),
                            Random({c.rows, c.seq, kv}, 3)};
    const at::Tensor tables = RopeTables(RopeConfig(), c.shape.head_dim, c.seq);
    const Function ours = [&](const Tensors& in) { return CausalAttention(in[0], in[1], in[2], tables, c.shape); };
    const Function plain = [&](const Tensors& in) { return PlainAttention(in, tables, c.shape); };
    Compare(ours, plain, inputs, at::kFloat, 2e-5);
    Compare(ours, plain, inputs, at::kBFloat16, 3e-2);
    Compare(ours, plain, inputs, at::kHalf, 4e-3);  // by LibTorch's operators
  }
}

TEST_CASE("a norm for several readers gives each of them the norm, and sums what flows back") {
  const at::Tensor weight = Random({96}, 7).to(at::kFloat);
  for (const int64_t rows : {1, 1000}) {
    const Tensors inputs = {Random({rows, 2, 96}, 5)};
    for (const int64_t readers : {1, 2, 3, 5}) {  // more than the fused loop takes
      const auto mixed = [&](const at::Tensor& x, const std::vector<at::Tensor>& normed) {
        at::Tensor y = x * 0.5;
        for (size_t i = 0; i < normed.size(); ++i) y = y + normed[i] * (1.0 + static_cast<double>(i));
        return y;
      };
      const Function ours = [&](const Tensors& in) {
        const NormedBranches branches = NormBranches(Rms(weight, 1e-5), in[0], readers);
        return mixed(branches.x, branches.normed);
      };
      const Function plain = [&](const Tensors& in) {
        return mixed(in[0], std::vector<at::Tensor>(readers, PlainNorm(in[0], weight, 1e-5)));
      };
      Compare(ours, plain, inputs, at::kFloat, 1e-5);
      Compare(ours, plain, inputs, at::kBFloat16, 3e-2);
      Compare(ours, plain, inputs, at::kHalf, 5e-3);  // by LibTorch's operators
    }
    Compare([&](const Tensors& in) { return Normed(Rms(weight, 1e-5), in[0]); },
            [&](const Tensors& in) { return PlainNorm(in[0], weight, 1e-5); }, inputs, at::kFloat, 1e-5);
  }
}

TEST_CASE("SwiGLU and the residual are those of the formula") {
  const Tensors inputs = {Random({3, 50, 700}, 11), Random({3, 50, 700}, 12)};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const double tolerance = dtype == at::kFloat ? 1e-6 : dtype == at::kHalf ? 4e-3 : 2e-2;
    Compare([](const Tensors& in) { return Activated(Activation::kSilu, in[0], in[1]); },
            [](const Tensors& in) { return in[0] * in[0].sigmoid() * in[1]; }, inputs, dtype, tolerance);
    Compare([](const Tensors& in) { return Residual(in[0], {in[1]}); }, [](const Tensors& in) { return in[0] + in[1]; },
            inputs, dtype, tolerance);
  }
}

TEST_CASE("what a norm for several readers and SwiGLU gave is made again with the same bits") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor x = Random({3, 50, 96}, 5).to(dtype).requires_grad_(true), up = Random({3, 50, 96}, 6).to(dtype);
    const NormedBranches branches = NormBranches(Rms(Random({96}, 7).to(dtype), 1e-5), x, 2);
    for (const at::Tensor& y : {branches.normed[0], branches.normed[1], Activated(Activation::kSilu, x, up)}) {
      const auto node = std::dynamic_pointer_cast<RecomputableNode>(y.grad_fn());
      REQUIRE(node != nullptr);
      const at::Tensor again = node->Output();
      CHECK(at::equal(again, y));
      CHECK(again.const_data_ptr() != y.const_data_ptr());
      CHECK_FALSE(again.requires_grad());
    }
  }
}

TEST_CASE("a reader of a norm that hands nothing back counts as one that hands back zeros") {
  const at::Tensor x = Random({4, 96}, 5).to(at::kFloat), weight = Random({96}, 7).to(at::kFloat),
                   g = Random({4, 96}, 8).to(at::kFloat);
  const auto gradient = [&](const auto& pick) {
    const at::Tensor in = x.clone().requires_grad_(true);
    return torch::autograd::grad({pick(NormBranches(Rms(weight, 1e-5), in, 3))}, {in}, {g})[0];
  };
  const at::Tensor in = x.clone().requires_grad_(true);
  const at::Tensor alone = torch::autograd::grad({Normed(Rms(weight, 1e-5), in)}, {in}, {g})[0];
  CHECK(Apart(gradient([](const NormedBranches& b) { return b.normed[1]; }), alone.to(at::kDouble)) < 1e-6);
  CHECK(at::equal(gradient([](const NormedBranches& b) { return b.x.clone(); }), g));
}

TEST_CASE("a gradient that is one number for all elements is taken as it comes") {
  const at::Tensor weight = Random({96}, 7).to(at::kFloat), x = Random({4, 96}, 5).to(at::kFloat),
                   up = Random({4, 96}, 6).to(at::kFloat);
  const auto gradient = [&](const auto& f, bool dense) {
    const at::Tensor in = x.clone().requires_grad_(true);
    const at::Tensor y = f(in);
    const at::Tensor ones = dense ? at::ones(y.sizes()) : at::ones({1}).expand(y.sizes());
    return torch::autograd::grad({y}, {in}, {ones})[0];
  };
  const auto norm = [&](const at::Tensor& in) { return Normed(Rms(weight, 1e-5), in); };
  const auto glu = [&](const at::Tensor& in) { return Activated(Activation::kSilu, in, up); };
  CHECK(Apart(gradient(norm, false), gradient(norm, true).to(at::kDouble)) < 1e-5);
  CHECK(Apart(gradient(glu, false), gradient(glu, true).to(at::kDouble)) < 1e-5);
}

TEST_CASE("the number of threads changes no bit of attention") {
  const AttentionShape shape{4, 2, 16, 0};
  const Tensors inputs = {Random({3, 90, 64}, 1), Random({3, 90, 32}, 2), Random({3, 90, 32}, 3)};
  const at::Tensor tables = RopeTables(RopeConfig(), 16, 90);
  const int threads = at::get_num_threads();
  Tensors first;
  for (const int n : {1, 2, 3}) {
    at::set_num_threads(n);
    Tensors in;
    for (const at::Tensor& t : inputs) in.push_back(t.to(at::kFloat).requires_grad_(true));
    const at::Tensor y = CausalAttention(in[0], in[1], in[2], tables, shape);
    Tensors all = torch::autograd::grad({y}, in, {at::ones_like(y)});
    all.push_back(y.detach());
    if (first.empty()) first = all;
    for (size_t i = 0; i < all.size(); ++i) CHECK(all[i].equal(first[i]));
  }
  at::set_num_threads(threads);
}

}  // namespace
}  // namespace autoscheme
