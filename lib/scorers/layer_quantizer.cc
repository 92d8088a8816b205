#include "scorers/layer_quantizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"

namespace autoscheme {

absl::StatusOr<std::shared_ptr<const WeightQuantizer>> QuantizerOfLayer(const Scheme& scheme, const LayerInfo& layer,
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

}  // namespace autoscheme
