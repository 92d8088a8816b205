// DeltaLoss: the scorer that estimates how much each candidate scheme moves the loss (docs/algorithm.md 6.1), with one
// variant for each scheme.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "exec/scorer.h"
#include "scorers/scorer_input.h"

namespace autoscheme {

class DeltaLoss : public Scorer {
 public:
  // The variants are the schemes of the menu that quantize. Layers that are fixed or not listed stay as they are. A
  // layer that cannot hold a k-quant is scored with its stand-in. The importance matrix is looked at when a layer is
  // treated; layers that it lacks are quantized without. UNIMPLEMENTED for a scheme whose quantizer this build lacks;
  // INVALID_ARGUMENT for one that cannot hold a layer's shape (names both).
  static absl::StatusOr<std::unique_ptr<DeltaLoss>> Create(const ScorerInput& input);

  const ScorerNeeds& needs() const override { return needs_; }
  absl::StatusOr<Treatment> Treat(int variant, const LinearLayer& layer) override;
  void OnInputGradient(int variant, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& x,
                       const at::Tensor& xq) override;
  void OnWeightGradient(int variant, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& w,
                        const at::Tensor& wq) override;
  // "weight" and "activation", by the layers that were given.
  ScoreTerms terms() const override;

 private:
  enum Term { kWeight, kActivation };
  // How one layer's weight is quantized under one scheme.
  struct LayerWeight {
    Scheme scheme;                                     // the scheme, or its stand-in
    std::shared_ptr<const WeightQuantizer> quantizer;  // null: stays as it is
    bool weighs = false;                               // searched by the importance matrix where there is one
  };
  struct Variant {
    std::vector<LayerWeight> layers;  // by layer of the input
    std::shared_ptr<const ActivationQuantizer> activation;
    at::Tensor sums;  // [term, layer] in double, where the variant's gradients lie; undefined before the first
  };
  explicit DeltaLoss(const ScorerInput& input) : input_(input) {}
  absl::StatusOr<Variant> Activate(const Scheme& scheme) const;
  void SayNeeds();
  void Add(int variant, Term term, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& exact,
           const at::Tensor& quantized);
  // Index into the layers of the input, or -1.
  int Find(const LinearLayer& layer) const {
    const auto found = scored_.find(layer.name);
    return found == scored_.end() ? -1 : found->second;
  }

  const ScorerInput input_;
  std::vector<Variant> variants_;
  absl::flat_hash_map<std::string, int> scored_;  // name -> index into the layers
  ScorerNeeds needs_;
  ScoreTerms terms_;  // all terms are zeros
};

// Made by RunScorers' table.
absl::StatusOr<std::unique_ptr<Scorer>> MakeDeltaLoss(const ScorerInput& input);

}  // namespace autoscheme
