// ScorerNeeds: what scorers ask of a run, as plain data: all that its cost depends on.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace autoscheme {

// How a variant treats one linear layer.
struct LinearNeeds {
  bool quantizes_weight = false;
  bool whole_weight = false;     // the quantizer must see all rows before it quantizes one
  bool weight_gradient = false;  // the scorer is shown the gradient of the weight
  bool scored = false;           // the scorer is shown some gradient
  // Other treatments of the layer, of whose outputs the scorer is shown how they differ; of them, those that quantize
  // the input; whether a quantizer of any must see all rows of the weight before it quantizes one.
  int candidates = 0, candidate_inputs = 0;
  bool whole_candidates = false;
  int64_t row_multiple = 1;  // what the height of a chunk of the weight must be a multiple of; 0 = the whole weight
};

// What a variant's gradients are those of: the mean cross entropy of a batch; the sum of all cross entropies; or a
// random direction of each prediction's logits, whose covariance is the Fisher information of the prediction.
enum class Gradient { kMeanLoss, kSummedLoss, kRandom };

// A variant is one quantized version of the network, whose activations flow through all units.
struct VariantNeeds {
  std::string name;                  // for messages: the scheme
  bool forward_only = false;         // nothing is differentiated, nor is the head computed unless logits are compared
  std::vector<LinearNeeds> linears;  // by LinearLayer::index
  Gradient gradient = Gradient::kMeanLoss;
  int embedding = 0;  // which form of the embedding's rows it starts from; 0: as they are stored
};

struct ScorerNeeds {
  std::vector<VariantNeeds>
      variants;                // the forward-only ones first, so that what they gather is there when the others come
  bool reads_imatrix = false;  // for some layer, so that it must be collected where no file gives it
  bool quantizes_activations = false;  // in some variant
  bool activations_span_batch =
      false;  // some activation quantizer's scale is that of a whole batch, which then cannot be cut
  // The head computes the logits of all variants, which are forward only, and compares each with variant 0.
  bool compares_logits = false;

  int count() const { return static_cast<int>(variants.size()); }
  int forward_only() const {
    return static_cast<int>(
        std::count_if(variants.begin(), variants.end(), [](const VariantNeeds& v) { return v.forward_only; }));
  }
  int with_gradients() const { return count() - forward_only(); }
  // Forms of the embedding's rows that variants start from.
  int embeddings() const {
    int most = 0;
    for (const VariantNeeds& variant : variants) most = std::max(most, variant.embedding);
    return 1 + most;
  }
};

}  // namespace autoscheme
