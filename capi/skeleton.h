// A model's structure, numbered the way the C interface counts it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "autoscheme/meta_skeleton.h"
#include "handles.h"

namespace autoscheme::capi {

// Immutable once opened, but for the text of `json`, which is made on first use.
struct SkeletonState {
  struct Layer {
    const LinearLayer* layer;
    int64_t block;  // -1 outside the blocks
    bool is_head;
  };
  std::shared_ptr<ContextState> context_state;
  Context context;  // borrowed by the skeleton
  std::unique_ptr<MetaSkeleton> skeleton;
  std::vector<Layer> layers;
  std::vector<int64_t> first_layer, first_tensor;  // by block
  LazyText json;
};

// The pointers in `out` are those of the tensor.
absl::Status FillTensor(const TensorRole& role, autoscheme_tensor_info* out);

}  // namespace autoscheme::capi

struct autoscheme_skeleton {
  std::shared_ptr<autoscheme::capi::SkeletonState> state;
};
