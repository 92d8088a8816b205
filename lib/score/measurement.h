// Measurement: what is measured while the sweeps move blocks and boundaries. The sweeps know nothing of it but this.
#ifndef AUTOSCHEME_SCORE_MEASUREMENT_H_
#define AUTOSCHEME_SCORE_MEASUREMENT_H_

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "autoscheme/meta_skeleton.h"
#include "quant/quantizer.h"

namespace autoscheme {

enum class Pass { kForward, kBackward };

// A block whose bytes are in memory. Borrowed for the time between BeginBlock and EndBlock.
struct ResidentBlock {
  int index = 0;
  const Block* block = nullptr;
  // By tensor name; a view without data when the block does not hold it.
  std::function<TensorView(absl::string_view)> find;
};

// How one trajectory treats the head. Null quantizers leave that side alone; measure asks for the two score terms; skip
// does without logits and loss (only for a trajectory without gradients).
struct HeadTreatment {
  const WeightQuantizer* weight = nullptr;
  const ActivationQuantizer* activation = nullptr;
  bool measure = false;
  bool skip = false;
};

// A trajectory is one version of the network (say, all layers under one scheme) whose activations flow through all blocks.
// DeltaLoss has one per scheme; an importance matrix needs one and no gradients. Trajectories without gradients come
// first, so that what they gather of a block is there when the others reach it; their boundaries are not kept.
// Called from one thread. BeginBlock and EndBlock bracket all batches of one trajectory through one block.
class Measurement {
 public:
  virtual ~Measurement() = default;
  virtual int trajectories() const = 0;
  virtual int forward_only_trajectories() const { return 0; }  // the first so many of trajectories()
  virtual absl::Status BeginBlock(Pass pass, int trajectory, const ResidentBlock& block) = 0;
  // The begun block's linear `index`, [..., in] -> [..., out].
  virtual at::Tensor Linear(int index, const at::Tensor& x) = 0;
  // After every batch of a trajectory has gone through. A status other than OK stops the run.
  virtual absl::Status EndBlock() = 0;

  virtual HeadTreatment head(int) { return {}; }
  // Logits of the predicting positions for vocabulary rows [first_row, first_row + logits.size(1)).
  virtual void OnLogits(int /*trajectory*/, int /*batch*/, int64_t /*first_row*/, const at::Tensor& /*logits*/) {}
  // Input of the head, [rows, seq, hidden], before any quantizer; in the order of trajectories.
  virtual void OnHeadInput(int /*trajectory*/, int /*batch*/, const at::Tensor& /*x*/) {}
  // Mean cross entropy (nats) of one batch.
  virtual void OnLoss(int /*trajectory*/, int /*batch*/, double /*loss*/) {}
  virtual void OnHeadScore(int /*trajectory*/, double /*weight*/, double /*activation*/) {}
  // Input of block `boundary`, or the last block's output when boundary == number of blocks. [rows, seq, hidden].
  virtual void OnBoundary(int /*boundary*/, int /*trajectory*/, int /*batch*/, const at::Tensor& /*x*/) {}
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCORE_MEASUREMENT_H_
