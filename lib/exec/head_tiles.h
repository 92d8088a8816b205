// HeadTiles: the head's weight by tiles of the vocabulary, and what hidden states give there. Both passes over the head
// (head.cc, eval_head.cc) are made of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "autoscheme/calibration.h"
#include "autoscheme/meta_skeleton.h"
#include "exec/head.h"
#include "exec/run_resources.h"
#include "exec/scorer.h"
#include "plan/execution_plan.h"

namespace autoscheme {

// One thread. All is borrowed.
class HeadTiles {
 public:
  HeadTiles(RunResources& run, const MetaSkeleton& skeleton, const Calibration& calibration, const ExecutionPlan& plan,
            const ScorerNeeds& needs, const HeadInput& input);

  // Tiles are as high as the plan says, in multiples of this, 0 = the whole head. Reads the bias.
  absl::Status Begin(int64_t row_multiple);
  // Reads the head once: calls `body` for every tile, with the index of its first row and the rows in the compute
  // dtype.
  using Body = std::function<absl::Status(int64_t first, const at::Tensor& w)>;
  absl::Status ForEach(const Body& body);

  // A tile as the quantizer, which may be null, leaves it.
  at::Tensor Quantized(const WeightQuantizer* quantizer, const at::Tensor& prepared, const at::Tensor& w) const;
  // Hidden states that predict, quantized as the treatment asks: [N, hidden].
  absl::StatusOr<at::Tensor> Inputs(const Treatment& treatment, int variant, int m) const;
  // [N, rows of the tile] float32, for a tile that begins at row `first`.
  at::Tensor Logits(const at::Tensor& x, const at::Tensor& wq, int64_t first) const;

  // What a unit of the product X W^T changes logits by, where that is not 1.
  bool has_slopes() const { return multiplier_ != 1 || softcap_ > 0; }
  at::Tensor Slopes(const at::Tensor& logits) const;

  // The ids that follow each token of the rows but the last: [N] int64, where the run computes.
  at::Tensor Labels(const MicroBatch& rows) const;
  // Those labels that lie in a tile: which predictions they are of, and their columns there.
  struct LabelsHere {
    at::Tensor predictions, columns;
  };
  static LabelsHere Find(const at::Tensor& labels, int64_t first, int64_t count);

 private:
  RunResources& run_;
  const MetaSkeleton& skeleton_;
  const Calibration& calibration_;
  const ExecutionPlan& plan_;
  const ScorerNeeds& needs_;
  const HeadInput& in_;
  const LinearLayer& layer_;
  const double multiplier_, softcap_;
  int64_t tile_rows_ = 0, steps_done_ = 0;
  std::vector<std::byte> bias_bytes_;
  at::Tensor bias_;
};

}  // namespace autoscheme
