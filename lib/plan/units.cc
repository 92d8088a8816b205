#include "plan/units.h"

#include "model/architecture.h"

namespace autoscheme {

std::vector<Unit> MakeUnits(const MetaSkeleton& skeleton, int sublayers_per_unit) {
  const int segments = skeleton.architecture().segments();
  const size_t size = sublayers_per_unit > 0 ? sublayers_per_unit : segments;
  std::vector<Unit> units;
  for (size_t b = 0; b < skeleton.blocks().size(); ++b) {
    const Block& block = skeleton.blocks()[b];
    for (int s = 0; s < segments; ++s) {
      if (units.empty() || units.back().parts.size() == size) units.emplace_back();
      Unit& unit = units.back();
      for (Unit::Linear& linear : unit.linears) linear.recomputed = true;  // more follows
      unit.parts.push_back({static_cast<int>(b), s});
      for (const TensorInfo* info : block.segments[s]) {
        unit.tensors.push_back(info);
        unit.bytes += info->bytes;
      }
      for (const LinearLayer& linear : block.linears) {
        if (linear.segment == s) unit.linears.push_back({&linear, !linear.ends_segment});
      }
    }
  }
  return units;
}

}  // namespace autoscheme
