// The head: loss and its gradient by one pass over vocabulary tiles, so that full logits never exist.
#ifndef AUTOSCHEME_EXEC_HEAD_H_
#define AUTOSCHEME_EXEC_HEAD_H_

#include <functional>

#include "absl/status/status.h"
#include "autoscheme/calibration.h"
#include "autoscheme/context.h"
#include "autoscheme/io_engine.h"
#include "autoscheme/meta_skeleton.h"
#include "exec/boundaries.h"
#include "exec/measurement.h"
#include "exec/precision.h"
#include "exec/products.h"

namespace autoscheme {

struct HeadStats {
  uint64_t read_bytes = 0;
  double stall_s = 0;
};

struct HeadInput {
  const MetaSkeleton* skeleton = nullptr;
  const Calibration* calibration = nullptr;
  BatchShape shape;
  Precision precision;
  int64_t tile_rows = 4096;
  int slots = 2;        // tiles in memory; 1 = no read-ahead
  // Room for what goes from tile to tile, [rows, seq - 1, hidden] for each trajectory with gradients (HeadStoreShape): sums in
  // float32, rows of the weight in precision.dtype. Borrowed; null without gradients.
  TensorStore* sums = nullptr;
  TensorStore* picked = nullptr;
  MemoryBudget* budget = nullptr;
  IoEngine io_engine = IoEngine::kAuto;
  ProductMeter* meter = nullptr;
  TensorPool* pool = nullptr;
  // Output of the final norm [rows, seq, hidden] of one slice.
  std::function<absl::StatusOr<at::Tensor>(int trajectory, int slice)> hidden;
  // Takes dL/d(output of the final norm), same shape. Called for the trajectories that need gradients.
  std::function<absl::Status(int trajectory, int slice, const at::Tensor& grad)> take_gradient;
  std::function<absl::Status(int64_t done, int64_t total)> step;  // after each tile
};

// The last position predicts nothing.
inline BatchShape HeadStoreShape(BatchShape shape) {
  --shape.seqlen;
  return shape;
}

// Times the head is read: once, once more to form dW when it is measured, and once before when a quantizer must have seen
// the whole weight.
int HeadPasses(Measurement& measurement);

// L = mean cross entropy over rows x (seq - 1) predictions of a batch, labels = the next id (SPEC 4.6).
// With logits X W^T this is attention with keys = values = W: a running maximum and rescaled sums over vocabulary tiles
// (online softmax) give L and dL/dX = (softmax(X W^T) W - W[label]) / N while each tile is read once. A head that is
// itself measured is read a second time, when the normalizers are known, to form dW by tiles.
absl::Status RunHead(const Context& context, const HeadInput& input, Measurement& measurement, HeadStats* stats);

}  // namespace autoscheme

#endif  // AUTOSCHEME_EXEC_HEAD_H_
