#include "scorers/evaluation.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "formats/data_types.h"
#include "formats/scheme_json.h"
#include "formats/stand_in.h"
#include "model/decoder_spec.h"
#include "scorers/layer_quantizer.h"
#include "scorers/linear_layers.h"

namespace autoscheme {
namespace {

// Whether rows are quantized apart from one another.
bool TakesAnyRows(const WeightQuantizer& quantizer, const Scheme& scheme, int64_t width) {
  if (quantizer.needs_whole_tensor()) return false;
  if (quantizer.row_multiple() == 1) return true;
  const int super_group = TypeOf(scheme)->super.groups * scheme.group.size;
  return super_group > 0 && width % super_group == 0;
}

// Each layer of the recipe by its name. INVALID_ARGUMENT for one that the model lacks, or that is named twice.
absl::StatusOr<absl::flat_hash_map<std::string, const Scheme*>> ByLayer(const NamedRecipe& named,
                                                                        const std::vector<LayerInfo>& layers) {
  absl::flat_hash_map<std::string, const Scheme*> schemes;
  for (const LayerChoice& choice : named.recipe.layers) {
    const bool known = std::any_of(layers.begin(), layers.end(), [&](const auto& l) { return l.name == choice.layer; });
    if (!known) {
      return absl::InvalidArgumentError(absl::StrCat("recipe ", Quoted(named.name), " names layer ",
                                                     Quoted(choice.layer),
                                                     ", which the model does not have: it was made for another model"));
    }
    if (!schemes.emplace(choice.layer, &choice.scheme).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("recipe ", Quoted(named.name), " names layer ", Quoted(choice.layer), " twice"));
    }
  }
  return schemes;
}

absl::Status CheckParams(const NamedRecipe& named, int64_t total_params) {
  if (named.recipe.total_params == 0 || named.recipe.total_params == total_params) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("recipe ", Quoted(named.name), " is of ", named.recipe.total_params,
                                                 " weights, its layers have ", total_params,
                                                 " in this model: it was made for another model"));
}

}  // namespace

std::vector<LayerInfo> LayersOfRecipes(const MetaSkeleton& skeleton) {
  std::vector<LayerInfo> layers = LinearLayersOf(skeleton);
  LayerInfo embedding;
  embedding.name = std::string(absl::StripSuffix(skeleton.spec().input.embedding, ".weight"));
  embedding.out_features = skeleton.embedding()->shape[0], embedding.in_features = skeleton.embedding()->shape[1];
  embedding.is_embedding = true;
  layers.push_back(std::move(embedding));
  return layers;
}

absl::StatusOr<std::unique_ptr<EvaluationScorer>> EvaluationScorer::Create(EvaluationInput input) {
  std::unique_ptr<EvaluationScorer> self(new EvaluationScorer(std::move(input)));
  const EvaluationInput& in = self->input_;
  if (in.recipes.empty()) return absl::InvalidArgumentError("no recipe and no scheme to evaluate: give at least one");
  self->layers_ = LayersOfRecipes(*in.skeleton);
  self->needs_.compares_logits = true;
  self->embeddings_.push_back(nullptr);
  const Variant full(self->layers_.size() - 1);
  self->SayNeeds("full precision", full, 0);
  self->variants_.push_back(full);
  for (const NamedRecipe& named : in.recipes) AUTOSCHEME_RETURN_IF_ERROR(self->Add(named));
  const size_t tokens = static_cast<size_t>(in.nsamples) * static_cast<size_t>(std::max<int64_t>(in.seqlen - 1, 0));
  for (size_t v = 0; v < self->variants_.size(); ++v) {
    self->figures_.push_back({std::vector<double>(tokens), std::vector<double>(tokens), std::vector<uint8_t>(tokens)});
  }
  return self;
}

absl::Status EvaluationScorer::Add(const NamedRecipe& named) {
  using Schemes = absl::flat_hash_map<std::string, const Scheme*>;
  AUTOSCHEME_ASSIGN_OR_RETURN(const Schemes schemes, ByLayer(named, layers_));
  Variant variant(layers_.size() - 1);
  int embedding = 0;
  int64_t total_params = 0;
  const LayerInfo& rows = layers_.back();
  for (size_t l = 0; l < layers_.size(); ++l) {
    const LayerInfo& layer = layers_[l];
    const auto found = schemes.find(layer.name);
    if (found != schemes.end()) total_params += layer.out_features * layer.in_features;
    if (layer.is_embedding) {
      if (found == schemes.end()) continue;
      AUTOSCHEME_ASSIGN_OR_RETURN(embedding, EmbeddingForm(named.name, layer, StoredScheme(*found->second, layer)));
    } else if (found != schemes.end()) {
      auto treated = TreatmentOf(layer, StoredScheme(*found->second, layer));
      if (!treated.ok()) {
        return absl::Status(treated.status().code(),
                            absl::StrCat("recipe ", Quoted(named.name), ": ", treated.status().message()));
      }
      variant[l] = *std::move(treated);
    } else if (!layer.is_head) {
      return absl::InvalidArgumentError(absl::StrCat("recipe ", Quoted(named.name), " lacks layer ", Quoted(layer.name),
                                                     ": it must say how each layer is quantized"));
    }
  }
  AUTOSCHEME_RETURN_IF_ERROR(CheckParams(named, total_params));
  // One tensor: a runtime that quantizes it reads the head from there.
  const size_t head = layers_.size() - 2;
  if (embedding > 0 && input_.skeleton->tied_head() && !schemes.contains(layers_[head].name)) {
    variant[head].layer = layers_[head], variant[head].scheme = StoredScheme(*schemes.at(rows.name), rows);
    variant[head].treatment.weight = embeddings_[embedding];
  }
  SayNeeds(named.name, variant, embedding);
  variants_.push_back(std::move(variant));
  return absl::OkStatus();
}

absl::StatusOr<EvaluationScorer::Treated> EvaluationScorer::TreatmentOf(const LayerInfo& layer, const Scheme& scheme) {
  Treated treated{layer, scheme, {}, false};
  const std::string key = SchemeToJson(scheme);
  if (scheme.QuantizesWeight()) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const auto fits, QuantizerOfLayer(scheme, layer, nullptr));
    treated.treatment.weight = weights_.emplace(key, fits).first->second;
    treated.weighs = UsesImatrix(scheme);
    searches_ = searches_ || treated.weighs;
  }
  if (scheme.QuantizesActivation()) {
    auto& quantizer = activations_[key];
    if (quantizer == nullptr) {
      AUTOSCHEME_ASSIGN_OR_RETURN(quantizer, MakeActivationQuantizer(scheme));
    }
    treated.treatment.activation = quantizer;
  }
  return treated;
}

absl::StatusOr<int> EvaluationScorer::EmbeddingForm(const std::string& recipe, const LayerInfo& embedding,
                                                    const Scheme& stored) {
  if (!stored.QuantizesWeight()) return 0;
  const auto [form, is_new] = forms_.emplace(SchemeToJson(stored), static_cast<int>(embeddings_.size()));
  if (!is_new) return form->second;
  AUTOSCHEME_ASSIGN_OR_RETURN(const auto quantizer, QuantizerOfLayer(stored, embedding, nullptr));
  if (!TakesAnyRows(*quantizer, stored, embedding.in_features)) {
    return absl::UnimplementedError(absl::StrCat(
        "recipe ", Quoted(recipe), ": ", Quoted(embedding.name), " is to be quantized with ", stored.name,
        ", whose scales span rows; of an embedding only the rows that occur are read, so each must have its own"));
  }
  embeddings_.push_back(quantizer);
  return form->second;
}

void EvaluationScorer::SayNeeds(const std::string& name, const Variant& variant, int embedding) {
  VariantNeeds needs;
  needs.name = name, needs.forward_only = true, needs.embedding = embedding;
  for (const Treated& treated : variant) {
    LinearNeeds linear;
    linear.quantizes_weight = treated.treatment.weight != nullptr;
    linear.whole_weight = NeedsPreparing(treated.treatment.weight.get());
    needs.linears.push_back(linear);
    if (treated.treatment.activation == nullptr) continue;
    needs_.quantizes_activations = true;
    needs_.activations_span_batch |= SpansBatch(treated.scheme);
  }
  needs_.variants.push_back(std::move(needs));
}

absl::StatusOr<Treatment> EvaluationScorer::Treat(int variant, const LinearLayer& layer) {
  const Treated& treated = variants_[variant][layer.index];
  Treatment treatment = treated.treatment;
  if (!treated.weighs || input_.imatrix == nullptr) return treatment;
  const auto row = input_.imatrix->find(layer.name);
  if (row == input_.imatrix->end()) return treatment;
  AUTOSCHEME_ASSIGN_OR_RETURN(treatment.weight, QuantizerOfLayer(treated.scheme, treated.layer, &row->second));
  return treatment;
}

void EvaluationScorer::OnPredictions(int variant, const MicroBatch& rows, const Predictions& predictions) {
  Figures& figures = figures_[variant];
  const size_t first = static_cast<size_t>(rows.first_row) * static_cast<size_t>(input_.seqlen - 1);
  const auto keep = [&](const at::Tensor& from, auto& to) {
    const at::Tensor host = from.to(at::kCPU).contiguous();
    std::memcpy(to.data() + first, host.const_data_ptr(), host.nbytes());
  };
  keep(predictions.kl, figures.kl), keep(predictions.cross_entropy, figures.cross_entropy);
  keep(predictions.agrees.to(at::kByte), figures.agrees);
}

}  // namespace autoscheme
