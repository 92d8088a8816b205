// DeltaLoss: the scorer that estimates how much each candidate scheme moves the loss (docs/algorithm.md 6.1), with one
// variant for each scheme.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "exec/scorer.h"
#include "scorers/scheme_treatments.h"
#include "scorers/scorer_input.h"

namespace autoscheme {

class DeltaLoss : public Scorer {
 public:
  // The variants are the schemes of the menu that quantize. Layers that are fixed or not listed stay as they are.
  // Errors: those of SchemeTreatments::Create.
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
  struct Variant {
    SchemeTreatments treatments;
    at::Tensor sums;  // [term, layer] in double, where the variant's gradients lie; undefined before the first
  };
  explicit DeltaLoss(const ScorerInput& input) : input_(input), scored_(input.layers) {}
  void SayNeeds();
  void Add(int variant, Term term, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& exact,
           const at::Tensor& quantized);

  const ScorerInput input_;
  std::vector<Variant> variants_;
  const ScoredLayers scored_;
  ScorerNeeds needs_;
  ScoreTerms terms_;  // all terms are zeros
};

// Made by RunScorers' table.
absl::StatusOr<std::unique_ptr<Scorer>> MakeDeltaLoss(const ScorerInput& input);

}  // namespace autoscheme
