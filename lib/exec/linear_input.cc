#include "exec/linear_input.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace autoscheme {

LinearInput::LinearInput(const at::Tensor& x, const ActivationQuantizer* quantizer)
    : quantizer_(quantizer),
      source_(std::dynamic_pointer_cast<RecomputableNode>(x.grad_fn())),
      sizes_(x.sizes().vec()),
      x_(x.detach()) {}

bool LinearInput::Is(const at::Tensor& x) const {
  return x_.defined() && x.const_data_ptr() == x_.const_data_ptr() && x.sizes() == sizes();
}

const at::Tensor& LinearInput::x() {
  if (!x_.defined()) x_ = source_->Output();
  return x_;
}

const at::Tensor& LinearInput::quantized() {
  if (quantizer_ == nullptr) return x();
  if (!quantized_.defined()) {
    at::NoGradGuard no_grad;
    quantized_ = quantizer_->Forward(x());
  }
  return quantized_;
}

void LinearInput::Drop() {
  quantized_.reset();
  if (source_ != nullptr) x_.reset();
}

}  // namespace autoscheme
