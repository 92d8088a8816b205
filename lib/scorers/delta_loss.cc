#include "scorers/delta_loss.h"

#include <utility>

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "formats/stand_in.h"

namespace autoscheme {
namespace {

// The K types weigh their search by the importance matrix; nothing else does.
bool UsesImatrix(const Scheme& scheme) { return scheme.super_group_size.has_value(); }

// Adds the sum of squares of every channel over all tokens, by stretches of tokens: no square of all of x exists.
void Accumulate(Imatrix& imatrix, const std::string& layer, const at::Tensor& x) {
  constexpr int64_t kTokens = 128;
  const at::Tensor rows = x.detach().reshape({-1, x.size(-1)});
  at::Tensor& sum = imatrix[layer];
  if (!sum.defined()) sum = at::zeros({rows.size(1)}, rows.options().dtype(at::kFloat));
  for (const at::Tensor& part : rows.split(kTokens)) sum.add_(part.to(at::kFloat).square().sum(0));
}

// A quantizer for one layer of a K type; without the importance matrix where the weighted search cannot hold the shape
// (SPEC 10 item 7).
absl::StatusOr<std::unique_ptr<WeightQuantizer>> ForLayer(const Scheme& scheme, const LayerInfo& layer, const at::Tensor* imatrix) {
  if (imatrix != nullptr) {
    auto made = MakeWeightQuantizer(scheme, *imatrix);
    if (!made.ok()) {
      return absl::Status(made.status().code(), absl::StrCat("layer ", Quoted(layer.name), ": ", made.status().message(),
                                                             "; squares of what the layer takes in may have overflowed"));
    }
    auto weighted = *std::move(made);
    if (weighted->CheckShape(layer.out_features, layer.in_features).ok()) return weighted;
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(auto plain, MakeWeightQuantizer(scheme));
  if (absl::Status s = plain->CheckShape(layer.out_features, layer.in_features); !s.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", Quoted(layer.name), ": ", s.message(),
                                                   "; leave the layer out with ignore_layers, or the scheme off the menu"));
  }
  return plain;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeltaLoss>> DeltaLoss::Create(ScoreTable& table, const Options& options) {
  auto self = std::unique_ptr<DeltaLoss>(new DeltaLoss(table, options));
  for (size_t l = 0; l < table.layers.size(); ++l) {
    const LayerInfo& layer = table.layers[l];
    if (layer.fixed.has_value() || layer.is_embedding) continue;
    if (layer.is_head) {
      self->head_layer_ = static_cast<int>(l);
    } else {
      self->measured_layers_.emplace(layer.name, static_cast<int>(l));
    }
  }
  for (size_t s = 0; s < table.schemes.size(); ++s) {
    const Scheme& scheme = table.schemes[s];
    if (scheme.IsPassThrough()) continue;
    AUTOSCHEME_ASSIGN_OR_RETURN(ActiveScheme active, self->Activate(static_cast<int>(s)));
    for (const LayerWeight& weight : active.layers) {
      self->collects_imatrix_ = self->collects_imatrix_ || (weight.weighs && options.imatrix == nullptr);
    }
    self->schemes_.push_back(std::move(active));
  }
  table.scores.assign(table.schemes.size(), std::vector<LayerScore>(table.layers.size()));
  for (size_t s = 0; s < table.schemes.size() && !options.reference_rules; ++s) {
    for (size_t l = 0; l < table.layers.size(); ++l) {
      const LayerInfo& layer = table.layers[l];
      table.scores[s][l].stand_in = !layer.fixed.has_value() && StandIn(table.schemes[s], layer).has_value();
    }
  }
  table.ce_loss.assign(table.schemes.size(), {});
  for (const ActiveScheme& active : self->schemes_) table.ce_loss[active.index].assign(options.batches, 0.0);
  return self;
}

absl::StatusOr<DeltaLoss::ActiveScheme> DeltaLoss::Activate(int index) {
  const Scheme& scheme = table_.schemes[index];
  ActiveScheme active;
  active.index = index;
  AUTOSCHEME_ASSIGN_OR_RETURN(active.activation, MakeActivationQuantizer(scheme));
  active.layers.resize(table_.layers.size());
  absl::flat_hash_map<std::string, const WeightQuantizer*> made;  // by the scheme's name
  for (size_t l = 0; l < table_.layers.size(); ++l) {
    const LayerInfo& layer = table_.layers[l];
    if (layer.fixed.has_value() || layer.is_embedding) continue;
    LayerWeight& weight = active.layers[l];
    weight.scheme = options_.reference_rules ? scheme : StoredScheme(scheme, layer);
    if (!weight.scheme.QuantizesWeight()) continue;
    AUTOSCHEME_RETURN_IF_ERROR(ForLayer(weight.scheme, layer, nullptr).status());
    const auto [known, is_new] = made.try_emplace(weight.scheme.name, nullptr);
    if (is_new) {
      AUTOSCHEME_ASSIGN_OR_RETURN(auto quantizer, MakeWeightQuantizer(weight.scheme));
      known->second = quantizer.get();
      active.quantizers.push_back(std::move(quantizer));
    }
    weight.quantizer = known->second;
    weight.weighs = UsesImatrix(weight.scheme);
  }
  return active;
}

const at::Tensor* DeltaLoss::FindImatrix(const std::string& layer) const {
  const Imatrix& imatrix = options_.imatrix != nullptr ? *options_.imatrix : collected_;
  auto it = imatrix.find(layer);
  return it == imatrix.end() ? nullptr : &it->second;
}

absl::StatusOr<DeltaLoss::UnitLinears> DeltaLoss::MakeLinears(int trajectory, const Unit& unit) const {
  const ActiveScheme* scheme = active(trajectory);
  ScoredLinear::Options options;
  options.precision = options_.precision;
  options.chunk_bytes = options_.chunk_bytes;
  options.cache_weight = options_.cache_weights;
  options.measure = scheme != nullptr;
  options.sliced = options_.sliced;
  options.meter = options_.meter;
  options.pool = options_.pool;
  UnitLinears made;
  for (const LinearLayer* layer : unit.linears) {
    const WeightQuantizer* weight = nullptr;
    const ActivationQuantizer* activation = nullptr;
    if (auto it = measured_layers_.find(layer->name); scheme != nullptr && it != measured_layers_.end()) {
      const LayerWeight& of_layer = scheme->layers[it->second];
      weight = of_layer.quantizer;
      activation = scheme->activation.get();
      if (of_layer.weighs) {
        AUTOSCHEME_ASSIGN_OR_RETURN(auto own, ForLayer(of_layer.scheme, table_.layers[it->second], FindImatrix(layer->name)));
        weight = own.get();
        made.quantizers.push_back(std::move(own));
      }
    }
    made.linears.emplace(layer, std::make_unique<ScoredLinear>(*layer->weight, weight, activation, options));
  }
  return made;
}

absl::Status DeltaLoss::BeginUnit(Pass pass, int trajectory, const ResidentUnit& unit) {
  pass_ = pass, trajectory_ = trajectory, unit_ = &unit;
  if (auto kept = kept_.find({unit.index, trajectory}); kept != kept_.end()) {
    current_ = std::move(kept->second);
    kept_.erase(kept);
  } else {
    AUTOSCHEME_ASSIGN_OR_RETURN(current_, MakeLinears(trajectory, *unit.unit));
  }
  for (const LinearLayer* layer : unit.unit->linears) {
    const TensorView bias = layer->bias != nullptr ? unit.find(layer->bias->name) : TensorView{};
    current_.linears[layer]->Bind(unit.find(layer->weight->name).data, unit.tiles, bias);
  }
  return absl::OkStatus();
}

at::Tensor DeltaLoss::Linear(const LinearLayer& layer, const at::Tensor& x, bool values) {
  const ActiveScheme* scheme = active(trajectory_);
  if (scheme == nullptr) Accumulate(collected_, layer.name, x);
  ScoredLinear& linear = *current_.linears.at(&layer);
  if (input_ == nullptr || !input_->Is(x)) {
    LeaveInput();
    input_ = std::make_shared<LinearInput>(x, scheme != nullptr ? scheme->activation.get() : nullptr);
  }
  at::Tensor y = linear.Apply(x, input_, values);
  if (layer.ends_segment) LeaveInput();
  return y;
}

void DeltaLoss::LeaveInput() {
  if (input_ != nullptr && unit_->keep) input_->Drop();
  input_.reset();
}

absl::Status DeltaLoss::EndBatch() {
  for (auto& [layer, linear] : current_.linears) linear->EndBatch();
  return absl::OkStatus();
}

absl::Status DeltaLoss::EndUnit() {
  LeaveInput();
  for (auto& [layer, linear] : current_.linears) {
    linear->Unbind();
    auto it = measured_layers_.find(layer->name);
    if (pass_ == Pass::kBackward && it != measured_layers_.end()) {
      const LayerScore score = linear->score();
      PutScore(trajectory_, it->second, score.weight, score.activation);
    }
  }
  if (pass_ == Pass::kForward && unit_->keep && active(trajectory_) != nullptr) {
    kept_[{unit_->index, trajectory_}] = std::move(current_);
  }
  current_ = {};
  return absl::OkStatus();
}

WeightUse DeltaLoss::weight_use(int trajectory, const LinearLayer& layer) const {
  const ActiveScheme* scheme = active(trajectory);
  const auto found = measured_layers_.find(layer.name);
  if (scheme == nullptr || found == measured_layers_.end()) return {};
  const WeightQuantizer* quantizer = scheme->layers[found->second].quantizer;
  if (quantizer == nullptr) return {};
  return {quantizer->needs_whole_tensor(), options_.sliced};
}

void DeltaLoss::OnHeadInput(int trajectory, int, const at::Tensor& x) {
  if (active(trajectory) == nullptr && head_layer_ >= 0) Accumulate(collected_, table_.layers[head_layer_].name, x);
}

HeadTreatment DeltaLoss::head(int trajectory) {
  HeadTreatment treatment;
  ActiveScheme* scheme = active(trajectory);
  treatment.skip = scheme == nullptr;
  if (scheme == nullptr || head_layer_ < 0) return treatment;
  const LayerWeight& of_head = scheme->layers[head_layer_];
  treatment.weight = of_head.quantizer;
  treatment.activation = scheme->activation.get();
  treatment.measure = treatment.weight != nullptr || treatment.activation != nullptr;
  const LayerInfo& layer = table_.layers[head_layer_];
  const at::Tensor* imatrix = FindImatrix(layer.name);
  if (imatrix == nullptr || !of_head.weighs) return treatment;
  if (scheme->head_weight == nullptr) {
    if (auto own = ForLayer(of_head.scheme, layer, imatrix); own.ok()) scheme->head_weight = *std::move(own);
  }
  if (scheme->head_weight != nullptr) treatment.weight = scheme->head_weight.get();
  return treatment;
}

void DeltaLoss::OnLoss(int trajectory, int batch, double loss) {
  table_.ce_loss[active(trajectory)->index][batch] = loss;
}

void DeltaLoss::OnHeadScore(int trajectory, double weight, double activation) {
  PutScore(trajectory, head_layer_, weight, activation);
}

void DeltaLoss::PutScore(int trajectory, int layer, double weight, double activation) {
  LayerScore& score = table_.scores[active(trajectory)->index][layer];
  score.weight = weight, score.activation = activation;
}

}  // namespace autoscheme
