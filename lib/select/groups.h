// Layers that must get the same scheme (docs/algorithm.md 2.6).
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "autoscheme/score_table.h"

namespace autoscheme {

// What a runtime fuses and that must therefore get one scheme, as entries of shared_layers. Known: "vllm", "sglang",
// "tensorrt-llm" (q, k and v; gate and up) and "llama.cpp" (nothing of a dense block). Empty for another name or
// llama.cpp; `known` tells which.
std::vector<std::vector<std::string>> RuntimeGroups(absl::string_view runtime, bool* known);

// Layers that are chosen together, as indices into the model's layers.
struct LayerGroup {
  std::vector<int> members;     // not fixed, no embeddings
  std::vector<int> bystanders;  // fixed layers and embeddings that the group names too
  bool shared = false;          // by shared_layers: a runtime holds all of them in one format
};

// The groups of all layers, in the order in which the reference decides: those of several layers first, then every
// other layer by itself, in model order. A group without members is one that names fixed layers or embeddings only.
//
// Each entry of `shared_layers` is one group of patterns, or the name of a runtime alone. If all are exact names they
// form one group over the whole model; otherwise they group what they match within each block. Groups that share a
// layer are merged. The experts of a block are always one group.
std::vector<LayerGroup> GroupLayers(const std::vector<LayerInfo>& layers,
                                    const std::vector<std::vector<std::string>>& shared_layers);

// INVALID_ARGUMENT for a pattern of `shared_layers` that selects no layer of a block (names those that are nearest).
// The name of a runtime may fuse what a model does not have.
absl::Status CheckSharedLayers(const std::vector<LayerInfo>& layers,
                               const std::vector<std::vector<std::string>>& shared_layers);

}  // namespace autoscheme
