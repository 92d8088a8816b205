// What each tensor of a checkpoint is in the model, and why all but the weights of blocks stay as they are.
#pragma once

#include <vector>

#include "autoscheme/meta_skeleton.h"

namespace autoscheme {

// MetaSkeleton::tensors(), from what else the skeleton holds.
std::vector<TensorRole> TensorRoles(const MetaSkeleton& skeleton);

}  // namespace autoscheme
