#include "exec/weight_stream.h"

#include <utility>

#include "base/status_macros.h"
#include "exec/weights.h"

namespace autoscheme {

absl::StatusOr<std::unique_ptr<WeightStream>> WeightStream::Create(RunResources& run, const Checkpoint& checkpoint,
                                                                   std::vector<Step> order, const Options& options) {
  std::unique_ptr<WeightStream> made(new WeightStream(run));
  if (run.on_device()) {
    std::vector<UploadStep> steps;
    for (Step& step : order) steps.push_back({std::move(step.ranges), step.check_finite});
    UploadRing::Options ring;
    ring.device_slots = options.slots;
    ring.host_slots = static_cast<int>(kUploadSlots), ring.piece_bytes = kUploadSlotBytes;
    ring.drop_page_cache = options.drop_page_cache;
    ring.io_engine = run.io_engine;
    AUTOSCHEME_RETURN_IF_ERROR(run.lanes->Begin(run.context, checkpoint, std::move(steps), ring));
    made->begun_ = true;
    return made;
  }
  std::vector<BlockStreamer::RangeStep> ranges;
  for (Step& step : order) {
    made->check_finite_.push_back(step.check_finite);
    ranges.push_back(std::move(step.ranges));
  }
  BlockStreamer::Options streams;
  streams.slots = options.slots;
  streams.drop_page_cache = options.drop_page_cache;
  streams.io_engine = run.io_engine;
  AUTOSCHEME_ASSIGN_OR_RETURN(made->streamer_,
                              BlockStreamer::CreateFromRanges(run.context, checkpoint, std::move(ranges), streams));
  return made;
}

WeightStream::~WeightStream() {
  if (begun_) run_.lanes->End();
}

absl::StatusOr<WeightStream::Arrived> WeightStream::Next() {
  if (streamer_ == nullptr) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const UploadedStep step, run_.lanes->Next());
    return Shaped(step.tensors[run_.lane], step.ranges);
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const BlockView view, streamer_->Next());
  const Arrived arrived = Shaped(view.tensors, view.ranges);
  if (check_finite_[view.step]) {
    for (const TensorView& tensor : arrived.tensors) AUTOSCHEME_RETURN_IF_ERROR(CheckFinite(tensor));
  }
  return arrived;
}

WeightStream::Arrived WeightStream::Shaped(absl::Span<const TensorView> tensors, absl::Span<const TensorRange> ranges) {
  infos_.clear(), views_.clear();
  infos_.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    TensorView tensor = tensors[i];
    const TensorInfo& whole = *ranges[i].info;
    tensor.info = &whole;
    if (!whole.shape.empty() && ranges[i].rows != whole.shape[0]) {
      TensorInfo rows = whole;
      rows.bytes = whole.bytes / static_cast<uint64_t>(whole.shape[0]) * static_cast<uint64_t>(ranges[i].rows);
      rows.shape[0] = ranges[i].rows;
      infos_.push_back(std::move(rows));
      tensor.info = &infos_.back();
    }
    views_.push_back(tensor);
  }
  return {views_, ranges};
}

}  // namespace autoscheme
