// LinearInput: what linear layers multiply, as it is and as a scheme's quantizer leaves it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "nn/node.h"
#include "quant/quantizer.h"

namespace autoscheme {

// Shared by the linears that read one tensor (q, k and v; gate and up) and by their nodes in the autograd graph, so
// that it is quantized once. Plain tensors, without autograd. One thread at a time.
class LinearInput {
 public:
  // The quantizer is borrowed and may be null.
  LinearInput(const at::Tensor& x, const ActivationQuantizer* quantizer);

  // Whether it was made of this very memory. (What a LinearInput holds is nobody else's memory.)
  bool Is(const at::Tensor& x) const;
  at::IntArrayRef sizes() const { return sizes_; }  // [..., in]
  const at::Tensor& x();
  const at::Tensor& quantized();  // the same tensor without a quantizer
  // Lets go of what can be made again, with the same bits, when x() or quantized() is called next: a graph that waits
  // for the backward pass then holds less. Only where the graph of x is there until then.
  void Drop();

 private:
  const ActivationQuantizer* const quantizer_;
  const std::shared_ptr<RecomputableNode> source_;  // makes x; null where nothing does
  const std::vector<int64_t> sizes_;
  at::Tensor x_, quantized_;  // undefined once dropped
};

}  // namespace autoscheme
