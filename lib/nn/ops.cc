#include "nn/ops.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nn/fused.h"
#include "nn/node.h"
#include "tensor/row_chunks.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Seen as a matrix of its last dimension.
at::Tensor Rows(const at::Tensor& t) { return t.reshape({-1, t.size(-1)}); }

// y = x * rstd * weight by rows; with `eps`, rstd = 1 / rms(x) is computed first.
void Normalize(const at::Tensor& x, const at::Tensor& weight, std::optional<double> eps, const at::Tensor& rstd,
               const at::Tensor& y) {
  const at::Tensor in = Rows(x), out = Rows(y);
  ForEachRowChunk(x, in.size(0), in.size(1), [&](int64_t first, int64_t count) {
    const at::Tensor part = in.narrow(0, first, count);
    at::Tensor scale = rstd.narrow(0, first, count), o = out.narrow(0, first, count);
    if (eps.has_value()) {
      at::mean_out(scale, part.to(at::kFloat).square(), -1, /*keepdim=*/true);
      scale.add_(*eps).rsqrt_();
    }
    const auto normalize = [&](const auto& kernels, auto type) {
      using T = decltype(type);
      kernels.normalize(Data<T>(part), Data<float>(scale), Data<T>(weight), count, in.size(1), Data<T>(o));
    };
    if (!Fused({part, weight, o}, normalize)) o.copy_(part.to(at::kFloat) * scale).mul_(weight);
  });
}

at::Tensor NewScales(const at::Tensor& x) { return NewLike(x, {x.numel() / x.size(-1), 1}, at::kFloat); }

// The gradient of x: that through the norm, for the sum of `grads`, and `passed`, which may be undefined.
at::Tensor NormGradient(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd, at::TensorList grads,
                        const at::Tensor& passed) {
  at::Tensor dx = NewLike(x);
  const at::Tensor in = Rows(x), out = Rows(dx), wide_weight = weight.to(at::kFloat);
  std::vector<at::Tensor> all(grads.begin(), grads.end());
  all.insert(all.end(), {x, passed});
  if (grads.size() <= cpu::kMostNormReaders && Fused(all, [&](const auto& kernels, auto type) {
        using T = decltype(type);
        ForEachRowChunk(in, in.size(0), in.size(1), [&](int64_t first, int64_t count) {
          const int64_t at = first * in.size(1);
          cpu::NormGradientRows<T> rows = {};
          rows.rows = count, rows.width = in.size(1);
          rows.x = Data<T>(x) + at, rows.weight = Data<float>(wide_weight), rows.rstd = Data<float>(rstd) + first;
          for (const at::Tensor& grad : grads) rows.grads[rows.count++] = Data<T>(grad) + at;
          if (passed.defined()) rows.passed = Data<T>(passed) + at;
          rows.dx = Data<T>(dx) + at;
          kernels.norm_gradient(rows);
        });
      })) {
    return dx;
  }
  ForEachRowChunk(in, in.size(0), in.size(1), [&](int64_t first, int64_t count) {
    const auto part = [&](const at::Tensor& t) { return Rows(t).narrow(0, first, count); };
    const at::Tensor scale = rstd.narrow(0, first, count);
    at::Tensor unit = in.narrow(0, first, count).to(at::kFloat).mul(scale);
    at::Tensor g =
        grads.size() == 1 ? part(grads[0]).mul(wide_weight) : part(grads[0]).to(at::kFloat).add(part(grads[1]));
    for (size_t i = 2; i < grads.size(); ++i) g.add_(part(grads[i]));
    if (grads.size() > 1) g.mul_(wide_weight);
    const at::Tensor mean = (g * unit).mean(-1, /*keepdim=*/true);
    g.sub_(unit.mul_(mean)).mul_(scale);
    if (passed.defined()) g.add_(part(passed));
    out.narrow(0, first, count).copy_(g);
  });
  return dx;
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, double eps) {
    at::Tensor y = NewLike(x), rstd = NewScales(x);
    Normalize(x, weight, eps, rstd, y);
    ctx->save_for_backward({x, weight, rstd});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    return {NormGradient(saved[0], saved[1], saved[2], grads, {}), at::Tensor(), at::Tensor()};
  }
};

// Outputs: x, then the branches.
struct NormedBranchesNode : RecomputableNode {
  at::Tensor x, weight, rstd;

  at::Tensor Output() override {
    at::NoGradGuard no_grad;
    at::Tensor y = NewLike(x);
    Normalize(x, weight, std::nullopt, rstd, y);
    return y;
  }
  variable_list apply(variable_list&& grads) override {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> of_branches;
    std::copy_if(grads.begin() + 1, grads.end(), std::back_inserter(of_branches),
                 [](const at::Tensor& g) { return g.defined(); });
    return {of_branches.empty() ? grads[0] : NormGradient(x, weight, rstd, of_branches, grads[0])};
  }
  void release_variables() override { x.reset(), weight.reset(), rstd.reset(); }
};

at::Tensor SwiGluValues(const at::Tensor& gate, const at::Tensor& up) {
  at::NoGradGuard no_grad;
  at::Tensor y = NewLike(gate);
  const at::Tensor a = Rows(gate), b = Rows(up), out = Rows(y);
  ForEachRowChunk(gate, a.size(0), a.size(1), [&](int64_t first, int64_t count) {
    at::Tensor o = out.narrow(0, first, count);
    at::silu_out(o, a.narrow(0, first, count));
    const at::Tensor by = b.narrow(0, first, count);
    const auto multiply = [&](const auto& kernels, auto type) {
      using T = decltype(type);
      kernels.multiply(Data<T>(o), Data<T>(by), o.numel(), Data<T>(o));
    };
    if (!Fused({o, by}, multiply)) o.mul_(by);
  });
  return y;
}

struct SwiGluNode : RecomputableNode {
  at::Tensor gate, up;

  at::Tensor Output() override { return SwiGluValues(gate, up); }
  variable_list apply(variable_list&& grads) override {
    at::NoGradGuard no_grad;
    at::Tensor dgate = NewLike(gate), dup = NewLike(up);
    const at::Tensor a = Rows(gate), b = Rows(up), g = Rows(grads[0]), da = Rows(dgate), db = Rows(dup);
    if (Fused({a, b, g}, [&](const auto& kernels, auto type) {
          using T = decltype(type);
          ForEachRowChunk(a, a.size(0), a.size(1), [&](int64_t first, int64_t count) {
            const int64_t at = first * a.size(1), n = count * a.size(1);
            kernels.swiglu_gradient(Data<T>(a) + at, Data<T>(b) + at, Data<T>(g) + at, n, Data<T>(da) + at,
                                    Data<T>(db) + at);
          });
        })) {
      return {dgate, dup};
    }
    ForEachRowChunk(gate, a.size(0), a.size(1), [&](int64_t first, int64_t count) {
      const at::Tensor in = a.narrow(0, first, count), grad = g.narrow(0, first, count);
      at::Tensor of_gate = da.narrow(0, first, count), of_up = db.narrow(0, first, count);
      at::silu_out(of_up, in);
      of_up.mul_(grad);
      at::mul_out(of_gate, grad, b.narrow(0, first, count));
      at::silu_backward_out(of_gate, of_gate, in);
    });
    return {dgate, dup};
  }
  void release_variables() override { gate.reset(), up.reset(); }
};

struct ResidualFunction : torch::autograd::Function<ResidualFunction> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& x, const at::Tensor& change) {
    at::Tensor y = NewLike(x);
    at::add_out(y, x, change);
    return y;
  }
  static variable_list backward(AutogradContext*, variable_list grads) { return {grads[0], grads[0]}; }
};

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return RmsNormFunction::apply(x, weight, eps);
}

NormedBranches RmsNormBranches(const at::Tensor& x, const at::Tensor& weight, double eps, int64_t count) {
  NormedBranches branches;
  at::Tensor rstd = NewScales(x);
  {
    at::NoGradGuard no_grad;
    at::Tensor y = NewLike(x);
    Normalize(x, weight, eps, rstd, y);
    branches.x = x.detach();
    for (int64_t i = 0; i < count; ++i)
      branches.normed.push_back(y.detach());  // a variable of its own, the same memory
  }
  if (torch::autograd::compute_requires_grad(x)) {
    auto node = NewNode<NormedBranchesNode>(x);
    node->x = x.detach(), node->weight = weight, node->rstd = rstd;
    torch::autograd::set_history(branches.x, node);
    for (at::Tensor& branch : branches.normed) torch::autograd::set_history(branch, node);
  }
  return branches;
}

at::Tensor SwiGlu(const at::Tensor& gate, const at::Tensor& up) {
  at::Tensor y = SwiGluValues(gate, up);
  if (torch::autograd::compute_requires_grad(gate, up)) {
    auto node = NewNode<SwiGluNode>(gate, up);
    node->gate = gate.detach(), node->up = up.detach();
    torch::autograd::set_history(y, node);
  }
  return y;
}

at::Tensor Residual(const at::Tensor& x, const at::Tensor& change) { return ResidualFunction::apply(x, change); }

}  // namespace autoscheme
