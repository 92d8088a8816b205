#include "exec/scored_linear.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "exec/weights.h"
#include "nn/node.h"

namespace autoscheme {

// One call of a ScoredLinear in the autograd graph.
struct ScoredLinearNode : torch::autograd::Node {
  ScoredLinear* linear = nullptr;
  std::shared_ptr<LinearInput> input;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    at::NoGradGuard no_grad;
    TORCH_CHECK(input != nullptr, "a linear layer's graph was differentiated twice");
    const at::Tensor& grad = grads[0];
    return {linear->Differentiate(*input, grad.reshape({-1, grad.size(-1)}))};
  }
  void release_variables() override { input.reset(); }
};

int64_t ChunkRows(const WeightQuantizer* quantizer, int64_t rows, int64_t cols, int element_bytes, uint64_t chunk_bytes) {
  const int64_t multiple = quantizer == nullptr ? 1 : quantizer->row_multiple();
  if (multiple == 0) return std::max<int64_t>(rows, 1);
  const int64_t wanted = static_cast<int64_t>(chunk_bytes / (static_cast<uint64_t>(std::max<int64_t>(cols, 1)) * element_bytes));
  return std::clamp<int64_t>(wanted / multiple * multiple, multiple, std::max<int64_t>(rows, multiple));
}

ScoredLinear::ScoredLinear(const TensorInfo& weight, const WeightQuantizer* weight_quantizer,
                           const ActivationQuantizer* activation_quantizer, const Options& options)
    : weight_(weight),
      weight_quantizer_(weight_quantizer),
      activation_quantizer_(activation_quantizer),
      options_(options),
      chunk_rows_(ChunkRows(weight_quantizer, weight.shape[0], weight.shape[1],
                            static_cast<int>(at::elementSize(options.precision.dtype)), options.chunk_bytes)) {}

void ScoredLinear::Bind(const std::byte* data, WeightTiles* tiles, const TensorView& bias) {
  at::NoGradGuard no_grad;
  data_ = data, tiles_ = tiles;
  if (bias.data != nullptr) bias_ = LoadTensor(bias, options_.precision.dtype);
  if (weight_quantizer_ != nullptr && weight_quantizer_->needs_whole_tensor()) {
    prepared_ = at::Tensor();
    ForEachChunk([&](int64_t, int64_t count, const std::byte* rows) {
      const at::Tensor part = weight_quantizer_->Prepare(Rows(rows, count).to(options_.precision.dtype));
      prepared_ = prepared_.defined() ? at::maximum(prepared_, part) : part;
    });
  }
  if (options_.cache_weight) {
    at::Tensor cached = NewTensor(options_.pool, {rows(), cols()}, options_.precision.dtype);
    ForEachChunk([&](int64_t first, int64_t count, const std::byte* rows) {
      at::Tensor part = cached.narrow(0, first, count);
      QuantizeInto(Rows(rows, count), part);
    });
    cached_ = cached;
  }
}

void ScoredLinear::Unbind() {
  data_ = nullptr, tiles_ = nullptr;
  cached_.reset();
}

void ScoredLinear::ForEachChunk(const ChunkBody& body) {
  if (data_ == nullptr) {
    tiles_->ForEach(weight_, chunk_rows_,
                    [&](int64_t first, const TensorView& tile) { body(first, tile.info->shape[0], tile.data); });
    return;
  }
  const uint64_t row_bytes = weight_.bytes / static_cast<uint64_t>(rows());
  for (int64_t first = 0; first < rows(); first += chunk_rows_) {
    body(first, std::min(chunk_rows_, rows() - first), data_ + first * row_bytes);
  }
}

at::Tensor ScoredLinear::Rows(const std::byte* data, int64_t count) const {
  const at::Tensor stored = StoredRows(data, weight_.dtype, count, cols());
  return options_.precision.dtype == at::kFloat ? stored : stored.to(options_.precision.dtype);
}

at::Tensor ScoredLinear::QuantizedRows(int64_t first, const at::Tensor& w) const {
  if (cached_.defined()) return cached_.narrow(0, first, w.size(0));
  if (weight_quantizer_ == nullptr && w.scalar_type() == options_.precision.dtype) return w;
  at::Tensor wq = NewTensor(options_.pool, w.sizes(), options_.precision.dtype);
  QuantizeInto(w, wq);
  return wq;
}

void ScoredLinear::QuantizeInto(const at::Tensor& w, at::Tensor& out) const {
  if (weight_quantizer_ == nullptr) {
    out.copy_(w);
  } else if (out.scalar_type() == at::kFloat) {
    weight_quantizer_->ForwardInto(w, prepared_, out);
  } else {
    out.copy_(weight_quantizer_->Forward(w, prepared_));
  }
}

at::Tensor ScoredLinear::Multiply(const at::Tensor& x) {
  at::Tensor y = NewLike(x, {x.size(0), rows()}, x.scalar_type());
  if (cached_.defined()) {
    MultiplyInto(options_.meter, y, x, cached_.t());
  } else {
    ForEachChunk([&](int64_t first, int64_t count, const std::byte* rows) {
      at::Tensor out = y.narrow(1, first, count);
      MultiplyInto(options_.meter, out, x, QuantizedRows(first, Rows(rows, count)).t());
    });
  }
  return bias_.defined() ? y.add_(bias_) : y;
}

at::Tensor ScoredLinear::Operand(LinearInput& input) const {
  return (activation_quantizer_ != nullptr ? input.quantized() : input.x()).reshape({-1, cols()});
}

at::Tensor ScoredLinear::Apply(const at::Tensor& x, std::shared_ptr<LinearInput> input, bool values) {
  at::Tensor y;
  {
    at::NoGradGuard no_grad;
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = rows();
    y = values ? Multiply(Operand(*input)).view(shape) : at::zeros({1}, x.options()).expand(shape);
  }
  if (torch::autograd::compute_requires_grad(x)) {
    auto node = NewNode<ScoredLinearNode>(x);
    node->linear = this;
    node->input = std::move(input);
    torch::autograd::set_history(y, node);
  }
  return y;
}

at::Tensor ScoredLinear::Differentiate(LinearInput& input, const at::Tensor& grad_values) {
  const at::Tensor grad = Converted(grad_values, options_.precision.operands);
  const bool weight_term = options_.measure && weight_quantizer_ != nullptr;
  const at::Tensor inputs = weight_term ? Converted(Operand(input), options_.precision.operands) : at::Tensor();
  const bool fold_now = weight_term && !options_.sliced;
  const bool at_once = cached_.defined() && options_.precision.operands == options_.precision.dtype;
  at::Tensor dxq = NewLike(grad_values, {grad_values.size(0), cols()}, grad_values.scalar_type());
  if (at_once) MultiplyInto(options_.meter, dxq, grad, cached_);
  if (weight_term && options_.sliced) AddWeightGradient(grad, inputs);
  if (fold_now || !at_once) {
    ForEachChunk([&](int64_t first, int64_t count, const std::byte* rows) {
      const at::Tensor g = grad.narrow(1, first, count);
      const at::Tensor w = Rows(rows, count);
      const at::Tensor wq = QuantizedRows(first, w);
      if (at_once) {
        // dxq is there already.
      } else if (first == 0) {
        MultiplyInto(options_.meter, dxq, g, Converted(wq, options_.precision.operands));
      } else {
        AddProduct(options_.meter, dxq, g, Converted(wq, options_.precision.operands));
      }
      if (fold_now) score_.weight += SumAbsGradTimesError(Product(options_.meter, g.t(), inputs), w, wq);
    });
  }
  dxq = dxq.view(input.sizes());
  if (activation_quantizer_ == nullptr) return dxq;
  if (options_.measure) score_.activation += SumAbsGradTimesError(dxq, input.x().contiguous(), input.quantized().contiguous());
  return activation_quantizer_->Backward(input.x(), dxq);
}

void ScoredLinear::AddWeightGradient(const at::Tensor& grad, const at::Tensor& inputs) {
  const bool first_slice = !weight_grad_.defined();
  if (first_slice) weight_grad_ = NewLike(grad, {rows(), cols()}, at::kFloat);
  // By chunks where operands are narrower: what a product gives is a tensor of their type before it is added.
  const int64_t step = grad.scalar_type() == at::kFloat ? rows() : chunk_rows_;
  for (int64_t first = 0; first < rows(); first += step) {
    const int64_t count = std::min(step, rows() - first);
    at::Tensor part = weight_grad_.narrow(0, first, count);
    const at::Tensor g = grad.narrow(1, first, count).t();
    first_slice ? MultiplyInto(options_.meter, part, g, inputs) : AddProduct(options_.meter, part, g, inputs);
  }
}

void ScoredLinear::EndBatch() {
  if (!weight_grad_.defined()) return;
  ForEachChunk([&](int64_t first, int64_t count, const std::byte* rows) {
    const at::Tensor w = Rows(rows, count);
    score_.weight += SumAbsGradTimesError(weight_grad_.narrow(0, first, count), w, QuantizedRows(first, w));
  });
  weight_grad_.reset();
}

}  // namespace autoscheme
