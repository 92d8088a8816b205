// The two sweeps: every unit is read once forward and once backward (Schedule: once more if it runs forward again),
// whatever the number of trajectories and batches.
#ifndef AUTOSCHEME_EXEC_SWEEP_H_
#define AUTOSCHEME_EXEC_SWEEP_H_

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "autoscheme/calibration.h"
#include "autoscheme/context.h"
#include "autoscheme/io_engine.h"
#include "autoscheme/meta_skeleton.h"
#include "base/budget.h"
#include "exec/measurement.h"
#include "exec/precision.h"
#include "exec/products.h"

namespace autoscheme {

// What lies in spill files in work_dir instead of memory. kEverything: besides the boundaries also what passes between
// units (activations on their way up, gradients on their way down and the head's sums between them).
enum class Spilled { kNothing, kBoundaries, kEverything };

// Choices of the memory plan. None of them changes a score beyond float rounding.
struct SweepOptions {
  int64_t batch_size = 8;
  int64_t slice_rows = 0;         // rows of a batch that are computed at once; 0 = whole batches
  Precision precision;
  int segments_per_unit = 0;      // 0 = a block to a unit (exec/units.h)
  int unit_slots = 2;             // 1 = no read-ahead
  int cached_units = 0;           // of the last: their weights stay in memory between the sweeps
  int kept_units = 0;             // of the last: their activations stay, so that the backward pass need not recompute them
  bool tiled = false;             // weights come by row tiles, read anew at every use
  bool drop_page_cache = true;    // false where the system has room for the whole model beside the budget
  int64_t head_tile_rows = 4096;  // vocabulary rows per tile
  int boundary_interval = 1;      // every so many units the input is stored; those between are computed again (Schedule)
  Spilled spilled = Spilled::kNothing;
  bool boundaries_in_ram() const { return spilled == Spilled::kNothing; }
  bool passing_in_ram() const { return spilled != Spilled::kEverything; }
  std::string work_dir;
  IoEngine io_engine = IoEngine::kAuto;
  ProductMeter* meter = nullptr;   // of the head's products; borrowed, null: none
  TensorPool* pool = nullptr;      // where tensors lie; borrowed, null: LibTorch's allocator
  TensorPool* weight_pool = nullptr;  // the measurement's, trimmed between the stages too; borrowed, null: none
  MemoryBudget* budget = nullptr;  // slots, cached weights and boundaries are charged to it
};

struct SweepStats {
  uint64_t planned_read_bytes = 0, read_bytes = 0, spill_bytes = 0;
  IoEngine io_engine = IoEngine::kBuffered;  // that read the units
  double forward_s = 0, head_s = 0, backward_s = 0, stall_s = 0;
};

// Bytes of the checkpoint that RunSweeps will read: 2 x units (1 x without gradients) - cached units + units that run
// forward again + head x HeadPasses + touched embedding rows + the tensors outside the blocks. Tiled weights count once for
// every use.
uint64_t PlannedReadBytes(const MetaSkeleton& skeleton, const Calibration& calibration, const SweepOptions& options,
                          Measurement& measurement);

// Runs the calibration through all trajectories of the measurement. Not re-entrant on one measurement.
// Errors: CANCELLED (checked per slice and trajectory), DATA_LOSS (NaN or infinite weights or activations, truncated
// files), INVALID_ARGUMENT (ids outside the vocabulary, with row and column), RESOURCE_EXHAUSTED, and what the
// measurement returns. Throws what LibTorch throws (out of memory); nothing leaks.
absl::Status RunSweeps(const Context& context, const MetaSkeleton& skeleton, const Calibration& calibration,
                       const SweepOptions& options, Measurement& measurement, SweepStats* stats);

}  // namespace autoscheme

#endif  // AUTOSCHEME_EXEC_SWEEP_H_
