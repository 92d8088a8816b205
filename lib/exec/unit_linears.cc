#include "exec/unit_linears.h"

#include <utility>

#include "base/status_macros.h"

namespace autoscheme {

absl::StatusOr<std::unique_ptr<UnitLinears>> UnitLinears::Create(RunResources& run, const ExecutionPlan& plan,
                                                                 const Unit& unit, const Scorers& scorers,
                                                                 int variant) {
  std::unique_ptr<UnitLinears> made(new UnitLinears(scorers, variant));
  const VariantNeeds& needs = scorers.needs().variants[variant];
  made->shows_inputs_ = needs.forward_only;
  for (const Unit::Linear& linear : unit.linears) {
    const LinearLayer& layer = *linear.layer;
    AUTOSCHEME_ASSIGN_OR_RETURN(Treatment treatment, scorers.Treat(variant, layer));
    made->activations_[&layer] = treatment.activation;
    if (treatment.activation != nullptr) made->activation_ = treatment.activation;
    AUTOSCHEME_ASSIGN_OR_RETURN(std::vector<Treatment> candidates, scorers.Candidates(variant, layer));
    made->linears_.emplace(
        &layer, std::make_unique<QuantizedLinear>(run, plan, layer, std::move(treatment), needs.linears[layer.index],
                                                  scorers, variant, std::move(candidates)));
  }
  return made;
}

void UnitLinears::Bind(const std::function<TensorView(absl::string_view)>& find, WeightRows& weights) {
  for (auto& [layer, linear] : linears_) {
    const TensorView bias = layer->bias != nullptr ? find(layer->bias->name) : TensorView{};
    linear->Bind(weights, bias);
  }
}

void UnitLinears::Unbind() {
  LeaveInput();
  for (auto& [layer, linear] : linears_) linear->Unbind();
}

at::Tensor UnitLinears::Apply(const LinearLayer& layer, const at::Tensor& x, bool values) {
  if (shows_inputs_) scorers_.OnForward(variant_, layer, x);
  const ActivationQuantizer* wanted = activations_.at(&layer).get();
  if (input_ == nullptr || !input_->Is(x) || (wanted != nullptr && wanted != quantizes_)) {
    LeaveInput();
    quantizes_ = wanted != nullptr ? wanted : activation_.get();
    input_ = std::make_shared<LinearInput>(x, quantizes_);
  }
  at::Tensor y = linears_.at(&layer)->Apply(x, input_, values);
  if (layer.last_product) LeaveInput();
  return y;
}

void UnitLinears::LeaveInput() {
  if (input_ != nullptr && saves_graph_) input_->Drop();
  input_.reset();
}

void UnitLinears::EndBatch() {
  for (auto& [layer, linear] : linears_) linear->EndBatch();
}

}  // namespace autoscheme
