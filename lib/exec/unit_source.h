// UnitSource: brings the weights of the units in the order of a schedule.
#ifndef AUTOSCHEME_EXEC_UNIT_SOURCE_H_
#define AUTOSCHEME_EXEC_UNIT_SOURCE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/block_streamer.h"
#include "autoscheme/context.h"
#include "base/budget.h"
#include "checkpoint/checkpoint.h"
#include "exec/schedule.h"
#include "exec/units.h"

namespace autoscheme {

// One thread. Streams ahead of the caller with BlockStreamer, and keeps the bytes of the last units between the passes if
// asked to.
class UnitSource {
 public:
  struct Options {
    int slots = 2;         // units in memory at once while they stream; 1 = no read-ahead
    int cached_units = 0;  // of the last: read once, kept until the backward pass has used them
    bool tiled = false;    // leaves the weights of the linears out: they come by WeightTiles
    bool drop_page_cache = true;
    MemoryBudget* budget = nullptr;
    IoEngine io_engine = IoEngine::kAuto;
  };
  // `units` must outlive the source, as must context and checkpoint.
  UnitSource(const Context& context, const Checkpoint& checkpoint, absl::Span<const Unit> units, const Options& options);

  absl::Status Begin(std::vector<UnitStep> steps);
  // The tensors of the next step's unit; they die with the next call. A first forward pass looks through them for NaN and infinite values
  // (DATA_LOSS naming the tensor).
  absl::StatusOr<absl::Span<const TensorView>> Next();
  void End();  // of these steps

  uint64_t read_bytes() const;
  double stall_s() const;
  IoEngine engine() const { return engine_; }  // of the streamers that ended: the last

 private:
  // The bytes of one unit, copied out of its slot.
  struct Cached {
    std::vector<std::byte> bytes;
    std::vector<TensorView> views;
    MemoryBudget::Hold hold;
  };
  absl::Status Keep(int unit, absl::Span<const TensorView> views);
  // Whether the first forward pass keeps it, so that no later step reads it.
  bool IsCached(int unit) const { return unit >= static_cast<int>(units_.size()) - options_.cached_units; }

  const Context& context_;
  const Checkpoint& checkpoint_;
  const absl::Span<const Unit> units_;
  const Options options_;
  std::vector<UnitStep> steps_;
  size_t next_ = 0;  // of steps_
  std::unique_ptr<BlockStreamer> streamer_;
  std::map<int, Cached> cached_;
  uint64_t read_bytes_ = 0;  // of the streamers that ended
  double stall_s_ = 0;
  IoEngine engine_ = IoEngine::kBuffered;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_EXEC_UNIT_SOURCE_H_
