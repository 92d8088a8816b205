#include "model/tensor_roles.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "model/decoder_spec.h"

namespace autoscheme {
namespace {

constexpr const char* kNorm = "norm";
constexpr const char* kBias = "bias";

// The tensors of a block by where they come in its computation.
class BlockRoles {
 public:
  BlockRoles(const Block& block, int index, const BlockSpec& spec) : block_(block), index_(index) {
    for (const Sublayer& sublayer : spec.sublayers) {
      ForEachUse(
          sublayer, [this](int linear) { AddLinear(block_.linears[linear]); },
          [this](int param) { Add(block_.params[param], -1, kNorm); });
    }
  }

  const TensorRole& operator[](const TensorInfo* tensor) const { return roles_.at(tensor); }

 private:
  void AddLinear(const LinearLayer& layer) {
    Add(layer.weight, layer.index, nullptr);
    if (layer.bias != nullptr) Add(layer.bias, layer.index, kBias);
  }
  // A norm that two branches share keeps its first place.
  void Add(const TensorInfo* tensor, int layer, const char* reason) {
    const int position = static_cast<int>(roles_.size());
    roles_.emplace(tensor, TensorRole{tensor, index_, position, layer, reason});
  }

  const Block& block_;
  const int index_;
  absl::flat_hash_map<const TensorInfo*, TensorRole> roles_;
};

}  // namespace

std::vector<TensorRole> TensorRoles(const MetaSkeleton& skeleton) {
  const ModelSpec& spec = skeleton.spec();
  std::vector<TensorRole> roles;
  const auto add = [&](const TensorInfo* tensor, const char* reason, bool before, int layer = -1) {
    roles.push_back({tensor, -1, before ? 0 : 1, layer, reason});
  };
  for (size_t i = 0; i < skeleton.blocks().size(); ++i) {
    const BlockRoles of_block(skeleton.blocks()[i], static_cast<int>(i), spec.blocks[i]);
    for (const TensorInfo* tensor : skeleton.blocks()[i].tensors) roles.push_back(of_block[tensor]);
  }
  add(skeleton.embedding(), "embedding: only with k-quants", true);
  if (const LinearLayer& head = skeleton.head(); !skeleton.tied_head()) {
    add(head.weight, head.reason, false, head.index);
    if (head.bias != nullptr) add(head.bias, kBias, false, head.index);
  }
  for (int i = 0; i < static_cast<int>(skeleton.other_tensors().size()); ++i) {
    const bool before = i == spec.input.positions || i == spec.input.projection;
    const bool projection = i == spec.input.projection || i == spec.output.projection;
    const char* const other = projection ? "linear layer outside of the blocks" : kNorm;
    add(skeleton.other_tensors()[i], i == spec.input.positions ? "position embedding" : other, before);
  }
  for (const TensorInfo* tensor : skeleton.untouched_tensors())
    add(tensor, "untouched: not of the text decoder", false);
  return roles;
}

}  // namespace autoscheme
