#include "scorers/imatrix.h"

#include <ATen/ATen.h>

#include <utility>

namespace autoscheme {

ImatrixScorer::ImatrixScorer(const MetaSkeleton& skeleton, bool with_head)
    : left_out_(with_head ? nullptr : &skeleton.head()) {
  VariantNeeds needs;
  needs.name = "the importance matrix";
  needs.forward_only = true;
  needs.linears.resize(skeleton.head().index + 1);
  needs_.variants.push_back(std::move(needs));
}

void ImatrixScorer::OnForward(int, const LinearLayer& layer, const at::Tensor& x) {
  if (&layer == left_out_) return;
  constexpr int64_t kTokens = 128;  // at a time: no square of all of x exists
  const at::Tensor rows = x.detach().reshape({-1, x.size(-1)});
  at::Tensor& sum = imatrix_[layer.name];
  if (!sum.defined()) sum = at::zeros({rows.size(1)}, rows.options().dtype(at::kFloat));
  for (const at::Tensor& part : rows.split(kTokens)) sum.add_(part.to(at::kFloat).square().sum(0));
}

}  // namespace autoscheme
