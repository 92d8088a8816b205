#include "score/delta_loss.h"

#include <utility>

#include "base/status_macros.h"

namespace autoscheme {

absl::StatusOr<std::unique_ptr<DeltaLoss>> DeltaLoss::Create(ScoreTable& table, const Options& options) {
  auto self = std::unique_ptr<DeltaLoss>(new DeltaLoss(table, options));
  for (size_t s = 0; s < table.schemes.size(); ++s) {
    const Scheme& scheme = table.schemes[s];
    if (scheme.IsPassThrough()) continue;
    ActiveScheme active;
    active.index = static_cast<int>(s);
    AUTOSCHEME_ASSIGN_OR_RETURN(active.weight, MakeWeightQuantizer(scheme));
    AUTOSCHEME_ASSIGN_OR_RETURN(active.activation, MakeActivationQuantizer(scheme));
    self->schemes_.push_back(std::move(active));
  }
  for (size_t l = 0; l < table.layers.size(); ++l) {
    const LayerInfo& layer = table.layers[l];
    if (layer.fixed.has_value()) continue;
    if (layer.is_head) {
      self->head_layer_ = static_cast<int>(l);
    } else {
      self->measured_layers_.emplace(layer.name, static_cast<int>(l));
    }
  }
  table.scores.assign(table.schemes.size(), std::vector<LayerScore>(table.layers.size()));
  table.ce_loss.assign(table.schemes.size(), {});
  for (const ActiveScheme& active : self->schemes_) table.ce_loss[active.index].assign(options.batches, 0.0);
  return self;
}

absl::Status DeltaLoss::BeginBlock(Pass pass, int trajectory, const ResidentBlock& block) {
  pass_ = pass, trajectory_ = trajectory, block_ = block.block;
  const ActiveScheme& scheme = schemes_[trajectory];
  ScoredLinear::Options options;
  options.dtype = options_.dtype;
  options.chunk_bytes = options_.chunk_bytes;
  options.cache_weight = options_.cache_weights;
  options.measure = pass == Pass::kBackward;
  for (const LinearLayer& layer : block.block->linears) {
    const bool active = measured_layers_.contains(layer.name);
    const TensorView bias = layer.bias != nullptr ? block.find(layer.bias->name) : TensorView{};
    linears_.push_back(std::make_unique<ScoredLinear>(block.find(layer.weight->name), bias,
                                                      active ? scheme.weight.get() : nullptr,
                                                      active ? scheme.activation.get() : nullptr, options));
  }
  return absl::OkStatus();
}

absl::Status DeltaLoss::EndBlock() {
  if (pass_ == Pass::kBackward) {
    for (size_t i = 0; i < linears_.size(); ++i) {
      auto it = measured_layers_.find(block_->linears[i].name);
      if (it == measured_layers_.end()) continue;
      table_.scores[schemes_[trajectory_].index][it->second] = linears_[i]->score();
    }
  }
  linears_.clear();
  return absl::OkStatus();
}

HeadTreatment DeltaLoss::head(int trajectory) {
  if (head_layer_ < 0) return {};
  return {schemes_[trajectory].weight.get(), schemes_[trajectory].activation.get(), /*measure=*/true};
}

void DeltaLoss::OnLoss(int trajectory, int batch, double loss) {
  table_.ce_loss[schemes_[trajectory].index][batch] = loss;
}

void DeltaLoss::OnHeadScore(int trajectory, double weight, double activation) {
  table_.scores[schemes_[trajectory].index][head_layer_] = {weight, activation};
}

}  // namespace autoscheme
