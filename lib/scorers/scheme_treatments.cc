#include "scorers/scheme_treatments.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "formats/data_types.h"
#include "formats/stand_in.h"
#include "scorers/layer_quantizer.h"

namespace autoscheme {
namespace {

bool IsScored(const LayerInfo& layer) { return !layer.fixed.has_value() && !layer.is_embedding; }

}  // namespace

ScoredLayers::ScoredLayers(const std::vector<LayerInfo>& layers) {
  for (size_t l = 0; l < layers.size(); ++l) {
    if (IsScored(layers[l])) index_.emplace(layers[l].name, static_cast<int>(l));
  }
}

int ScoredLayers::Find(const LinearLayer& layer) const {
  const auto found = index_.find(layer.name);
  return found == index_.end() ? -1 : found->second;
}

absl::StatusOr<SchemeTreatments> SchemeTreatments::Create(const ScorerInput& input, const Scheme& scheme) {
  SchemeTreatments made(input);
  AUTOSCHEME_ASSIGN_OR_RETURN(made.activation_, MakeActivationQuantizer(scheme));
  made.layers_.resize(input.layers.size());
  absl::flat_hash_map<std::string, std::shared_ptr<const WeightQuantizer>> shared;  // by the scheme's name
  for (size_t l = 0; l < input.layers.size(); ++l) {
    if (!IsScored(input.layers[l])) continue;
    LayerWeight& weight = made.layers_[l];
    weight.scheme = input.reference_rules ? scheme : StoredScheme(scheme, input.layers[l]);
    if (!weight.scheme.QuantizesWeight()) continue;
    AUTOSCHEME_RETURN_IF_ERROR(QuantizerOfLayer(weight.scheme, input.layers[l], nullptr).status());
    auto& quantizer = shared[weight.scheme.name];
    if (quantizer == nullptr) {
      AUTOSCHEME_ASSIGN_OR_RETURN(quantizer, MakeWeightQuantizer(weight.scheme));
    }
    weight.quantizer = quantizer;
    weight.weighs = UsesImatrix(weight.scheme);
  }
  return made;
}

bool SchemeTreatments::reads_imatrix() const {
  return std::any_of(layers_.begin(), layers_.end(), [](const LayerWeight& weight) { return weight.weighs; });
}

absl::StatusOr<Treatment> SchemeTreatments::Treat(int layer) const {
  const LayerWeight& weight = layers_[layer];
  Treatment treatment;
  treatment.activation = activation_;
  treatment.weight = weight.quantizer;
  if (!weight.weighs || input_->imatrix == nullptr) return treatment;
  const LayerInfo& info = input_->layers[layer];
  const auto row = input_->imatrix->find(info.name);
  AUTOSCHEME_ASSIGN_OR_RETURN(
      treatment.weight, QuantizerOfLayer(weight.scheme, info, row == input_->imatrix->end() ? nullptr : &row->second));
  return treatment;
}

}  // namespace autoscheme
