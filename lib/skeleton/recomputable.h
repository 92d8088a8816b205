// Outputs that need not be kept until their readers are differentiated.
#ifndef AUTOSCHEME_SKELETON_RECOMPUTABLE_H_
#define AUTOSCHEME_SKELETON_RECOMPUTABLE_H_

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

namespace autoscheme {

// The node of an output that can be computed again, with the same bits, from what the node holds for its own gradient: a
// reader may let go of the output and ask for it when the backward pass comes to the reader, which is before it comes here.
struct RecomputableNode : torch::autograd::Node {
  virtual at::Tensor Output() = 0;  // without autograd
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_SKELETON_RECOMPUTABLE_H_
