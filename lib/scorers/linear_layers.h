// The linear layers of a model, as the budget and recipes know them.
#pragma once

#include <utility>
#include <vector>

#include "autoscheme/meta_skeleton.h"
#include "autoscheme/score_table.h"

namespace autoscheme {

// Those of all blocks, then the head: by LinearLayer::index.
inline std::vector<LayerInfo> LinearLayersOf(const MetaSkeleton& skeleton) {
  std::vector<LayerInfo> layers;
  const auto add = [&](const LinearLayer& linear, int block) {
    LayerInfo info;
    info.name = linear.name, info.out_features = linear.out_features, info.in_features = linear.in_features;
    info.block = block, info.is_head = block < 0;
    layers.push_back(std::move(info));
  };
  for (size_t b = 0; b < skeleton.blocks().size(); ++b) {
    for (const LinearLayer& linear : skeleton.blocks()[b].linears) add(linear, static_cast<int>(b));
  }
  add(skeleton.head(), -1);
  return layers;
}

}  // namespace autoscheme
