// Units: a unit is read, computed and differentiated as a whole.
#pragma once

#include <cstdint>
#include <vector>

#include "autoscheme/meta_skeleton.h"

namespace autoscheme {

// Consecutive sublayers of the model. The sweeps save what goes from one unit to the next. A unit of one sublayer needs
// the least memory while it runs, one of several blocks leaves the fewest inputs to save.
struct Unit {
  struct Part {
    int block = 0;
    int sublayer = 0;
  };
  struct Linear {
    const LinearLayer* layer = nullptr;
    // Whether the backward pass computes its result once more where the unit's graph was not saved: not if the result
    // is only added to what the unit hands on.
    bool recomputed = true;
  };
  std::vector<Part> parts;
  std::vector<const TensorInfo*> tensors;  // all parts together
  std::vector<Linear> linears;             // all parts together, in the model's order
  uint64_t bytes = 0;                      // sum over tensors
};

// The model's sublayers, `sublayers_per_unit` to a unit (the last unit may have fewer); 0 = a block to a unit.
std::vector<Unit> MakeUnits(const MetaSkeleton& skeleton, int sublayers_per_unit);

}  // namespace autoscheme
