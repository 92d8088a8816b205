// EvaluationScorer: what recipes make of a model's predictions. Variant 0 is the network as it is, the others are the
// recipes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "autoscheme/evaluate.h"
#include "exec/scorer.h"
#include "scorers/imatrix.h"

namespace autoscheme {

struct EvaluationInput {
  const MetaSkeleton* skeleton = nullptr;
  std::vector<NamedRecipe> recipes;
  const Imatrix* imatrix = nullptr;  // null: k-quants are searched without one. Borrowed
  int64_t nsamples = 0, seqlen = 0;  // rows of tokens, and their length
};

// The layers that a recipe may name, blocks first, then the head, then the embedding.
std::vector<LayerInfo> LayersOfRecipes(const MetaSkeleton& skeleton);

class EvaluationScorer : public Scorer {
 public:
  // A layer that cannot hold a k-quant has its stand-in. INVALID_ARGUMENT for a recipe that does not fit the model;
  // UNIMPLEMENTED for a scheme whose quantizer this build lacks, and for an embedding whose groups span rows.
  static absl::StatusOr<std::unique_ptr<EvaluationScorer>> Create(EvaluationInput input);

  // What was found for each token, [nsamples, seqlen - 1].
  struct Figures {
    std::vector<double> kl, cross_entropy;
    std::vector<uint8_t> agrees;
  };
  const Figures& figures(int variant) const { return figures_[variant]; }
  // Whether some layer's scales are searched by an importance matrix, or would be if there was one.
  bool searches() const { return searches_; }
  bool searches_unweighed() const { return searches_ && input_.imatrix == nullptr; }

  const ScorerNeeds& needs() const override { return needs_; }
  absl::StatusOr<Treatment> Treat(int variant, const LinearLayer& layer) override;
  void OnPredictions(int variant, const MicroBatch& rows, const Predictions& predictions) override;
  std::shared_ptr<const WeightQuantizer> TreatEmbedding(int embedding) override { return embeddings_[embedding]; }

 private:
  struct Treated {
    LayerInfo layer;
    Scheme scheme;  // as stored
    Treatment treatment;
    bool weighs = false;  // searched by the importance matrix where that knows the layer
  };
  using Variant = std::vector<Treated>;  // by LinearLayer::index
  explicit EvaluationScorer(EvaluationInput input) : input_(std::move(input)) {}
  absl::Status Add(const NamedRecipe& named);
  absl::StatusOr<Treated> TreatmentOf(const LayerInfo& layer, const Scheme& scheme);
  absl::StatusOr<int> EmbeddingForm(const std::string& recipe, const LayerInfo& embedding, const Scheme& stored);
  void SayNeeds(const std::string& name, const Variant& variant, int embedding);

  const EvaluationInput input_;
  std::vector<LayerInfo> layers_;  // LayersOfRecipes
  ScorerNeeds needs_;
  std::vector<Variant> variants_;
  std::vector<Figures> figures_;
  std::vector<std::shared_ptr<const WeightQuantizer>> embeddings_;  // by form
  // One quantizer for all layers of a scheme, by its fields, and one form of the embedding.
  absl::flat_hash_map<std::string, std::shared_ptr<const WeightQuantizer>> weights_;
  absl::flat_hash_map<std::string, std::shared_ptr<const ActivationQuantizer>> activations_;
  absl::flat_hash_map<std::string, int> forms_;
  bool searches_ = false;
};

}  // namespace autoscheme
