#include "scorers/fisher.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/status_macros.h"
#include "formats/data_types.h"

namespace autoscheme {
namespace {

constexpr char kBase[] = "W4A16";

}  // namespace

absl::StatusOr<std::unique_ptr<Fisher>> Fisher::Create(const ScorerInput& input, Gradient gradient) {
  std::unique_ptr<Fisher> self(new Fisher(input, gradient));
  for (size_t s = 0; s < input.menu.size(); ++s) {
    if (input.menu[s].IsPassThrough()) continue;
    AUTOSCHEME_ASSIGN_OR_RETURN(SchemeTreatments treatments, SchemeTreatments::Create(self->input_, input.menu[s]));
    self->needs_.reads_imatrix |= treatments.reads_imatrix();
    self->schemes_.push_back(static_cast<int>(s));
    self->candidates_.push_back(std::move(treatments));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const Scheme base, FindScheme(kBase));
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::shared_ptr<const WeightQuantizer> quantizer, MakeWeightQuantizer(base));
  self->base_.resize(input.layers.size());
  self->sums_.resize(input.layers.size());
  for (size_t l = 0; l < input.layers.size(); ++l) {
    const LayerInfo& layer = input.layers[l];
    if (!layer.is_head && quantizer->CheckShape(layer.out_features, layer.in_features).ok()) self->base_[l] = quantizer;
  }
  if (!self->candidates_.empty()) self->SayNeeds();
  return self;
}

void Fisher::SayNeeds() {
  const MetaSkeleton& skeleton = *input_.skeleton;
  VariantNeeds needs;
  needs.name = kBase;
  needs.gradient = gradient_;
  needs.linears.resize(skeleton.head().index + 1);
  scored_.ForEach(skeleton, [&](const LinearLayer& linear, int l) {
    LinearNeeds& of_linear = needs.linears[linear.index];
    of_linear.quantizes_weight = base_[l] != nullptr;
    of_linear.scored = true;
    of_linear.candidates = static_cast<int>(candidates_.size());
    for (const SchemeTreatments& candidate : candidates_) {
      of_linear.candidate_inputs += candidate.activation() != nullptr;
      of_linear.row_multiple = CommonRowMultiple(of_linear.row_multiple, candidate.weight(l));
      of_linear.whole_candidates |= NeedsPreparing(candidate.weight(l));
    }
  });
  for (size_t c = 0; c < candidates_.size(); ++c) {
    if (candidates_[c].activation() == nullptr) continue;
    needs_.activations_span_batch |= SpansBatch(input_.menu[schemes_[c]]);
  }
  needs_.variants.push_back(std::move(needs));
}

absl::StatusOr<Treatment> Fisher::Treat(int, const LinearLayer& layer) {
  const int l = scored_.Find(layer);
  return l < 0 ? Treatment() : Treatment{base_[l], nullptr};
}

absl::StatusOr<std::vector<Treatment>> Fisher::Candidates(int, const LinearLayer& layer) {
  std::vector<Treatment> all;
  const int l = scored_.Find(layer);
  if (l < 0) return all;
  for (const SchemeTreatments& candidate : candidates_) {
    AUTOSCHEME_ASSIGN_OR_RETURN(all.emplace_back(), candidate.Treat(l));
  }
  return all;
}

void Fisher::OnOutputErrors(int, const LinearLayer& layer, const at::Tensor& errors) {
  Sums& sums = sums_[scored_.Find(layer)];
  const at::Tensor of_rows = errors.square().sum(2, /*keepdim=*/false, at::kDouble);
  if (!sums.first.defined()) {
    sums.first = at::zeros({errors.size(0)}, of_rows.options());
    sums.second = at::zeros_like(sums.first);
  }
  sums.rows += errors.size(1), sums.predictions += errors.size(1) * (errors.size(2) - 1);
  sums.first.add_(of_rows.sum(1)), sums.second.add_(of_rows.square().sum(1));
}

ScoreTerms Fisher::terms() const {
  ScoreTerms found;
  found.schemes = schemes_;
  found.variants.assign(schemes_.size(), -1);
  found.names = {"loss", "", "standard error"};
  const std::vector<double> zeros(input_.layers.size());
  found.terms.assign(schemes_.size(), {zeros, zeros, zeros});
  for (size_t l = 0; l < sums_.size(); ++l) {
    if (!sums_[l].first.defined()) continue;
    const at::Tensor first = sums_[l].first.to(at::kCPU), second = sums_[l].second.to(at::kCPU);
    const double rows = static_cast<double>(sums_[l].rows), scale = 0.5 / static_cast<double>(sums_[l].predictions);
    for (size_t c = 0; c < schemes_.size(); ++c) {
      const double sum = first.const_data_ptr<double>()[c], squares = second.const_data_ptr<double>()[c];
      found.terms[c][0][l] = scale * sum;
      // The sum's variance is `rows` times that of one row.
      if (rows > 1)
        found.terms[c][2][l] = scale * std::sqrt(std::max(0.0, (squares - sum * sum / rows) * rows / (rows - 1)));
    }
  }
  return found;
}

absl::StatusOr<std::unique_ptr<Scorer>> MakeFisher(const ScorerInput& input) { return Fisher::Create(input); }
absl::StatusOr<std::unique_ptr<Scorer>> MakeFisherOfLabels(const ScorerInput& input) {
  return Fisher::Create(input, Gradient::kSummedLoss);
}

}  // namespace autoscheme
