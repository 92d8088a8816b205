// The head: loss and its gradient by one pass over vocabulary tiles, so that full logits never exist.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "autoscheme/calibration.h"
#include "autoscheme/meta_skeleton.h"
#include "exec/run_resources.h"
#include "exec/scorer.h"
#include "exec/tensor_store.h"
#include "plan/execution_plan.h"
#include "plan/micro_batches.h"

namespace autoscheme {

struct HeadInput {
  BatchShape shape;
  int64_t first_row = 0;  // as Calibration
  // Room for what goes from tile to tile, [rows, seq - 1, hidden] for each variant with gradients (HeadStoreShape):
  // sums in float32, rows of the weight in the compute dtype. Borrowed; null without gradients.
  TensorStore* sums = nullptr;
  TensorStore* label_rows = nullptr;
  // Output of the final norm [rows, seq, hidden] of one micro-batch.
  std::function<absl::StatusOr<at::Tensor>(int variant, int m)> hidden;
  // Takes dL/d(output of the final norm), same shape. Called for the variants with gradients.
  std::function<absl::Status(int variant, int m, const at::Tensor& grad)> take_gradient;
  std::function<absl::Status(int64_t done, int64_t total)> step;  // after each tile
};

// The last position predicts nothing.
inline BatchShape HeadStoreShape(BatchShape shape) {
  --shape.seqlen;
  return shape;
}

// L = mean cross entropy over rows x (seq - 1) predictions of a batch, labels = the next id; returns L[variant][batch].
// With logits X W^T this is attention with keys = values = W: a running maximum and rescaled sums over vocabulary tiles
// (online softmax) give L and dL/dX = (softmax(X W^T) W - W[label]) / N while each tile is read once. Where logits are
// scaled and capped (ModelSpec::output) every row of W there is multiplied by the slope of that at its logit. A head
// that is itself scored is read a second time, when the normalizers are known, to form the gradient of its weight by
// tiles.
absl::StatusOr<std::vector<std::vector<double>>> RunHead(RunResources& run, const MetaSkeleton& skeleton,
                                                         const Calibration& calibration, const ExecutionPlan& plan,
                                                         const Scorers& scorers, const HeadInput& input);

}  // namespace autoscheme
