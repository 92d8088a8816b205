// Measurement: what is measured while the sweeps move weights and boundaries. The sweeps know nothing of it but this.
#ifndef AUTOSCHEME_EXEC_MEASUREMENT_H_
#define AUTOSCHEME_EXEC_MEASUREMENT_H_

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "autoscheme/meta_skeleton.h"
#include "quant/quantizer.h"
#include "exec/schedule.h"
#include "exec/units.h"
#include "exec/weight_tiles.h"

namespace autoscheme {

// A unit that can be computed. Borrowed for the time between BeginUnit and EndUnit.
struct ResidentUnit {
  int index = 0;
  const Unit* unit = nullptr;
  // By tensor name; a view without data where the unit does not hold it or its weights are tiled.
  std::function<TensorView(absl::string_view)> find;
  // Set: the weights of the linears are not in memory and come from here, row tile by row tile, at every use.
  WeightTiles* tiles = nullptr;
  // The autograd graphs of this forward pass are kept for the backward pass: whatever the linears need for it stays, but
  // for inputs that a RecomputableNode makes again.
  bool keep = false;
};

// How one trajectory treats the head. Null quantizers leave that side alone; measure asks for the two score terms; skip
// does without logits and loss (only for a trajectory without gradients).
struct HeadTreatment {
  const WeightQuantizer* weight = nullptr;
  const ActivationQuantizer* activation = nullptr;
  bool measure = false;
  bool skip = false;
};

// What a linear does with its weight beside multiplying, for the count of bytes when weights are tiled.
struct WeightUse {
  bool prepared = false;  // seen whole at BeginUnit
  bool folded = false;    // seen again at EndBatch when a batch comes in slices
};

// A trajectory is one version of the network (say, all layers under one scheme) whose activations flow through all units.
// DeltaLoss has one per scheme; an importance matrix needs one and no gradients. Trajectories without gradients come
// first, so that what they gather of a unit is there when the others reach it; their boundaries are not kept.
// Called from one thread. BeginUnit and EndUnit bracket all batches of one trajectory through one unit.
class Measurement {
 public:
  virtual ~Measurement() = default;
  virtual int trajectories() const = 0;
  virtual int forward_only_trajectories() const { return 0; }  // the first so many of trajectories()
  virtual absl::Status BeginUnit(Pass pass, int trajectory, const ResidentUnit& unit) = 0;
  // A linear of the begun unit, [..., in] -> [..., out]. Without `values` only the gradient of the result is wanted.
  virtual at::Tensor Linear(const LinearLayer& layer, const at::Tensor& x, bool values) = 0;
  // Backward: after all slices of a batch.
  virtual absl::Status EndBatch() { return absl::OkStatus(); }
  // After every batch of a trajectory has gone through. A status other than OK stops the run.
  virtual absl::Status EndUnit() = 0;
  virtual WeightUse weight_use(int /*trajectory*/, const LinearLayer&) const { return {}; }

  virtual HeadTreatment head(int) { return {}; }
  // Logits of the predicting positions for vocabulary rows [first_row, first_row + logits.size(1)).
  virtual void OnLogits(int /*trajectory*/, int /*slice*/, int64_t /*first_row*/, const at::Tensor& /*logits*/) {}
  // Input of the head, [rows, seq, hidden], before any quantizer; for trajectories without gradients only.
  virtual void OnHeadInput(int /*trajectory*/, int /*slice*/, const at::Tensor& /*x*/) {}
  // Mean cross entropy (nats) of one batch.
  virtual void OnLoss(int /*trajectory*/, int /*batch*/, double /*loss*/) {}
  virtual void OnHeadScore(int /*trajectory*/, double /*weight*/, double /*activation*/) {}
  // Input of unit `boundary`, or the last unit's output when boundary == number of units. [rows, seq, hidden].
  virtual void OnBoundary(int /*boundary*/, int /*trajectory*/, int /*slice*/, const at::Tensor& /*x*/) {}
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_EXEC_MEASUREMENT_H_
