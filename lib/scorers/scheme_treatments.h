// SchemeTreatments: how the layers that are scored are computed under one scheme.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "exec/scorer.h"
#include "quant/quantizer.h"
#include "scorers/scorer_input.h"

namespace autoscheme {

// The layers of the input that are scored: neither fixed nor an embedding.
class ScoredLayers {
 public:
  explicit ScoredLayers(const std::vector<LayerInfo>& layers);
  // Index into the layers, or -1.
  int Find(const LinearLayer& layer) const;
  // Calls body(linear, index) for each of them that the model has, the head last.
  template <typename Body>
  void ForEach(const MetaSkeleton& skeleton, const Body& body) const {
    const auto visit = [&](const LinearLayer& linear) {
      if (const int l = Find(linear); l >= 0) body(linear, l);
    };
    for (const Block& block : skeleton.blocks()) {
      for (const LinearLayer& linear : block.linears) visit(linear);
    }
    visit(skeleton.head());
  }

 private:
  absl::flat_hash_map<std::string, int> index_;  // by name
};

class SchemeTreatments {
 public:
  // `input` is borrowed. A layer that cannot hold a k-quant gets its stand-in. UNIMPLEMENTED for a scheme whose
  // quantizer this build lacks; INVALID_ARGUMENT for one that cannot hold a layer's shape (names both).
  static absl::StatusOr<SchemeTreatments> Create(const ScorerInput& input, const Scheme& scheme);

  // Layers by their index in the input. The importance matrix is looked at here, and layers that it lacks are quantized
  // without.
  absl::StatusOr<Treatment> Treat(int layer) const;
  const WeightQuantizer* weight(int layer) const { return layers_[layer].quantizer.get(); }
  const ActivationQuantizer* activation() const { return activation_.get(); }
  bool quantizes(int layer) const { return weight(layer) != nullptr || activation_ != nullptr; }
  // Whether the importance matrix is looked at for some layer.
  bool reads_imatrix() const;

 private:
  struct LayerWeight {
    Scheme scheme;                                     // the scheme, or its stand-in
    std::shared_ptr<const WeightQuantizer> quantizer;  // null: stays as it is
    bool weighs = false;                               // searched by the importance matrix where there is one
  };
  explicit SchemeTreatments(const ScorerInput& input) : input_(&input) {}

  const ScorerInput* input_;
  std::vector<LayerWeight> layers_;  // by layer of the input
  std::shared_ptr<const ActivationQuantizer> activation_;
};

}  // namespace autoscheme
