// Graph: an autograd graph that is ready to be differentiated.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

namespace autoscheme {

// The graph of y = f(x), once, for dL/dx. Of y it holds the place in the graph, not the values.
class Graph {
 public:
  template <typename Function>
  Graph(const at::Tensor& input, const Function& f, at::Tensor* values = nullptr) {
    at::AutoGradMode with_grad(true);
    x_ = input.detach().requires_grad_(true);
    const at::Tensor y = f(x_);
    root_ = torch::autograd::impl::gradient_edge(y);
    if (values != nullptr) *values = y.detach();
  }
  // dL/dx for grad = dL/dy.
  at::Tensor Pullback(const at::Tensor& grad) const {
    torch::autograd::Engine::get_default_engine().execute({root_}, {grad}, /*keep_graph=*/false, /*create_graph=*/false,
                                                          /*accumulate_grad=*/true);
    return x_.grad();
  }

 private:
  at::Tensor x_;
  torch::autograd::Edge root_;
};

}  // namespace autoscheme
