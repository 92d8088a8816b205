// UnitSource: brings the weights of the units in the order of a schedule.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "checkpoint/checkpoint.h"
#include "exec/run_resources.h"
#include "exec/weight_stream.h"
#include "plan/execution_plan.h"
#include "plan/schedule.h"
#include "plan/units.h"

namespace autoscheme {

// One thread. Streams ahead of the caller with a WeightStream, and keeps the bytes of the last units between the passes
// if asked to.
class UnitSource {
 public:
  // All are borrowed.
  UnitSource(RunResources& run, const ExecutionPlan& plan, const Checkpoint& checkpoint, absl::Span<const Unit> units)
      : run_(run), plan_(plan), checkpoint_(checkpoint), units_(units) {}

  absl::Status Begin(std::vector<UnitStep> steps);
  // The tensors of the next step's unit; they die with the next call. A first forward pass looks through them for NaN
  // and infinite values (DATA_LOSS naming the tensor).
  absl::StatusOr<absl::Span<const TensorView>> Next();
  void End();  // adds to the run's statistics

  // What was read since Begin and is not in the run's statistics yet.
  uint64_t bytes_read() const { return stream_ != nullptr ? stream_->stats().bytes_read : 0; }

 private:
  // The bytes of one unit, copied out of its slot.
  struct Cached {
    std::vector<std::byte> bytes;
    std::vector<TensorView> views;
  };
  void Keep(int unit, absl::Span<const TensorView> views);
  // Whether the first forward pass keeps it, so that no later step reads it.
  bool IsCached(int unit) const { return unit >= static_cast<int>(units_.size()) - plan_.cached_units; }

  RunResources& run_;
  const ExecutionPlan& plan_;
  const Checkpoint& checkpoint_;
  const absl::Span<const Unit> units_;
  std::vector<UnitStep> steps_;
  size_t next_ = 0;  // index into steps_
  std::unique_ptr<WeightStream> stream_;
  std::map<int, Cached> cached_;
};

}  // namespace autoscheme
