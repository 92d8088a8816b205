#include "score/scored_linear.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "score/weights.h"

namespace autoscheme {

// One call of a ScoredLinear in the autograd graph. x and xq are plain tensors: neither is an output of this node.
struct ScoredLinearNode : torch::autograd::Node {
  ScoredLinear* linear = nullptr;
  at::Tensor x, xq;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    at::NoGradGuard no_grad;
    const at::Tensor& grad = grads[0];
    at::Tensor dx = linear->Differentiate(x, xq, grad.reshape({-1, grad.size(-1)}));
    return {dx.view(x.sizes())};
  }
  void release_variables() override {
    x.reset();
    xq.reset();
  }
};

int64_t ChunkRows(const WeightQuantizer* quantizer, int64_t rows, int64_t cols, int element_bytes, uint64_t chunk_bytes) {
  const int64_t multiple = quantizer == nullptr ? 1 : quantizer->row_multiple();
  if (multiple == 0) return std::max<int64_t>(rows, 1);
  const int64_t wanted = static_cast<int64_t>(chunk_bytes / (static_cast<uint64_t>(std::max<int64_t>(cols, 1)) * element_bytes));
  return std::clamp<int64_t>(wanted / multiple * multiple, multiple, std::max<int64_t>(rows, multiple));
}

ScoredLinear::ScoredLinear(const TensorView& weight, const TensorView& bias, const WeightQuantizer* weight_quantizer,
                           const ActivationQuantizer* activation_quantizer, const Options& options)
    : weight_(weight),
      weight_quantizer_(weight_quantizer),
      activation_quantizer_(activation_quantizer),
      options_(options),
      chunk_rows_(ChunkRows(weight_quantizer, weight.info->shape[0], weight.info->shape[1],
                            static_cast<int>(at::elementSize(options.dtype)), options.chunk_bytes)) {
  at::NoGradGuard no_grad;
  if (bias.data != nullptr) bias_ = LoadTensor(bias, options.dtype);
  if (weight_quantizer_ != nullptr && weight_quantizer_->needs_whole_tensor()) {
    for (int64_t first = 0; first < rows(); first += chunk_rows_) {
      const at::Tensor part = weight_quantizer_->Prepare(LoadRows(weight_, first, std::min(chunk_rows_, rows() - first), options_.dtype));
      prepared_ = prepared_.defined() ? at::maximum(prepared_, part) : part;
    }
  }
  if (options_.cache_weight) {
    cached_ = at::empty({rows(), cols()}, at::TensorOptions().dtype(options_.dtype));
    for (int64_t first = 0; first < rows(); first += chunk_rows_) {
      const int64_t count = std::min(chunk_rows_, rows() - first);
      at::Tensor w = LoadRows(weight_, first, count, options_.dtype);
      cached_.narrow(0, first, count).copy_(weight_quantizer_ == nullptr ? w : weight_quantizer_->Forward(w, prepared_));
    }
  }
}

at::Tensor ScoredLinear::QuantizedRows(int64_t first, int64_t count, const at::Tensor& rows) {
  if (cached_.defined()) return cached_.narrow(0, first, count);
  const at::Tensor w = rows.defined() ? rows : LoadRows(weight_, first, count, options_.dtype);
  return weight_quantizer_ == nullptr ? w : weight_quantizer_->Forward(w, prepared_);
}

at::Tensor ScoredLinear::Multiply(const at::Tensor& x) {
  at::Tensor y = at::empty({x.size(0), rows()}, x.options());
  if (cached_.defined()) {
    at::mm_out(y, x, cached_.t());
    return bias_.defined() ? y.add_(bias_) : y;
  }
  for (int64_t first = 0; first < rows(); first += chunk_rows_) {
    const int64_t count = std::min(chunk_rows_, rows() - first);
    at::Tensor out = y.narrow(1, first, count);
    at::mm_out(out, x, QuantizedRows(first, count, {}).t());
  }
  if (bias_.defined()) y.add_(bias_);
  return y;
}

at::Tensor ScoredLinear::Apply(const at::Tensor& x) {
  at::Tensor xq, y;
  {
    at::NoGradGuard no_grad;
    const at::Tensor plain = x.detach();
    xq = activation_quantizer_ == nullptr ? plain : activation_quantizer_->Forward(plain);
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = rows();
    y = Multiply(xq.reshape({-1, cols()})).view(shape);
  }
  if (at::GradMode::is_enabled() && x.requires_grad()) {
    auto node = std::shared_ptr<ScoredLinearNode>(new ScoredLinearNode(), torch::autograd::deleteNode);
    node->linear = this;
    node->x = x.detach();
    node->xq = xq;
    node->set_next_edges(torch::autograd::collect_next_edges(x));
    torch::autograd::set_history(y, node);
  }
  return y;
}

at::Tensor ScoredLinear::Differentiate(const at::Tensor& x, const at::Tensor& xq, const at::Tensor& grad) {
  const at::Tensor inputs = xq.reshape({-1, cols()});
  at::Tensor dxq = at::empty_like(inputs);
  if (cached_.defined()) at::mm_out(dxq, grad, cached_);
  const bool weight_term = options_.measure && weight_quantizer_ != nullptr;
  for (int64_t first = 0; first < rows(); first += chunk_rows_) {
    const int64_t count = std::min(chunk_rows_, rows() - first);
    const at::Tensor g = grad.narrow(1, first, count);
    const at::Tensor w = weight_term || !cached_.defined() ? LoadRows(weight_, first, count, options_.dtype) : at::Tensor();
    const at::Tensor wq = QuantizedRows(first, count, w);
    if (cached_.defined()) {
      // dxq is there already.
    } else if (first == 0) {
      at::mm_out(dxq, g, wq);
    } else {
      dxq.addmm_(g, wq);
    }
    if (weight_term) score_.weight += SumAbsGradTimesError(at::mm(g.t(), inputs), w, wq);
  }
  dxq = dxq.view(x.sizes());
  if (activation_quantizer_ == nullptr) return dxq;
  if (options_.measure) score_.activation += SumAbsGradTimesError(dxq, x.contiguous(), xq.contiguous());
  return activation_quantizer_->Backward(x, dxq);
}

}  // namespace autoscheme
