// The two sweeps: every block is read once forward and once backward, whatever the number of trajectories and batches.
#ifndef AUTOSCHEME_SCORE_SWEEP_H_
#define AUTOSCHEME_SCORE_SWEEP_H_

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "autoscheme/calibration.h"
#include "autoscheme/context.h"
#include "autoscheme/meta_skeleton.h"
#include "base/budget.h"
#include "score/measurement.h"

namespace autoscheme {

// Choices of the memory plan. None of them changes a score beyond float rounding.
struct SweepOptions {
  int64_t batch_size = 8;
  at::ScalarType dtype = at::kFloat;
  int block_slots = 2;             // 1 = no read-ahead
  int64_t head_tile_rows = 4096;   // vocabulary rows per tile
  bool boundaries_in_ram = true;   // else one spill file in work_dir
  std::string work_dir;
  MemoryBudget* budget = nullptr;  // slots and boundaries are charged to it
};

struct SweepStats {
  uint64_t planned_read_bytes = 0, read_bytes = 0, spill_bytes = 0;
  double forward_s = 0, head_s = 0, backward_s = 0, stall_s = 0;
};

// Bytes of the checkpoint that RunSweeps will read: 2 x blocks (1 x without gradients) + head x HeadPasses
// + touched embedding rows + the tensors outside the blocks.
uint64_t PlannedReadBytes(const MetaSkeleton& skeleton, const Calibration& calibration, Measurement& measurement);

// Runs the calibration through all trajectories of the measurement. Not re-entrant on one measurement.
// Errors: CANCELLED (checked per batch and trajectory), DATA_LOSS (NaN or infinite weights or activations, truncated files),
// INVALID_ARGUMENT (ids outside the vocabulary, with row and column), RESOURCE_EXHAUSTED, and what the measurement returns.
// Throws what LibTorch throws (out of memory); nothing leaks.
absl::Status RunSweeps(const Context& context, const MetaSkeleton& skeleton, const Calibration& calibration,
                       const SweepOptions& options, Measurement& measurement, SweepStats* stats);

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCORE_SWEEP_H_
