// WeightTiles: matrices that are too large for the budget, read row tile by row tile at every use.
#ifndef AUTOSCHEME_EXEC_WEIGHT_TILES_H_
#define AUTOSCHEME_EXEC_WEIGHT_TILES_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "autoscheme/block_streamer.h"
#include "autoscheme/context.h"
#include "checkpoint/checkpoint.h"

namespace autoscheme {

// Holds two tiles while one matrix is gone through (one without read-ahead), nothing in between. One thread.
class WeightTiles {
 public:
  // The tile's first row and its bytes, rows x row length, as they are stored. Borrowed for the call.
  using Body = std::function<void(int64_t first_row, const TensorView& tile)>;

  WeightTiles(const Context& context, const Checkpoint& checkpoint, int slots, MemoryBudget* budget, IoEngine io_engine)
      : context_(context), checkpoint_(checkpoint), slots_(slots), budget_(budget), io_engine_(io_engine) {}

  // Calls `body` for all tiles in order. It is called in the midst of autograd, which has no way to return a status: after
  // an error nothing is read any more, `body` is not called, and status() tells.
  void ForEach(const TensorInfo& weight, int64_t tile_rows, const Body& body);
  const absl::Status& status() const { return status_; }

  // Whether tiles are looked through for NaN and infinite values.
  void set_check_finite(bool check) { check_finite_ = check; }
  uint64_t bytes_read() const { return bytes_read_; }
  double stall_s() const { return stall_s_; }
  IoEngine engine() const { return engine_; }  // of the tensor that was read last

 private:
  absl::Status Read(const TensorInfo& weight, int64_t tile_rows, const Body& body);
  const Context& context_;
  const Checkpoint& checkpoint_;
  const int slots_;
  MemoryBudget* const budget_;
  const IoEngine io_engine_;
  bool check_finite_ = true;
  absl::Status status_;
  uint64_t bytes_read_ = 0;
  double stall_s_ = 0;
  IoEngine engine_ = IoEngine::kBuffered;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_EXEC_WEIGHT_TILES_H_
