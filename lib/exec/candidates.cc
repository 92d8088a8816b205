#include "exec/candidates.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "tensor/row_chunks.h"

namespace autoscheme {

int64_t Candidates::RowMultiple(int64_t multiple) const {
  for (const Treatment& candidate : all_) {
    if (candidate.weight == nullptr || multiple == 0) continue;
    const int64_t own = candidate.weight->row_multiple();
    multiple = own == 0 ? 0 : std::lcm(multiple, own);
  }
  return multiple;
}

bool Candidates::needs_whole_tensor() const {
  return std::any_of(all_.begin(), all_.end(), [](const Treatment& candidate) {
    return candidate.weight != nullptr && candidate.weight->needs_whole_tensor();
  });
}

void Candidates::PrepareRows(const at::Tensor& w) {
  prepared_.resize(all_.size());
  for (size_t c = 0; c < all_.size(); ++c) {
    if (all_[c].weight == nullptr || !all_[c].weight->needs_whole_tensor()) continue;
    const at::Tensor part = all_[c].weight->Prepare(w.to(run_.dtype()));
    prepared_[c] = prepared_[c].defined() ? at::maximum(prepared_[c], part) : part;
  }
}

Candidates::Inputs Candidates::Quantize(const at::Tensor& x, int64_t positions) const {
  const auto as_matrix = [&](const at::Tensor& all) {
    return all.narrow(-2, 0, positions).reshape({-1, all.size(-1)});
  };
  Inputs inputs;
  inputs.x = as_matrix(x);
  for (const Treatment& candidate : all_) {
    inputs.quantized.push_back(candidate.activation == nullptr ? at::Tensor()
                                                               : as_matrix(candidate.activation->Forward(x)));
  }
  return inputs;
}

at::Tensor Candidates::QuantizedRows(size_t candidate, const at::Tensor& w) const {
  const at::Tensor prepared = prepared_.empty() ? at::Tensor() : prepared_[candidate];
  at::Tensor wq = NewTensor(&run_.weights, w.sizes(), run_.dtype());
  if (all_[candidate].weight == nullptr) {
    wq.copy_(w);
  } else if (wq.scalar_type() == at::kFloat) {
    all_[candidate].weight->ForwardInto(w, prepared, wq);
  } else {
    wq.copy_(all_[candidate].weight->Forward(w, prepared));
  }
  return wq;
}

void Candidates::Add(const Inputs& inputs, const at::Tensor& w, const at::Tensor& grad, at::Tensor& errors) const {
  const at::Tensor operand = Converted(inputs.x, run_.operands());
  at::Tensor exact;  // x W^T, for candidates that quantize x
  for (size_t c = 0; c < all_.size(); ++c) {
    at::Tensor wq = QuantizedRows(c, w), dy;
    if (inputs.quantized[c].defined()) {
      // The two outputs nearly cancel, so their products are not rounded any further.
      if (!exact.defined()) exact = Product(run_.products, inputs.x, Converted(w, run_.dtype()).t());
      dy = Product(run_.products, inputs.quantized[c], wq.t()).sub_(exact);
    } else {
      dy = Product(run_.products, operand, Converted(wq.sub_(w), run_.operands()).t(), run_.gradients());
    }
    wq.reset();
    at::Tensor sums = errors[c];
    ForEachRowChunk(dy, dy.size(0), dy.size(1), [&](int64_t row, int64_t rows) {
      at::Tensor part = dy.narrow(0, row, rows);
      sums.narrow(0, row, rows).add_(part.mul_(grad.narrow(0, row, rows)).sum(1, /*keepdim=*/false, at::kFloat));
    });
  }
}

at::Tensor Candidates::NewErrors(const Inputs& inputs) const {
  return at::zeros({static_cast<int64_t>(all_.size()), inputs.x.size(0)}, inputs.x.options().dtype(at::kFloat));
}

}  // namespace autoscheme
