// Importance matrix: for every linear layer the sum of squares of each input channel, by which the searches of k-quants
// are weighed (docs/algorithm.md 6.5).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/container/flat_hash_map.h"
#include "exec/scorer.h"

namespace autoscheme {

// Layer name ("model.layers.0.mlp.up_proj") -> float32 [in_features].
using Imatrix = absl::flat_hash_map<std::string, at::Tensor>;

// Collects one, with a variant of its own: the network as it is, forward only. It goes before the scorers that read the
// matrix: a unit's layers are then known when the others reach the unit.
class ImatrixScorer : public Scorer {
 public:
  // Whether the head's inputs are collected too.
  ImatrixScorer(const MetaSkeleton& skeleton, bool with_head);
  const Imatrix& imatrix() const { return imatrix_; }

  const ScorerNeeds& needs() const override { return needs_; }
  absl::StatusOr<Treatment> Treat(int, const LinearLayer&) override { return Treatment(); }
  void OnForward(int variant, const LinearLayer& layer, const at::Tensor& x) override;

 private:
  const LinearLayer* const left_out_;
  ScorerNeeds needs_;
  Imatrix imatrix_;
};

}  // namespace autoscheme
