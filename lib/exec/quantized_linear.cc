#include "exec/quantized_linear.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "nn/node.h"

namespace autoscheme {

// One call of a QuantizedLinear in the autograd graph.
struct QuantizedLinearNode : torch::autograd::Node {
  QuantizedLinear* linear = nullptr;
  std::shared_ptr<LinearInput> input;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    at::NoGradGuard no_grad;
    TORCH_CHECK(input != nullptr, "a linear layer's graph was differentiated twice");
    const at::Tensor& grad = grads[0];
    return {linear->Differentiate(*input, grad.reshape({-1, grad.size(-1)}))};
  }
  void release_variables() override { input.reset(); }
};

int64_t ChunkRows(int64_t multiple, int64_t rows, int64_t cols, uint64_t element_bytes, uint64_t chunk_bytes) {
  if (multiple == 0) return std::max<int64_t>(rows, 1);
  const int64_t wanted =
      static_cast<int64_t>(chunk_bytes / (static_cast<uint64_t>(std::max<int64_t>(cols, 1)) * element_bytes));
  return std::clamp<int64_t>(wanted / multiple * multiple, multiple, std::max<int64_t>(rows, multiple));
}

QuantizedLinear::QuantizedLinear(RunResources& run, const ExecutionPlan& plan, const LinearLayer& layer,
                                 Treatment treatment, const LinearNeeds& needs, const Scorers& scorers, int variant,
                                 std::vector<Treatment> candidates)
    : run_(run),
      layer_(layer),
      treatment_(std::move(treatment)),
      candidates_(run, std::move(candidates)),
      needs_(needs),
      scorers_(scorers),
      variant_(variant),
      caches_(plan.cache_weights),
      micro_batches_(plan.micro_batch_rows > 0),
      chunk_rows_(ChunkRows(candidates_.RowMultiple(CommonRowMultiple(1, treatment_.weight.get())), layer.out_features,
                            layer.in_features, run.precision.element_bytes(), plan.chunk_bytes)) {}

void QuantizedLinear::Bind(WeightRows& weights, const TensorView& bias) {
  at::NoGradGuard no_grad;
  weights_ = &weights;
  if (bias.data != nullptr) bias_ = LoadTensor(bias, run_.dtype(), run_.device.torch);
  if (NeedsPreparing(treatment_.weight.get())) {
    prepared_ = at::Tensor();
    ForEachChunk([&](int64_t, int64_t count, const std::byte* rows) {
      PrepareRows(treatment_.weight.get(), Rows(rows, count).to(run_.dtype()), prepared_);
    });
  }
  if (caches_) {
    at::Tensor cached = NewTensor(&run_.weights, {rows(), cols()}, run_.dtype());
    ForEachChunk([&](int64_t first, int64_t count, const std::byte* rows) {
      at::Tensor part = cached.narrow(0, first, count);
      QuantizeInto(Rows(rows, count), part);
    });
    cached_ = cached;
  }
}

void QuantizedLinear::Unbind() {
  weights_ = nullptr;
  cached_.reset();
  candidates_.Restart();
}

at::Tensor QuantizedLinear::Rows(const std::byte* data, int64_t count) const {
  const at::Tensor stored = StoredRows(data, layer_.weight->dtype, count, cols(), run_.device.torch);
  return run_.dtype() == at::kFloat ? stored : stored.to(run_.dtype());
}

at::Tensor QuantizedLinear::QuantizedRows(int64_t first, const at::Tensor& w) const {
  if (cached_.defined()) return cached_.narrow(0, first, w.size(0));
  if (treatment_.weight == nullptr && w.scalar_type() == run_.dtype()) return w;
  at::Tensor wq = NewTensor(&run_.weights, w.sizes(), run_.dtype());
  QuantizeInto(w, wq);
  return wq;
}

void QuantizedLinear::QuantizeInto(const at::Tensor& w, at::Tensor& out) const {
  if (treatment_.weight == nullptr) {
    out.copy_(w);
  } else if (out.scalar_type() == at::kFloat) {
    treatment_.weight->ForwardInto(w, prepared_, out);
  } else {
    out.copy_(treatment_.weight->Forward(w, prepared_));
  }
}

at::Tensor QuantizedLinear::Multiply(const at::Tensor& x) {
  at::Tensor y = NewLike(x, {x.size(0), rows()}, x.scalar_type());
  if (cached_.defined()) {
    MultiplyInto(run_.products, y, x, cached_.t());
  } else {
    ForEachChunk([&](int64_t first, int64_t count, const std::byte* rows) {
      at::Tensor out = y.narrow(1, first, count);
      MultiplyInto(run_.products, out, x, QuantizedRows(first, Rows(rows, count)).t());
    });
  }
  return bias_.defined() ? y.add_(bias_) : y;
}

at::Tensor QuantizedLinear::Operand(LinearInput& input) const {
  return (treatment_.activation != nullptr ? input.quantized() : input.x()).reshape({-1, cols()});
}

at::Tensor QuantizedLinear::Apply(const at::Tensor& x, std::shared_ptr<LinearInput> input, bool values) {
  at::Tensor y;
  {
    at::NoGradGuard no_grad;
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = rows();
    y = values ? Multiply(Operand(*input)).view(shape) : at::zeros({1}, x.options()).expand(shape);
  }
  if (torch::autograd::compute_requires_grad(x)) {
    auto node = NewNode<QuantizedLinearNode>(x);
    node->linear = this;
    node->input = std::move(input);
    torch::autograd::set_history(y, node);
  }
  return y;
}

at::Tensor QuantizedLinear::Differentiate(LinearInput& input, const at::Tensor& grad_values) {
  const at::Tensor grad = Converted(grad_values, run_.operands());
  const bool weight_term = needs_.weight_gradient;
  const at::Tensor inputs = weight_term ? Converted(Operand(input), run_.operands()) : at::Tensor();
  const bool show_now = weight_term && !micro_batches_;
  const bool at_once = cached_.defined() && run_.operands() == run_.dtype();
  at::Tensor dxq = NewLike(grad_values, {grad_values.size(0), cols()}, grad_values.scalar_type());
  if (at_once) MultiplyInto(run_.products, dxq, grad, cached_, run_.gradients());
  if (weight_term && micro_batches_) AddWeightGradient(grad, inputs);
  PrepareCandidates();
  Candidates::Inputs others;
  at::Tensor errors;
  if (!candidates_.empty()) {
    others = candidates_.Quantize(input.x(), input.x().size(-2));
    errors = candidates_.NewErrors(others);
  }
  if (show_now || !at_once || errors.defined()) {
    ForEachChunk([&](int64_t first, int64_t count, const std::byte* rows) {
      const at::Tensor g = grad.narrow(1, first, count);
      const at::Tensor w = Rows(rows, count);
      const at::Tensor wq = QuantizedRows(first, w);
      if (at_once) {
        // dxq is there already.
      } else if (first == 0) {
        MultiplyInto(run_.products, dxq, g, Converted(wq, run_.operands()), run_.gradients());
      } else {
        AddProduct(run_.products, dxq, g, Converted(wq, run_.operands()), run_.gradients());
      }
      if (errors.defined()) candidates_.Add(others, w, grad_values.narrow(1, first, count), errors);
      if (show_now)
        scorers_.OnWeightGradient(variant_, layer_, Product(run_.products, g.t(), inputs, run_.gradients()), w, wq);
    });
  }
  if (errors.defined()) {
    std::vector<int64_t> shape = input.sizes().vec();
    shape.pop_back(), shape.insert(shape.begin(), errors.size(0));
    scorers_.OnOutputErrors(variant_, layer_, errors.view(shape));
  }
  dxq = dxq.view(input.sizes());
  if (treatment_.activation == nullptr) return dxq;
  if (needs_.scored)
    scorers_.OnInputGradient(variant_, layer_, dxq, input.x().contiguous(), input.quantized().contiguous());
  return treatment_.activation->Backward(input.x(), dxq);
}

void QuantizedLinear::PrepareCandidates() {
  if (!candidates_.needs_whole_tensor() || candidates_.prepared()) return;
  ForEachChunk([&](int64_t, int64_t count, const std::byte* rows) { candidates_.PrepareRows(Rows(rows, count)); });
}

void QuantizedLinear::AddWeightGradient(const at::Tensor& grad, const at::Tensor& inputs) {
  const bool first_part = !weight_grad_.defined();
  if (first_part) weight_grad_ = NewLike(grad, {rows(), cols()}, at::kFloat);
  // Chunks are taken where operands are narrower: a product gives a tensor of their type before it is added.
  const int64_t step = grad.scalar_type() == at::kFloat ? rows() : chunk_rows_;
  for (int64_t first = 0; first < rows(); first += step) {
    const int64_t count = std::min(step, rows() - first);
    at::Tensor part = weight_grad_.narrow(0, first, count);
    const at::Tensor g = grad.narrow(1, first, count).t();
    if (first_part) {
      MultiplyInto(run_.products, part, g, inputs, run_.gradients());
    } else {
      AddProduct(run_.products, part, g, inputs, run_.gradients());
    }
  }
}

void QuantizedLinear::EndBatch() {
  if (!weight_grad_.defined()) return;
  ForEachChunk([&](int64_t first, int64_t count, const std::byte* rows) {
    const at::Tensor w = Rows(rows, count);
    scorers_.OnWeightGradient(variant_, layer_, weight_grad_.narrow(0, first, count), w, QuantizedRows(first, w));
  });
  weight_grad_.reset();
}

}  // namespace autoscheme
