#include "scorers/delta_loss.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/status_macros.h"
#include "exec/weights.h"
#include "formats/data_types.h"
#include "formats/stand_in.h"
#include "scorers/layer_quantizer.h"

namespace autoscheme {

absl::StatusOr<std::unique_ptr<DeltaLoss>> DeltaLoss::Create(const ScorerInput& input) {
  std::unique_ptr<DeltaLoss> self(new DeltaLoss(input));
  for (size_t l = 0; l < input.layers.size(); ++l) {
    const LayerInfo& layer = input.layers[l];
    if (!layer.fixed.has_value() && !layer.is_embedding) self->scored_.emplace(layer.name, static_cast<int>(l));
  }
  for (size_t s = 0; s < input.menu.size(); ++s) {
    if (input.menu[s].IsPassThrough()) continue;
    AUTOSCHEME_ASSIGN_OR_RETURN(Variant variant, self->Activate(input.menu[s]));
    for (const LayerWeight& weight : variant.layers) self->needs_.reads_imatrix |= weight.weighs;
    self->terms_.schemes.push_back(static_cast<int>(s));
    self->variants_.push_back(std::move(variant));
  }
  self->terms_.names = {"weight", "activation"};
  const std::vector<double> zeros(input.layers.size());
  self->terms_.terms.assign(self->variants_.size(), {zeros, zeros});
  self->SayNeeds();
  return self;
}

absl::StatusOr<DeltaLoss::Variant> DeltaLoss::Activate(const Scheme& scheme) const {
  Variant variant;
  AUTOSCHEME_ASSIGN_OR_RETURN(variant.activation, MakeActivationQuantizer(scheme));
  variant.layers.resize(input_.layers.size());
  absl::flat_hash_map<std::string, std::shared_ptr<const WeightQuantizer>> made;  // by the scheme's name
  for (size_t l = 0; l < input_.layers.size(); ++l) {
    const LayerInfo& layer = input_.layers[l];
    if (layer.fixed.has_value() || layer.is_embedding) continue;
    LayerWeight& weight = variant.layers[l];
    weight.scheme = input_.reference_rules ? scheme : StoredScheme(scheme, layer);
    if (!weight.scheme.QuantizesWeight()) continue;
    AUTOSCHEME_RETURN_IF_ERROR(QuantizerOfLayer(weight.scheme, layer, nullptr).status());
    auto& quantizer = made[weight.scheme.name];
    if (quantizer == nullptr) {
      AUTOSCHEME_ASSIGN_OR_RETURN(quantizer, MakeWeightQuantizer(weight.scheme));
    }
    weight.quantizer = quantizer;
    weight.weighs = UsesImatrix(weight.scheme);
  }
  return variant;
}

void DeltaLoss::SayNeeds() {
  const MetaSkeleton& skeleton = *input_.skeleton;
  for (size_t v = 0; v < variants_.size(); ++v) {
    const Variant& variant = variants_[v];
    VariantNeeds needs;
    needs.name = input_.menu[terms_.schemes[v]].name;
    needs.linears.resize(skeleton.head().index + 1);
    const auto say = [&](const LinearLayer& linear) {
      const int l = Find(linear);
      if (l < 0) return;
      LinearNeeds& of_linear = needs.linears[linear.index];
      const WeightQuantizer* quantizer = variant.layers[l].quantizer.get();
      of_linear.scored = quantizer != nullptr || variant.activation != nullptr;
      of_linear.quantizes_weight = of_linear.weight_gradient = quantizer != nullptr;
      of_linear.whole_weight = quantizer != nullptr && quantizer->needs_whole_tensor();
    };
    for (const Block& block : skeleton.blocks()) {
      for (const LinearLayer& linear : block.linears) say(linear);
    }
    say(skeleton.head());
    if (variant.activation != nullptr) {
      needs_.quantizes_activations = true;
      needs_.activations_span_batch |= SpansBatch(input_.menu[terms_.schemes[v]]);
    }
    needs_.variants.push_back(std::move(needs));
  }
}

absl::StatusOr<Treatment> DeltaLoss::Treat(int variant, const LinearLayer& layer) {
  Treatment treatment;
  const int l = Find(layer);
  if (l < 0) return treatment;
  const LayerWeight& weight = variants_[variant].layers[l];
  treatment.activation = variants_[variant].activation;
  treatment.weight = weight.quantizer;
  if (!weight.weighs || input_.imatrix == nullptr) return treatment;
  const auto row = input_.imatrix->find(layer.name);
  AUTOSCHEME_ASSIGN_OR_RETURN(
      treatment.weight,
      QuantizerOfLayer(weight.scheme, input_.layers[l], row == input_.imatrix->end() ? nullptr : &row->second));
  return treatment;
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
  AddAbsGradTimesError(sums[term][Find(layer)], grad, exact, quantized);
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
