// RecordingScorer: keeps all that it is shown. And quantizers whose results are seen at a glance.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "exec/scorer.h"

namespace autoscheme {

class RecordingScorer : public Scorer {
 public:
  struct Shown {
    int variant;
    std::string layer;
    std::vector<at::Tensor> tensors;
  };
  // Treats all layers of all variants alike.
  explicit RecordingScorer(ScorerNeeds needs, Treatment treatment = {})
      : needs_(std::move(needs)), treatment_(std::move(treatment)) {}
  const ScorerNeeds& needs() const override { return needs_; }
  absl::StatusOr<Treatment> Treat(int variant, const LinearLayer& layer) override {
    treated.push_back({variant, layer.name, {}});
    return treatment_;
  }
  void OnForward(int variant, const LinearLayer& layer, const at::Tensor& x) override {
    forward.push_back({variant, layer.name, {x.clone()}});
  }
  void OnInputGradient(int variant, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& x,
                       const at::Tensor& xq) override {
    inputs.push_back({variant, layer.name, {grad.clone(), x.clone(), xq.clone()}});
  }
  void OnWeightGradient(int variant, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& w,
                        const at::Tensor& wq) override {
    weights.push_back({variant, layer.name, {grad.clone(), w.clone(), wq.clone()}});
  }

  std::vector<Shown> treated, forward, inputs, weights;

 private:
  const ScorerNeeds needs_;
  const Treatment treatment_;
};

// Wq = 2 W.
struct Doubling : WeightQuantizer {
  at::Tensor Forward(const at::Tensor& rows, const at::Tensor&) const override { return rows * 2; }
  at::Tensor Backward(const at::Tensor&, const at::Tensor&, const at::Tensor& grad) const override { return grad * 2; }
};

// xq = x / 2. Counts its calls.
struct Halving : ActivationQuantizer {
  at::Tensor Forward(const at::Tensor& x) const override { return ++calls, x / 2; }
  void ForwardInto(const at::Tensor& x, at::Tensor& out) const override { out.copy_(Forward(x)); }
  at::Tensor Backward(const at::Tensor&, const at::Tensor& grad) const override { return grad / 2; }
  mutable int calls = 0;
};

}  // namespace autoscheme
