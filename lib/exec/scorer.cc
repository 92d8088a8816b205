#include "exec/scorer.h"

namespace autoscheme {

Scorers::Scorers(std::vector<Scorer*> scorers) {
  for (Scorer* scorer : scorers) {
    const ScorerNeeds& own = scorer->needs();
    for (int v = 0; v < own.count(); ++v) {
      of_.push_back({scorer, v});
      needs_.variants.push_back(own.variants[v]);
    }
    needs_.reads_imatrix |= own.reads_imatrix;
    needs_.quantizes_activations |= own.quantizes_activations;
    needs_.activations_span_batch |= own.activations_span_batch;
    needs_.compares_logits |= own.compares_logits;
  }
}

}  // namespace autoscheme
