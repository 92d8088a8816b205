// The differentiable pieces of blocks against plain formulas in float64, values and gradients.
#include "nn/ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <memory>
#include <vector>

#include "nn/attention.h"
#include "nn/node.h"
#include "nn/plain.h"
#include "nn/rope_tables.h"

namespace autoscheme {
namespace {

LoadedNorm Rms(const at::Tensor& weight, double eps) {
  Norm norm;
  norm.kind = Norm::kRms, norm.eps = eps;
  return {norm, weight, {}};
}

TEST_CASE("attention and its gradients are those of the formula") {
  for (const AttentionCase& c : AttentionCases()) {
    INFO(c.name);
    const Tensors inputs = c.Inputs();
    const at::Tensor tables = c.Tables();
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
        return mixed(in[0], std::vector<at::Tensor>(readers, PlainNorm(Rms(weight, 1e-5), in[0])));
      };
      Compare(ours, plain, inputs, at::kFloat, 1e-5);
      Compare(ours, plain, inputs, at::kBFloat16, 3e-2);
      Compare(ours, plain, inputs, at::kHalf, 5e-3);  // by LibTorch's operators
    }
    Compare([&](const Tensors& in) { return Normed(Rms(weight, 1e-5), in[0]); },
            [&](const Tensors& in) { return PlainNorm(Rms(weight, 1e-5), in[0]); }, inputs, at::kFloat, 1e-5);
  }
}

TEST_CASE("every norm and its gradient are those of the formula") {
  struct Case {
    const char* name;
    Norm::Kind kind;
    bool weight, bias;
    double offset;
    bool wide, plain;
    int64_t heads;  // > 1: each has a weight of its own
  };
  const Case cases[] = {{"layer", Norm::kLayer, true, true, 0, false, false, 1},
                        {"layer without a bias", Norm::kLayer, true, false, 0, false, false, 1},
                        {"layer, neither", Norm::kLayer, false, false, 0, false, false, 1},
                        {"layer, offset", Norm::kLayer, true, true, 1, false, false, 1},
                        {"layer, plain", Norm::kLayer, true, true, 0, false, true, 1},
                        {"layer, plain, offset", Norm::kLayer, true, false, 1, false, true, 1},
                        {"layer, plain, neither", Norm::kLayer, false, false, 0, false, true, 1},
                        {"layer, by head", Norm::kLayer, true, false, 0, false, false, 4},
                        {"layer, plain, by head", Norm::kLayer, true, false, 0, false, true, 4},
                        {"rms", Norm::kRms, true, false, 0, false, false, 1},
                        {"rms, offset", Norm::kRms, true, false, 1, false, false, 1},
                        {"rms, wide", Norm::kRms, true, false, 0, true, false, 1},
                        {"rms, wide, offset", Norm::kRms, true, false, 1, true, false, 1},
                        {"rms, by head", Norm::kRms, true, false, 0, false, false, 4},
                        {"rms, by head, offset", Norm::kRms, true, false, 1, true, false, 4}};
  const Tensors inputs = {Random({3, 150, 96}, 5) + 0.5};  // more than one chunk
  for (const Case& c : cases) {
    INFO(c.name);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      LoadedNorm norm;
      norm.norm.kind = c.kind, norm.norm.eps = 0.25, norm.norm.offset = c.offset;
      norm.norm.wide = c.wide, norm.norm.plain = c.plain;
      if (c.weight) norm.weight = (c.heads > 1 ? Random({c.heads, 96 / c.heads}, 7) : Random({96}, 7)).to(dtype);
      if (c.bias) norm.bias = Random({96}, 8).to(dtype);
      Compare([&](const Tensors& in) { return Normed(norm, in[0]); },
              [&](const Tensors& in) { return PlainNorm(norm, in[0]); }, inputs, dtype,
              dtype == at::kFloat ? 1e-5 : 2e-2);
    }
  }
}

TEST_CASE("every activation, gated or not, and its gradient are those of the formula") {
  const Tensors inputs = {Random({3, 50, 700}, 11), Random({3, 50, 700}, 12)};
  for (const Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh, Activation::kGeluNew,
                                      Activation::kQuickGelu, Activation::kRelu, Activation::kSquaredRelu}) {
    INFO("activation " << static_cast<int>(activation));
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const double tolerance = dtype == at::kFloat ? 2e-6 : dtype == at::kHalf ? 4e-3 : 2e-2;
      Compare([&](const Tensors& in) { return Activated(activation, in[0], in[1]); },
              [&](const Tensors& in) { return PlainActivation(activation, in[0]) * in[1]; }, inputs, dtype, tolerance);
      Compare([&](const Tensors& in) { return Activated(activation, {}, in[0]); },
              [&](const Tensors& in) { return PlainActivation(activation, in[0]); }, {inputs[0]}, dtype, tolerance);
    }
  }
}

TEST_CASE("the residual is that of the formula, in either order") {
  const Tensors inputs = {Random({3, 50, 70}, 11), Random({3, 50, 70}, 12), Random({3, 50, 70}, 13),
                          Random({3, 50, 70}, 14)};
  for (const size_t changes : {1, 2, 3}) {
    for (const double scale : {1.0, 0.3}) {
      for (const bool last : {false, true}) {
        INFO(changes << " changes, scale " << scale << ", residual last: " << last);
        for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
          Compare(
              [&](const Tensors& in) {
                return Residual(in[0], {in.begin() + 1, in.end()}, scale, last);
              },
              [&](const Tensors& in) {
                at::Tensor y = in[0];
                for (size_t i = 1; i < in.size(); ++i) y = y + scale * in[i];
                return y;
              },
              {inputs.begin(), inputs.begin() + 1 + static_cast<std::ptrdiff_t>(changes)}, dtype,
              dtype == at::kFloat  ? 1e-6
              : dtype == at::kHalf ? 4e-3
                                   : 2e-2);
        }
      }
    }
  }
  // Large numbers that cancel tell the orders apart.
  const auto sum = [](bool last) {
    return Residual(at::full({1}, 1e8), {at::full({1}, -1e8), at::full({1}, 1.0)}, 1, last).item<float>();
  };
  CHECK(sum(false) == 1);
  CHECK(sum(true) == 0);
}

TEST_CASE("a split gives the parts of every group, and its gradient puts them back") {
  const std::vector<int64_t> widths = {6, 1, 3};
  for (const int64_t groups : {1, 4}) {
    INFO(groups << " groups");
    const Tensors inputs = {Random({2, 5, groups * 10}, 3)};
    const auto part = [&](const at::Tensor& x, int64_t first, int64_t width) {
      std::vector<at::Tensor> columns;
      for (int64_t g = 0; g < groups; ++g) columns.push_back(x.narrow(-1, g * 10 + first, width));
      return at::cat(columns, -1);
    };
    const Function ours = [&](const Tensors& in) {
      Tensors parts = Split(in[0], groups, widths);
      REQUIRE(parts.size() == 3);
      return at::cat({parts[2] * 2, parts[0], parts[1] * 3}, -1);
    };
    const Function plain = [&](const Tensors& in) {
      return at::cat({part(in[0], 7, 3) * 2, part(in[0], 0, 6), part(in[0], 6, 1) * 3}, -1);
    };
    Compare(ours, plain, inputs, at::kFloat, 1e-6);
    Compare(ours, plain, inputs, at::kBFloat16, 1e-2);
    // A part that nobody reads has no gradient.
    Compare([&](const Tensors& in) { return Split(in[0], groups, widths)[1]; },
            [&](const Tensors& in) { return part(in[0], 6, 1); }, inputs, at::kFloat, 1e-6);
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
