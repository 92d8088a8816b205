// UnitRunner: the forward function of one unit whose weights are there.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "autoscheme/meta_skeleton.h"
#include "exec/unit_linears.h"
#include "nn/decoder.h"

namespace autoscheme {

// Small tensors (norms) are copied out; linear layers are whoever's Run is told. Lives no longer than the views, which
// lie where the run computes.
class UnitRunner {
 public:
  UnitRunner(const MetaSkeleton& skeleton, const Unit& unit, absl::Span<const TensorView> views,
             const RunResources& run, const std::vector<at::Tensor>& position_tables);
  ~UnitRunner();

  // A view without data when the unit does not hold it, or not in memory.
  TensorView Find(absl::string_view name) const;
  // [batch, seq, hidden] -> same. Without `values` only the autograd graph of the result is right.
  at::Tensor Run(const at::Tensor& x, UnitLinears& linears, bool values);

 private:
  class PartOps;
  const ModelSpec& spec_;
  const Unit& unit_;
  absl::flat_hash_map<std::string, TensorView> views_;
  std::vector<std::unique_ptr<PartOps>> parts_;  // parallel to unit_.parts
};

}  // namespace autoscheme
