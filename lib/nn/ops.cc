#include "nn/ops.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/fused.h"
#include "nn/node.h"
#include "tensor/row_chunks.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {
namespace {

using torch::autograd::variable_list;

// Seen as a matrix of its last dimension.
at::Tensor Rows(const at::Tensor& t) { return t.reshape({-1, t.size(-1)}); }

// What a norm's gradient needs beside its input: [rows, heads, 1], float32. Only kLayer has a mean.
struct Moments {
  at::Tensor mean, rstd;
};

int64_t HeadsOf(const LoadedNorm& norm) {
  return norm.weight.defined() && norm.weight.dim() == 2 ? norm.weight.size(0) : 1;
}

// [rows, heads, n]
at::Tensor ByHead(const at::Tensor& t, int64_t heads) { return t.reshape({-1, heads, t.size(-1) / heads}); }

// What x / rms(x) is multiplied by, in float32.
at::Tensor WideWeight(const LoadedNorm& norm) {
  const at::Tensor wide = norm.weight.to(at::kFloat);
  return norm.norm.offset == 0 ? wide : wide + norm.norm.offset;
}

// Rows of a kLayer norm, [count, heads, n]; sets the moments.
at::Tensor LayerNormed(const LoadedNorm& norm, const at::Tensor& x, const Moments& moments) {
  if (norm.norm.plain) {
    at::Tensor mean = moments.mean, rstd = moments.rstd;
    const at::Tensor wide = x.to(at::kFloat);
    at::mean_out(mean, wide, -1, /*keepdim=*/true);
    const at::Tensor centred = wide - mean;
    at::mean_out(rstd, centred.square(), -1, /*keepdim=*/true);
    rstd.add_(norm.norm.eps).rsqrt_();
    at::Tensor y = centred.mul_(rstd);
    if (norm.weight.defined()) y.mul_(WideWeight(norm));
    return norm.bias.defined() ? y.add_(norm.bias) : y;
  }
  // A norm without a weight is computed in float32, and so is one with a weight for each head, which comes behind it.
  const bool by_head = HeadsOf(norm) > 1, apart = by_head || !norm.weight.defined();
  const at::Tensor in = apart ? x.to(at::kFloat) : x;
  const at::Tensor weight = apart ? at::Tensor() : norm.norm.offset == 0 ? norm.weight : norm.weight + norm.norm.offset;
  const auto [y, mean, rstd] = at::native_layer_norm(in, {x.size(-1)}, weight, norm.bias, norm.norm.eps);
  moments.mean.copy_(mean), moments.rstd.copy_(rstd);
  return by_head ? y * WideWeight(norm) : y;
}

// y by rows; with `fresh` the moments are computed first.
void Normalize(const LoadedNorm& norm, const at::Tensor& x, bool fresh, const Moments& moments, const at::Tensor& y) {
  const int64_t heads = HeadsOf(norm);
  const at::Tensor in = ByHead(x, heads), out = ByHead(y, heads);
  const bool exact = x.scalar_type() == at::kFloat;  // nothing is rounded before the weight is applied
  const bool wide = norm.norm.wide || norm.norm.offset != 0 || exact;
  const at::Tensor weight = norm.norm.kind == Norm::kRms && wide ? WideWeight(norm) : norm.weight;
  ForEachRowChunk(x, in.size(0), heads * in.size(2), [&](int64_t first, int64_t count) {
    const at::Tensor part = in.narrow(0, first, count);
    at::Tensor scale = moments.rstd.narrow(0, first, count), o = out.narrow(0, first, count);
    if (norm.norm.kind == Norm::kLayer) {
      o.copy_(LayerNormed(norm, part, {moments.mean.narrow(0, first, count), scale}));
      return;
    }
    if (fresh) {
      at::mean_out(scale, part.to(at::kFloat).square(), -1, /*keepdim=*/true);
      scale.add_(norm.norm.eps).rsqrt_();
    }
    const auto normalize = [&](const auto& kernels, auto type) {
      using T = decltype(type);
      kernels.normalize(Data<T>(part), Data<float>(scale), Data<T>(weight), count, in.size(2), Data<T>(o));
    };
    if (heads == 1 && (exact || !wide) && Fused({part, weight, o}, normalize)) return;
    if (wide) {
      o.copy_((part.to(at::kFloat) * scale).mul_(weight));
    } else {
      o.copy_(part.to(at::kFloat) * scale).mul_(weight);
    }
  });
}

Moments NewMoments(const LoadedNorm& norm, const at::Tensor& x) {
  const int64_t heads = HeadsOf(norm), rows = x.numel() / x.size(-1);
  const at::Tensor rstd = NewLike(x, {rows, heads, 1}, at::kFloat);
  return {norm.norm.kind == Norm::kLayer ? NewLike(rstd) : at::Tensor(), rstd};
}

// The gradient of x: that through the norm, for the sum of `grads`, and `passed`, which may be undefined.
at::Tensor NormGradient(const LoadedNorm& norm, const at::Tensor& x, const Moments& moments, at::TensorList grads,
                        const at::Tensor& passed) {
  const int64_t heads = HeadsOf(norm);
  at::Tensor dx = NewLike(x);
  const at::Tensor in = ByHead(x, heads), out = ByHead(dx, heads), rstd = moments.rstd;
  const at::Tensor wide_weight = norm.weight.defined() ? WideWeight(norm) : at::ones({1}, rstd.options());
  std::vector<at::Tensor> all(grads.begin(), grads.end());
  all.insert(all.end(), {x, passed});
  if (norm.norm.kind == Norm::kRms && heads == 1 && grads.size() <= cpu::kMostNormReaders &&
      Fused(all, [&](const auto& kernels, auto type) {
        using T = decltype(type);
        ForEachRowChunk(in, in.size(0), in.size(2), [&](int64_t first, int64_t count) {
          const int64_t at = first * in.size(2);
          cpu::NormGradientRows<T> rows = {};
          rows.rows = count, rows.width = in.size(2);
          rows.x = Data<T>(x) + at, rows.weight = Data<float>(wide_weight), rows.rstd = Data<float>(rstd) + first;
          for (const at::Tensor& grad : grads) rows.grads[rows.count++] = Data<T>(grad) + at;
          if (passed.defined()) rows.passed = Data<T>(passed) + at;
          rows.dx = Data<T>(dx) + at;
          kernels.norm_gradient(rows);
        });
      })) {
    return dx;
  }
  ForEachRowChunk(in, in.size(0), heads * in.size(2), [&](int64_t first, int64_t count) {
    const auto part = [&](const at::Tensor& t) { return ByHead(t, heads).narrow(0, first, count); };
    const at::Tensor scale = rstd.narrow(0, first, count);
    at::Tensor unit = in.narrow(0, first, count).to(at::kFloat);
    unit = moments.mean.defined() ? unit.sub(moments.mean.narrow(0, first, count)).mul_(scale) : unit.mul(scale);
    at::Tensor g =
        grads.size() == 1 ? part(grads[0]).mul(wide_weight) : part(grads[0]).to(at::kFloat).add(part(grads[1]));
    for (size_t i = 2; i < grads.size(); ++i) g.add_(part(grads[i]));
    if (grads.size() > 1) g.mul_(wide_weight);
    const at::Tensor mean = (g * unit).mean(-1, /*keepdim=*/true);
    if (moments.mean.defined()) g.sub_(g.mean(-1, /*keepdim=*/true));
    g.sub_(unit.mul_(mean)).mul_(scale);
    if (passed.defined()) g.add_(part(passed));
    out.narrow(0, first, count).copy_(g);
  });
  return dx;
}

// Outputs: x, then the branches.
struct NormedBranchesNode : RecomputableNode {
  LoadedNorm norm;
  at::Tensor x;
  Moments moments;

  at::Tensor Output() override {
    at::NoGradGuard no_grad;
    at::Tensor y = NewLike(x);
    Normalize(norm, x, /*fresh=*/false, moments, y);
    return y;
  }
  variable_list apply(variable_list&& grads) override {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> of_branches;
    std::copy_if(grads.begin() + 1, grads.end(), std::back_inserter(of_branches),
                 [](const at::Tensor& g) { return g.defined(); });
    return {of_branches.empty() ? grads[0] : NormGradient(norm, x, moments, of_branches, grads[0])};
  }
  void release_variables() override { x.reset(), norm = {}, moments = {}; }
};

// activation(gate) * up by rows, or activation(up).
at::Tensor ActivatedValues(Activation activation, const at::Tensor& gate, const at::Tensor& up) {
  at::NoGradGuard no_grad;
  at::Tensor y = NewLike(up);
  const bool gated = gate.defined();
  const at::Tensor a = Rows(gated ? gate : up), b = Rows(up), out = Rows(y);
  ForEachRowChunk(up, a.size(0), a.size(1), [&](int64_t first, int64_t count) {
    at::Tensor o = out.narrow(0, first, count);
    const at::Tensor in = a.narrow(0, first, count);
    if (activation == Activation::kSilu) {
      at::silu_out(o, in);
    } else {
      o.copy_(ActivationValue(activation, in));
    }
    if (!gated) return;
    const at::Tensor by = b.narrow(0, first, count);
    const auto multiply = [&](const auto& kernels, auto type) {
      using T = decltype(type);
      kernels.multiply(Data<T>(o), Data<T>(by), o.numel(), Data<T>(o));
    };
    if (!Fused({o, by}, multiply)) o.mul_(by);
  });
  return y;
}

struct ActivatedNode : RecomputableNode {
  Activation activation = Activation::kSilu;
  at::Tensor gate, up;

  at::Tensor Output() override { return ActivatedValues(activation, gate, up); }
  variable_list apply(variable_list&& grads) override {
    at::NoGradGuard no_grad;
    at::Tensor dup = NewLike(up);
    const at::Tensor b = Rows(up), g = Rows(grads[0]), db = Rows(dup);
    if (!gate.defined()) {
      ForEachRowChunk(up, b.size(0), b.size(1), [&](int64_t first, int64_t count) {
        const auto part = [&](const at::Tensor& t) { return t.narrow(0, first, count); };
        part(db).copy_(ActivationGradient(activation, part(g), part(b)));
      });
      return {dup};
    }
    at::Tensor dgate = NewLike(gate);
    const at::Tensor a = Rows(gate), da = Rows(dgate);
    if (activation == Activation::kSilu && Fused({a, b, g}, [&](const auto& kernels, auto type) {
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
      const auto part = [&](const at::Tensor& t) { return t.narrow(0, first, count); };
      part(db).copy_(ActivationValue(activation, part(a)).mul_(part(g)));
      part(da).copy_(ActivationGradient(activation, part(g) * part(b), part(a)));
    });
    return {dgate, dup};
  }
  void release_variables() override { gate.reset(), up.reset(); }
};

// [rows, groups, sum of widths] of what Split takes.
at::Tensor Groups(const at::Tensor& x, int64_t groups) { return x.view({-1, groups, x.size(-1) / groups}); }

struct SplitNode : torch::autograd::Node {
  std::vector<int64_t> sizes, widths;
  int64_t groups = 1;

  variable_list apply(variable_list&& grads) override {
    at::NoGradGuard no_grad;
    const at::Tensor* like = nullptr;
    for (const at::Tensor& grad : grads) like = grad.defined() ? &grad : like;
    at::Tensor dx = NewLike(*like, sizes, like->scalar_type());
    int64_t at = 0;
    for (size_t i = 0; i < grads.size(); at += widths[i++]) {
      const at::Tensor place = Groups(dx, groups).narrow(2, at, widths[i]);
      grads[i].defined() ? place.copy_(Groups(grads[i].contiguous(), groups)) : place.zero_();
    }
    return {dx};
  }
};

struct ResidualNode : torch::autograd::Node {
  double scale = 1;
  size_t changes = 1;

  variable_list apply(variable_list&& grads) override {
    at::NoGradGuard no_grad;
    variable_list of(1 + changes, scale == 1 ? grads[0] : grads[0] * scale);
    of[0] = grads[0];
    return of;
  }
};

}  // namespace

at::Tensor ActivationValue(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kSilu: return at::silu(x);
    case Activation::kGelu: return at::gelu(x);
    case Activation::kGeluTanh: return at::gelu(x, "tanh");
    case Activation::kGeluNew:  // the same, operator by operator: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
      return at::pow(x, 3.0).mul_(0.044715).add_(x).mul_(std::sqrt(2 / M_PI)).tanh_().add_(1).mul_(0.5 * x);
    case Activation::kQuickGelu: return x * at::sigmoid(1.702 * x);
    case Activation::kRelu: return at::relu(x);
    case Activation::kSquaredRelu: return at::relu(x).square();
  }
  TORCH_CHECK(false, "unknown activation");
}

at::Tensor ActivationGradient(Activation activation, const at::Tensor& grad, const at::Tensor& x) {
  switch (activation) {
    case Activation::kSilu: return at::silu_backward(grad, x);
    case Activation::kGelu: return at::gelu_backward(grad, x);
    case Activation::kGeluTanh:
    case Activation::kGeluNew: return at::gelu_backward(grad, x, "tanh");
    case Activation::kQuickGelu: {
      const at::Tensor s = at::sigmoid(1.702 * x);
      return grad * s * (1 + 1.702 * x * (1 - s));
    }
    case Activation::kRelu: return at::threshold_backward(grad, x, 0);
    case Activation::kSquaredRelu: return grad * 2 * at::relu(x);
  }
  TORCH_CHECK(false, "unknown activation");
}

at::Tensor Normed(const LoadedNorm& norm, const at::Tensor& x) { return NormBranches(norm, x, 1).normed[0]; }

NormedBranches NormBranches(const LoadedNorm& norm, const at::Tensor& x, int64_t count) {
  NormedBranches branches;
  const Moments moments = NewMoments(norm, x);
  {
    at::NoGradGuard no_grad;
    at::Tensor y = NewLike(x);
    Normalize(norm, x, /*fresh=*/true, moments, y);
    branches.x = x.detach();
    for (int64_t i = 0; i < count; ++i)
      branches.normed.push_back(y.detach());  // a variable of its own, the same memory
  }
  if (torch::autograd::compute_requires_grad(x)) {
    auto node = NewNode<NormedBranchesNode>(x);
    node->norm = norm, node->x = x.detach(), node->moments = moments;
    torch::autograd::set_history(branches.x, node);
    for (at::Tensor& branch : branches.normed) torch::autograd::set_history(branch, node);
  }
  return branches;
}

at::Tensor Activated(Activation activation, const at::Tensor& gate, const at::Tensor& up) {
  at::Tensor y = ActivatedValues(activation, gate, up);
  if (torch::autograd::compute_requires_grad(gate, up)) {
    auto node = gate.defined() ? NewNode<ActivatedNode>(gate, up) : NewNode<ActivatedNode>(up);
    node->activation = activation, node->gate = gate.defined() ? gate.detach() : gate, node->up = up.detach();
    torch::autograd::set_history(y, node);
  }
  return y;
}

std::vector<at::Tensor> Split(const at::Tensor& x, int64_t groups, const std::vector<int64_t>& widths) {
  std::vector<at::Tensor> parts;
  {
    at::NoGradGuard no_grad;
    const at::Tensor in = Groups(x.contiguous(), groups);
    int64_t at = 0;
    for (const int64_t width : widths) {
      std::vector<int64_t> sizes = x.sizes().vec();
      sizes.back() = groups * width;
      parts.push_back(NewLike(x, sizes, x.scalar_type()));
      Groups(parts.back(), groups).copy_(in.narrow(2, at, width));
      at += width;
    }
  }
  if (torch::autograd::compute_requires_grad(x)) {
    auto node = NewNode<SplitNode>(x);
    node->sizes = x.sizes().vec(), node->widths = widths, node->groups = groups;
    for (at::Tensor& part : parts) torch::autograd::set_history(part, node);
  }
  return parts;
}

at::Tensor Residual(const at::Tensor& x, const std::vector<at::Tensor>& changes, double scale, bool residual_last) {
  at::Tensor y = NewLike(x);
  {
    at::NoGradGuard no_grad;
    const auto scaled = [&](const at::Tensor& change) { return scale == 1 ? change : change * scale; };
    if (residual_last && changes.size() > 1) {
      at::add_out(y, scaled(changes[0]), scaled(changes[1]));
      for (size_t i = 2; i < changes.size(); ++i) y.add_(scaled(changes[i]));
      y.add_(x);
    } else {
      at::add_out(y, x, scaled(changes[0]));
      for (size_t i = 1; i < changes.size(); ++i) y.add_(scaled(changes[i]));
    }
  }
  std::vector<at::Tensor> inputs = {x};
  inputs.insert(inputs.end(), changes.begin(), changes.end());
  if (std::any_of(inputs.begin(), inputs.end(), [](const at::Tensor& t) { return t.requires_grad(); }) &&
      at::GradMode::is_enabled()) {
    std::shared_ptr<ResidualNode> node(new ResidualNode(), torch::autograd::deleteNode);
    node->set_next_edges(torch::autograd::collect_next_edges(inputs));
    node->scale = scale, node->changes = changes.size();
    torch::autograd::set_history(y, node);
  }
  return y;
}

}  // namespace autoscheme
