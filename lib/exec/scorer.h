// Scorer: what is measured while the sweeps move weights and activations.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/meta_skeleton.h"
#include "plan/micro_batches.h"
#include "plan/scorer_needs.h"
#include "quant/quantizer.h"

namespace autoscheme {

// How one linear layer is computed under one variant. A null quantizer leaves its side as it is.
struct Treatment {
  std::shared_ptr<const WeightQuantizer> weight;
  std::shared_ptr<const ActivationQuantizer> activation;
};

// What one variant says of the ids of a micro-batch, beside what variant 0 says of them: [rows, seq - 1], in nats.
struct Predictions {
  at::Tensor kl;             // float64: KL(variant 0 || this one)
  at::Tensor cross_entropy;  // float64: of the id that follows
  at::Tensor agrees;         // bool: the most likely id is variant 0's
};

// What a scorer has found: terms[k][t][l] for the k-th scheme, the term called names[t], and the scorer's layer l, over
// all batches.
struct ScoreTerms {
  std::vector<int> schemes;   // indices into the menu
  std::vector<int> variants;  // by scheme: the scorer's variant that quantizes all layers by it; -1: there is none
  std::vector<std::string> names;
  std::vector<std::vector<std::vector<double>>> terms;
};

// A scorer says by needs() which variants of the network it wants, and is then shown every call of a linear layer, the
// head's too: its input on the way forward, and on the way back its gradients, or what other treatments would change
// of its output. It knows nothing of units, batches,
// budgets or disks. Called from one thread. Variants count from 0 in each scorer.
class Scorer {
 public:
  virtual ~Scorer() = default;
  // The same during a whole run.
  virtual const ScorerNeeds& needs() const = 0;
  // Asked when a unit with the layer begins; must agree with needs().
  virtual absl::StatusOr<Treatment> Treat(int variant, const LinearLayer& layer) = 0;
  // The input of a call, [..., in], before any quantizer. Only for forward-only variants.
  virtual void OnForward(int /*variant*/, const LinearLayer&, const at::Tensor& /*x*/) {}
  // dL/dxq of one call, where it has an activation quantizer and is scored; x and xq of its shape.
  virtual void OnInputGradient(int /*variant*/, const LinearLayer&, const at::Tensor& /*grad*/, const at::Tensor& /*x*/,
                               const at::Tensor& /*xq*/) {}
  // Rows of dL/dWq, summed over one batch, with the same rows of W and Wq; for LinearNeeds::weight_gradient.
  virtual void OnWeightGradient(int /*variant*/, const LinearLayer&, const at::Tensor& /*grad*/,
                                const at::Tensor& /*w*/, const at::Tensor& /*wq*/) {}
  // LinearNeeds::candidates of them, none for a layer without. Asked when a unit with the layer begins.
  virtual absl::StatusOr<std::vector<Treatment>> Candidates(int /*variant*/, const LinearLayer&) {
    return std::vector<Treatment>();
  }
  // What a call's output would change the loss by, to first order, if the layer alone were treated by each candidate
  // instead of left unquantized: for every token the sum over outputs of dL/dy (y(candidate) - y), where x is the
  // variant's own. float32 [candidates, rows, positions]; calls come in the order of rows.
  virtual void OnOutputErrors(int /*variant*/, const LinearLayer&, const at::Tensor& /*errors*/) {}
  // For ScorerNeeds::compares_logits, of every variant and micro-batch.
  virtual void OnPredictions(int /*variant*/, const MicroBatch&, const Predictions&) {}
  // A form of the embedding other than 0. Its quantizer takes rows in any order and number.
  virtual std::shared_ptr<const WeightQuantizer> TreatEmbedding(int /*embedding*/) { return nullptr; }
  virtual ScoreTerms terms() const { return {}; }
};

// The scorers of one run, their variants counted through. Scorers with forward-only variants come first. One that
// compares logits or quantizes the embedding is alone.
class Scorers {
 public:
  explicit Scorers(std::vector<Scorer*> scorers);  // borrowed
  const ScorerNeeds& needs() const { return needs_; }

  absl::StatusOr<Treatment> Treat(int variant, const LinearLayer& layer) const {
    return of_[variant].scorer->Treat(of_[variant].variant, layer);
  }
  void OnForward(int variant, const LinearLayer& layer, const at::Tensor& x) const {
    of_[variant].scorer->OnForward(of_[variant].variant, layer, x);
  }
  void OnInputGradient(int variant, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& x,
                       const at::Tensor& xq) const {
    of_[variant].scorer->OnInputGradient(of_[variant].variant, layer, grad, x, xq);
  }
  void OnWeightGradient(int variant, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& w,
                        const at::Tensor& wq) const {
    of_[variant].scorer->OnWeightGradient(of_[variant].variant, layer, grad, w, wq);
  }
  absl::StatusOr<std::vector<Treatment>> Candidates(int variant, const LinearLayer& layer) const {
    return of_[variant].scorer->Candidates(of_[variant].variant, layer);
  }
  void OnOutputErrors(int variant, const LinearLayer& layer, const at::Tensor& errors) const {
    of_[variant].scorer->OnOutputErrors(of_[variant].variant, layer, errors);
  }
  void OnPredictions(int variant, const MicroBatch& rows, const Predictions& predictions) const {
    of_[variant].scorer->OnPredictions(of_[variant].variant, rows, predictions);
  }
  std::shared_ptr<const WeightQuantizer> TreatEmbedding(int embedding) const {
    return of_[0].scorer->TreatEmbedding(embedding);
  }

 private:
  struct Place {
    Scorer* scorer = nullptr;
    int variant = 0;  // the scorer's own count
  };
  std::vector<Place> of_;  // by variant of the run
  ScorerNeeds needs_;
};

}  // namespace autoscheme
