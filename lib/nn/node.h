// Autograd nodes of our own, for what torch::autograd::Function cannot do.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <memory>

namespace autoscheme {

// A node that differentiates a function of `inputs`, with edges to theirs; set_history then makes a tensor its output.
template <typename Node, typename... Inputs>
std::shared_ptr<Node> NewNode(const Inputs&... inputs) {
  std::shared_ptr<Node> node(new Node(), torch::autograd::deleteNode);
  node->set_next_edges(torch::autograd::collect_next_edges(inputs...));
  return node;
}

// The node of an output that can be computed again, with the same bits, from what the node holds for its own gradient:
// a reader may let go of the output and ask for it when the backward pass comes to the reader, which is before it comes
// here.
struct RecomputableNode : torch::autograd::Node {
  virtual at::Tensor Output() = 0;  // without autograd
};

}  // namespace autoscheme
