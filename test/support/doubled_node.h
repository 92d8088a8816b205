// Doubled: a node of the autograd graph whose output can be made again.
#pragma once

#include <ATen/ATen.h>

#include "nn/node.h"

namespace autoscheme {

// Its output is twice its input, which it makes again when asked, and counts that.
struct Doubled : RecomputableNode {
  at::Tensor x;
  int made = 0;
  at::Tensor Output() override { return ++made, x * 2; }
  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override { return {grads[0] * 2}; }
};

}  // namespace autoscheme
