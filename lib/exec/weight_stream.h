// WeightStream: brings weights, step by step, to where the run computes.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/block_streamer.h"
#include "checkpoint/checkpoint.h"
#include "exec/lanes.h"
#include "exec/run_resources.h"

namespace autoscheme {

// A BlockStreamer, or for a device the ring of its lanes. Reads ahead while the caller computes. One thread.
class WeightStream {
 public:
  struct Step {
    BlockStreamer::RangeStep ranges;
    bool check_finite = false;  // look for NaN and infinite values
  };
  struct Options {
    int slots = 2;
    bool drop_page_cache = true;
  };
  // All are borrowed. Errors: those of BlockStreamer::CreateFromRanges; RESOURCE_EXHAUSTED for a device without room.
  static absl::StatusOr<std::unique_ptr<WeightStream>> Create(RunResources& run, const Checkpoint& checkpoint,
                                                              std::vector<Step> order, const Options& options);

  // What came: `tensors` as they are there, the shape of each being that of its rows; `ranges` parallel to them.
  struct Arrived {
    absl::Span<const TensorView> tensors;
    absl::Span<const TensorRange> ranges;
  };
  // The next step's, until the next call. Errors: those of BlockStreamer::Next, and DATA_LOSS naming a tensor that is
  // not finite.
  absl::StatusOr<Arrived> Next();
  StreamStats stats() const { return streamer_ != nullptr ? streamer_->stats() : run_.lanes->stats(); }
  ~WeightStream();

 private:
  explicit WeightStream(RunResources& run) : run_(run) {}
  // `tensors` with the shapes of their rows.
  Arrived Shaped(absl::Span<const TensorView> tensors, absl::Span<const TensorRange> ranges);

  RunResources& run_;
  std::vector<bool> check_finite_;           // by step
  std::unique_ptr<BlockStreamer> streamer_;  // null on a device
  bool begun_ = false;                       // with the other lanes
  std::vector<TensorInfo> infos_;            // where a step has a part of a tensor
  std::vector<TensorView> views_;
};

}  // namespace autoscheme
