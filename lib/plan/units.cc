#include "plan/units.h"

namespace autoscheme {

std::vector<Unit> MakeUnits(const MetaSkeleton& skeleton, int sublayers_per_unit) {
  std::vector<Unit> units;
  for (size_t b = 0; b < skeleton.blocks().size(); ++b) {
    const Block& block = skeleton.blocks()[b];
    for (size_t s = 0; s < block.sublayers.size(); ++s) {
      const bool full = sublayers_per_unit > 0
                            ? units.empty() || static_cast<int>(units.back().parts.size()) == sublayers_per_unit
                            : s == 0;
      if (full) units.emplace_back();
      Unit& unit = units.back();
      for (Unit::Linear& linear : unit.linears) linear.recomputed = true;  // more follows
      unit.parts.push_back({static_cast<int>(b), static_cast<int>(s)});
      for (const TensorInfo* info : block.sublayers[s]) {
        unit.tensors.push_back(info);
        unit.bytes += info->bytes;
      }
      for (const LinearLayer& linear : block.linears) {
        if (linear.sublayer == static_cast<int>(s)) unit.linears.push_back({&linear, !linear.last_product});
      }
    }
  }
  return units;
}

}  // namespace autoscheme
