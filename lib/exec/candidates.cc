#include "exec/candidates.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "tensor/row_chunks.h"

namespace autoscheme {

int64_t Candidates::RowMultiple(int64_t multiple) const {
  for (const Treatment& candidate : all_) multiple = CommonRowMultiple(multiple, candidate.weight.get());
  return multiple;
}

bool Candidates::needs_whole_tensor() const {
  return std::any_of(all_.begin(), all_.end(),
                     [](const Treatment& candidate) { return NeedsPreparing(candidate.weight.get()); });
}

void Candidates::PrepareRows(const at::Tensor& w) {
  prepared_.resize(all_.size());
  const at::Tensor wide = Widened(w);
  for (size_t c = 0; c < all_.size(); ++c) autoscheme::PrepareRows(all_[c].weight.get(), wide, prepared_[c]);
}

// In the pool: what an operator converts by itself lies outside of what is planned, and leaves malloc's heap in pieces.
at::Tensor Candidates::Widened(const at::Tensor& t) const {
  return t.scalar_type() == at::kFloat ? t : NewTensor(&run_.weights, t.sizes(), at::kFloat).copy_(t);
}

Candidates::Inputs Candidates::Quantize(const at::Tensor& x, int64_t positions) const {
  const auto as_matrix = [&](const at::Tensor& all) {
    return all.narrow(-2, 0, positions).reshape({-1, all.size(-1)});
  };
  Inputs inputs;
  inputs.x = Converted(as_matrix(x), run_.operands());
  at::Tensor wide;
  for (const Treatment& candidate : all_) {
    inputs.quantized.emplace_back();
    if (candidate.activation == nullptr) continue;
    if (!wide.defined()) wide = Converted(x, at::kFloat);
    inputs.quantized.back() = as_matrix(candidate.activation->Forward(wide));
  }
  if (wide.defined()) inputs.wide = as_matrix(wide);
  return inputs;
}

at::Tensor Candidates::QuantizedRows(size_t candidate, const at::Tensor& w) const {
  const at::Tensor prepared = prepared_.empty() ? at::Tensor() : prepared_[candidate];
  at::Tensor wq = NewTensor(&run_.weights, w.sizes(), at::kFloat);
  if (all_[candidate].weight == nullptr) {
    wq.copy_(w);
  } else {
    all_[candidate].weight->ForwardInto(w, prepared, wq);
  }
  return wq;
}

void Candidates::Add(const Inputs& inputs, const at::Tensor& w, const at::Tensor& grad, at::Tensor& errors) const {
  const at::Tensor wide = Widened(w);
  at::Tensor exact;  // x W^T, for candidates that quantize x
  for (size_t c = 0; c < all_.size(); ++c) {
    if (!run_.context.CheckCancelled().ok()) return;  // the sweep ends at its next look, and nothing here is used
    at::Tensor wq = QuantizedRows(c, w), dy;
    if (inputs.quantized[c].defined()) {
      // The two outputs nearly cancel, so their products are in float32 and rounded no further.
      if (!exact.defined()) exact = Product(run_.products, inputs.wide, wide.t());
      dy = Product(run_.products, inputs.quantized[c], wq.t());
    } else {
      dy = Product(run_.products, inputs.x, Converted(wq.sub_(wide), run_.operands()).t(), run_.gradients());
    }
    wq.reset();
    at::Tensor sums = errors[static_cast<int64_t>(c)];
    const bool differs = inputs.quantized[c].defined();
    ForEachRowChunk(dy, dy.size(0), dy.size(1), [&](int64_t row, int64_t rows) {
      at::Tensor part = dy.narrow(0, row, rows);
      if (differs) part.sub_(exact.narrow(0, row, rows));
      sums.narrow(0, row, rows).add_(part.mul_(grad.narrow(0, row, rows)).sum(1, /*keepdim=*/false, at::kFloat));
    });
  }
}

at::Tensor Candidates::NewErrors(const Inputs& inputs) const {
  return NewLike(inputs.x, {static_cast<int64_t>(all_.size()), inputs.x.size(0)}, at::kFloat).zero_();
}

}  // namespace autoscheme
