// Fisher: the scorer that estimates what a scheme in one layer costs in relative entropy, by one gradient for all
// schemes (docs/scorers.md).
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "exec/scorer.h"
#include "scorers/scheme_treatments.h"
#include "scorers/scorer_input.h"

namespace autoscheme {

// With g the gradient in the network whose scored layers are W4A16, along a random direction of each prediction or of
// the sum of all cross entropies, and dy what a scheme changes of the outputs of one layer at one token, the loss of
// that scheme there is
//   1/2 sum over tokens of (sum over outputs of g dy)^2, divided by the number of predictions.
// There is one variant, that network, and each scheme of the menu that quantizes is a candidate of each scored layer.
// The head stays as it is.
class Fisher : public Scorer {
 public:
  // Errors: those of SchemeTreatments::Create.
  static absl::StatusOr<std::unique_ptr<Fisher>> Create(const ScorerInput& input,
                                                        Gradient gradient = Gradient::kRandom);

  const ScorerNeeds& needs() const override { return needs_; }
  absl::StatusOr<Treatment> Treat(int variant, const LinearLayer& layer) override;
  absl::StatusOr<std::vector<Treatment>> Candidates(int variant, const LinearLayer& layer) override;
  void OnOutputErrors(int variant, const LinearLayer& layer, const at::Tensor& errors) override;
  // "loss", zeros, and "standard error", by the layers that were given.
  ScoreTerms terms() const override;

 private:
  Fisher(const ScorerInput& input, Gradient gradient) : input_(input), scored_(input.layers), gradient_(gradient) {}
  void SayNeeds();
  // Rows of one layer that were shown, and for each candidate, in double, the sum over rows of what a row adds to the
  // loss, and of its square.
  struct Sums {
    int64_t rows = 0, predictions = 0;
    at::Tensor first, second;
  };

  const ScorerInput input_;
  const ScoredLayers scored_;
  const Gradient gradient_;
  std::vector<std::shared_ptr<const WeightQuantizer>> base_;  // by layer; null: stays as it is
  std::vector<int> schemes_;                                  // by candidate: index into the menu
  std::vector<SchemeTreatments> candidates_;
  ScorerNeeds needs_;
  std::vector<Sums> sums_;  // by layer
};

// Made by RunScorers' table.
absl::StatusOr<std::unique_ptr<Scorer>> MakeFisher(const ScorerInput& input);
absl::StatusOr<std::unique_ptr<Scorer>> MakeFisherOfLabels(const ScorerInput& input);

}  // namespace autoscheme
