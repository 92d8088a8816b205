// Plain formulas in float64, and how the parts of a decoder are compared with them.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "nn/attention.h"
#include "nn/ops.h"
#include "nn/rope_tables.h"

namespace autoscheme {

using Tensors = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Tensors&)>;

inline at::Tensor Random(at::IntArrayRef sizes, int seed) {
  return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions().dtype(at::kDouble));
}

// Relative to the largest value; a tensor of zeros (the gradient of a lone query) has none.
inline double Apart(const at::Tensor& got, const at::Tensor& want) {
  return ((got.to(at::kDouble) - want).abs().max() / want.abs().max().clamp_min(1e-2)).item<double>();
}

// f against g, which gets the same inputs as float64; both for one random gradient of the result.
inline void Compare(const Function& f, const Function& g, const Tensors& inputs, at::ScalarType dtype,
                    double tolerance) {
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
    CHECK(at::equal(narrow[i].to(at::kDouble), wide[i]));  // left as it was
    CHECK(got[i].scalar_type() == dtype);
    CHECK(Apart(got[i], exact[i]) < tolerance);
  }
}

inline at::Tensor PlainNorm(const LoadedNorm& norm, const at::Tensor& x) {
  const bool by_head = norm.weight.defined() && norm.weight.dim() == 2;
  at::Tensor y = x;
  if (by_head) y = x.reshape({-1, norm.weight.size(0), norm.weight.size(1)});
  if (norm.norm.kind == Norm::kLayer) y = y - y.mean(-1, true);
  y = y / (y.square().mean(-1, true) + norm.norm.eps).sqrt();
  if (norm.weight.defined()) y = y * (norm.weight.to(at::kDouble) + norm.norm.offset);
  if (norm.bias.defined()) y = y + norm.bias.to(at::kDouble);
  return y.reshape(x.sizes());
}

inline at::Tensor PlainActivation(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kSilu: return x / (1 + (-x).exp());
    case Activation::kGelu: return x * 0.5 * (1 + (x / std::sqrt(2.0)).erf());
    case Activation::kGeluTanh:
    case Activation::kGeluNew: return x * 0.5 * (1 + (std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)).tanh());
    case Activation::kQuickGelu: return x / (1 + (-1.702 * x).exp());
    case Activation::kRelu: return x * x.gt(0);
    case Activation::kSquaredRelu: return x * x * x.gt(0);
  }
  return {};
}

// Turns the first numbers of every head, as many as the tables are for. x [..., seq, head_dim].
inline at::Tensor PlainRotation(const at::Tensor& x, const at::Tensor& tables, bool interleaved) {
  if (!tables.defined()) return x;
  const at::Tensor c = tables[0].to(at::kDouble), s = tables[1].to(at::kDouble);
  const int64_t half = tables.size(-1), step = interleaved ? 2 : 1, b = interleaved ? 1 : half;
  std::vector<at::Tensor> turned;
  for (int64_t i = 0; i < x.size(-1); ++i) turned.push_back(x.select(-1, i));
  for (int64_t i = 0; i < half; ++i) {
    const at::Tensor p = x.select(-1, i * step), q = x.select(-1, i * step + b), ci = c.select(-1, i),
                     si = s.select(-1, i);
    turned[i * step] = p * ci - q * si;
    turned[i * step + b] = q * ci + p * si;
  }
  return at::stack(turned, -1);
}

// The attention of q, k and v.
inline at::Tensor PlainAttention(const Tensors& in, const at::Tensor& tables, const AttentionShape& shape) {
  const int64_t rows = in[0].size(0), seq = in[0].size(1);
  const auto heads = [&](const at::Tensor& t, int64_t n) {
    return t.view({rows, seq, n, shape.head_dim}).transpose(1, 2);
  };
  const auto rotated = [&](const at::Tensor& t, int64_t n) {
    return PlainRotation(heads(t, n), tables, shape.interleaved);
  };
  const int64_t group = shape.heads / shape.kv_heads;
  const at::Tensor q = rotated(in[0], shape.heads), k = rotated(in[1], shape.kv_heads).repeat_interleave(group, 1),
                   v = heads(in[2], shape.kv_heads).repeat_interleave(group, 1);
  const at::Tensor position = at::arange(seq), distance = position.unsqueeze(1) - position.unsqueeze(0);
  at::Tensor hidden = distance.lt(0);
  if (shape.window > 0) hidden = hidden.logical_or(distance.ge(shape.window));
  const double scale = shape.scale != 0 ? shape.scale : 1 / std::sqrt(static_cast<double>(shape.head_dim));
  at::Tensor scores = at::matmul(q, k.transpose(-1, -2)) * scale;
  scores = scores * (1 + shape.query_growth * (1 + (position / shape.growth_length).floor()).log()).unsqueeze(1);
  if (shape.softcap > 0) scores = (scores / shape.softcap).tanh() * shape.softcap;
  return at::matmul(scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1), v)
      .transpose(1, 2)
      .reshape({rows, seq, -1});
}

// Attention of many kinds.
struct AttentionCase {
  const char* name;
  AttentionShape shape;
  int64_t rows, seq;
  int64_t turned = -1;  // numbers of a head that are rotated; -1: all, 0: without tables

  Tensors Inputs() const {
    const int64_t q = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
    return {Random({rows, seq, q}, 1), Random({rows, seq, kv}, 2), Random({rows, seq, kv}, 3)};
  }
  at::Tensor Tables() const {
    return turned == 0 ? at::Tensor() : RopeTables(RopeConfig(), turned > 0 ? turned : shape.head_dim, seq);
  }
};

// Stretches are of 64 queries: none, one, and several, the last one ragged; windows narrower and wider than a
// stretch.
inline std::vector<AttentionCase> AttentionCases() {
  return {{"one token", {2, 1, 8, 0}, 1, 1},
          {"own keys", {3, 3, 16, 0}, 2, 17},
          {"shared keys", {6, 2, 16, 0}, 3, 64},
          {"several stretches", {4, 2, 32, 0}, 2, 150},
          {"narrow window", {4, 2, 16, 5}, 2, 150},
          {"window of a stretch", {2, 1, 16, 64}, 1, 200},
          {"wide window", {2, 2, 16, 100}, 1, 230},
          {"window beyond the row", {2, 1, 8, 500}, 1, 90},
          {"window of one", {2, 1, 8, 1}, 1, 70},
          {"scale", {4, 2, 16, 0, 0.4}, 2, 70},
          {"cap", {4, 2, 16, 0, 0, 1.5}, 2, 150},
          {"cap, scale and a narrow window", {4, 2, 16, 5, 0.4, 1.5}, 2, 150},
          {"cap and a wide window", {2, 2, 16, 100, 0, 1.5}, 1, 230},
          {"partial rotation", {4, 2, 16, 0}, 2, 70, 6},
          {"no rotation", {4, 2, 16, 0}, 2, 70, 0},
          {"no rotation, cap", {4, 2, 16, 0, 0, 1.5}, 2, 70, 0},
          {"interleaved", {4, 2, 16, 0, 0, 0, true}, 2, 70},
          {"partial, interleaved, in float32", {4, 2, 16, 0, 0, 0, true, true}, 2, 70, 6},
          {"partial, in float32", {4, 2, 16, 0, 0, 0, false, true}, 2, 70, 6},
          {"growing queries", {4, 2, 16, 0, 0, 0, false, false, 0.5, 20}, 2, 150},
          {"growing queries, cap", {4, 2, 16, 0, 0, 1.5, false, false, 0.5, 20}, 2, 150},
          {"all at once", {4, 2, 16, 70, 0.4, 1.5, true}, 2, 150, 6}};
}

}  // namespace autoscheme
