// Units: what the sweeps read, compute and differentiate as one piece.
#ifndef AUTOSCHEME_EXEC_UNITS_H_
#define AUTOSCHEME_EXEC_UNITS_H_

#include <cstdint>
#include <vector>

#include "autoscheme/meta_skeleton.h"

namespace autoscheme {

// Consecutive segments of the model. Between two units lies a boundary: activations that the sweeps store. A unit of one
// segment needs the least memory while it runs, one of several blocks leaves the fewest boundaries.
struct Unit {
  struct Part {
    int block = 0;
    int segment = 0;
  };
  std::vector<Part> parts;
  std::vector<const TensorInfo*> tensors;   // of all parts
  std::vector<const LinearLayer*> linears;  // of all parts, in the model's order
  uint64_t bytes = 0;                       // sum over tensors
};

// The model's segments, `segments_per_unit` to a unit (the last unit may have fewer); 0 = a block to a unit.
std::vector<Unit> MakeUnits(const MetaSkeleton& skeleton, int segments_per_unit);

}  // namespace autoscheme

#endif  // AUTOSCHEME_EXEC_UNITS_H_
