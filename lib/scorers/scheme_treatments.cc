#include "scorers/scheme_treatments.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "formats/data_types.h"
#include "formats/stand_in.h"

namespace autoscheme {
namespace {

// A quantizer for one layer of a k-quant; without the importance matrix where the weighted search cannot hold the
// shape.
absl::StatusOr<std::shared_ptr<const WeightQuantizer>> ForLayer(const Scheme& scheme, const LayerInfo& layer,
                                                                const at::Tensor* imatrix) {
  if (imatrix != nullptr) {
    auto made = MakeWeightQuantizer(scheme, *imatrix);
    if (!made.ok()) {
      return absl::Status(made.status().code(),
                          absl::StrCat("layer ", Quoted(layer.name), ": ", made.status().message(),
                                       "; squares of what the layer takes in may have overflowed"));
    }
    std::shared_ptr<const WeightQuantizer> weighted = *std::move(made);
    if (weighted->CheckShape(layer.out_features, layer.in_features).ok()) return weighted;
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(std::shared_ptr<const WeightQuantizer> plain, MakeWeightQuantizer(scheme));
  if (absl::Status s = plain->CheckShape(layer.out_features, layer.in_features); !s.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", Quoted(layer.name), ": ", s.message(),
                     "; leave the layer out with ignore_layers, or the scheme off the menu"));
  }
  return plain;
}

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
    AUTOSCHEME_RETURN_IF_ERROR(ForLayer(weight.scheme, input.layers[l], nullptr).status());
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
  AUTOSCHEME_ASSIGN_OR_RETURN(treatment.weight,
                              ForLayer(weight.scheme, info, row == input_->imatrix->end() ? nullptr : &row->second));
  return treatment;
}

}  // namespace autoscheme
