#include "scorers/delta_loss.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/status_macros.h"
#include "exec/weights.h"
#include "formats/data_types.h"

namespace autoscheme {

absl::StatusOr<std::unique_ptr<DeltaLoss>> DeltaLoss::Create(const ScorerInput& input) {
  std::unique_ptr<DeltaLoss> self(new DeltaLoss(input));
  for (size_t s = 0; s < input.menu.size(); ++s) {
    if (input.menu[s].IsPassThrough()) continue;
    AUTOSCHEME_ASSIGN_OR_RETURN(SchemeTreatments treatments, SchemeTreatments::Create(self->input_, input.menu[s]));
    self->needs_.reads_imatrix |= treatments.reads_imatrix();
    self->terms_.schemes.push_back(static_cast<int>(s));
    self->terms_.variants.push_back(static_cast<int>(self->variants_.size()));
    self->variants_.push_back({std::move(treatments), {}});
  }
  self->terms_.names = {"weight", "activation"};
  const std::vector<double> zeros(input.layers.size());
  self->terms_.terms.assign(self->variants_.size(), {zeros, zeros});
  self->SayNeeds();
  return self;
}

void DeltaLoss::SayNeeds() {
  const MetaSkeleton& skeleton = *input_.skeleton;
  for (size_t v = 0; v < variants_.size(); ++v) {
    const SchemeTreatments& treatments = variants_[v].treatments;
    VariantNeeds needs;
    needs.name = input_.menu[terms_.schemes[v]].name;
    needs.linears.resize(skeleton.head().index + 1);
    scored_.ForEach(skeleton, [&](const LinearLayer& linear, int l) {
      LinearNeeds& of_linear = needs.linears[linear.index];
      const WeightQuantizer* quantizer = treatments.weight(l);
      of_linear.scored = treatments.quantizes(l);
      of_linear.quantizes_weight = of_linear.weight_gradient = quantizer != nullptr;
      of_linear.row_multiple = CommonRowMultiple(1, quantizer);
      of_linear.whole_weight = NeedsPreparing(quantizer);
    });
    if (treatments.activation() != nullptr) {
      needs_.quantizes_activations = true;
      needs_.activations_span_batch |= SpansBatch(input_.menu[terms_.schemes[v]]);
    }
    needs_.variants.push_back(std::move(needs));
  }
}

absl::StatusOr<Treatment> DeltaLoss::Treat(int variant, const LinearLayer& layer) {
  const int l = scored_.Find(layer);
  if (l < 0) return Treatment();
  return variants_[variant].treatments.Treat(l);
}

void DeltaLoss::OnInputGradient(int variant, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& x,
                                const at::Tensor& xq) {
  Add(variant, kActivation, layer, grad, x, xq);
}

void DeltaLoss::OnWeightGradient(int variant, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& w,
                                 const at::Tensor& wq) {
  Add(variant, kWeight, layer, grad, w, wq);
}

void DeltaLoss::Add(int variant, Term term, const LinearLayer& layer, const at::Tensor& grad, const at::Tensor& exact,
                    const at::Tensor& quantized) {
  at::Tensor& sums = variants_[variant].sums;
  if (!sums.defined()) {
    const auto layers = static_cast<int64_t>(input_.layers.size());
    sums = at::zeros({2, layers}, grad.options().dtype(at::kDouble));
  }
  AddAbsGradTimesError(sums[term][scored_.Find(layer)], grad, exact, quantized);
}

ScoreTerms DeltaLoss::terms() const {
  ScoreTerms found = terms_;
  for (size_t v = 0; v < variants_.size(); ++v) {
    if (!variants_[v].sums.defined()) continue;
    const at::Tensor sums = variants_[v].sums.to(at::kCPU);
    for (const Term term : {kWeight, kActivation}) {
      const double* of_layers = sums[term].const_data_ptr<double>();
      found.terms[v][term].assign(of_layers, of_layers + input_.layers.size());
    }
  }
  return found;
}

absl::StatusOr<std::unique_ptr<Scorer>> MakeDeltaLoss(const ScorerInput& input) { return DeltaLoss::Create(input); }

}  // namespace autoscheme
