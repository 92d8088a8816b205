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
  struct Tensor {
    const TensorInfo* tensor;
    int64_t block;  // -1 outside the blocks
  };
  std::shared_ptr<ContextState> context_state;
  Context context;  // borrowed by the skeleton
  std::unique_ptr<MetaSkeleton> skeleton;
  std::vector<Layer> layers;
  std::vector<Tensor> tensors;
  std::vector<int64_t> first_layer, first_tensor;  // by block
  LazyText json;
};

// The pointers in `out` are those of `tensor`.
absl::Status FillTensor(const TensorInfo& tensor, int64_t block, autoscheme_tensor_info* out);

}  // namespace autoscheme::capi

struct autoscheme_skeleton {
  std::shared_ptr<autoscheme::capi::SkeletonState> state;
};
