#include "exec/weight_stream.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "exec/weights.h"

namespace autoscheme {

absl::StatusOr<std::unique_ptr<WeightStream>> WeightStream::Create(RunResources& run, const Checkpoint& checkpoint,
                                                                   std::vector<Step> order, const Options& options) {
  std::unique_ptr<WeightStream> made(new WeightStream(run));
  std::vector<BlockStreamer::RangeStep> ranges;
  uint64_t most = 0;
  for (Step& step : order) {
    made->check_finite_.push_back(step.check_finite);
    AUTOSCHEME_ASSIGN_OR_RETURN(const uint64_t bytes, BlockStreamer::SlotBytes(step.ranges));
    most = std::max(most, bytes);
    ranges.push_back(std::move(step.ranges));
  }
  BlockStreamer::Options streams;
  streams.slots = options.slots;
  streams.drop_page_cache = options.drop_page_cache;
  streams.io_engine = run.io_engine;
  AUTOSCHEME_ASSIGN_OR_RETURN(made->streamer_,
                              BlockStreamer::CreateFromRanges(run.context, checkpoint, std::move(ranges), streams));
  if (run.on_device()) {
    AUTOSCHEME_ASSIGN_OR_RETURN(
        made->slot_, DeviceMemory::Allocate(*run.device.device, DeviceMemory::Kind::kDevice, most, "weights"));
  }
  return made;
}

absl::StatusOr<WeightStream::Arrived> WeightStream::Next() {
  AUTOSCHEME_ASSIGN_OR_RETURN(const BlockView view, streamer_->Next());
  infos_.clear(), views_.clear();
  infos_.reserve(view.tensors.size());
  for (size_t i = 0; i < view.tensors.size(); ++i) {
    TensorView tensor = view.tensors[i];
    const TensorRange& range = view.ranges[i];
    if (!tensor.info->shape.empty() && range.rows != tensor.info->shape[0]) {
      TensorInfo rows = *tensor.info;
      rows.bytes = rows.bytes / static_cast<uint64_t>(rows.shape[0]) * static_cast<uint64_t>(range.rows);
      rows.shape[0] = range.rows;
      infos_.push_back(std::move(rows));
      tensor.info = &infos_.back();
    }
    if (check_finite_[view.step]) AUTOSCHEME_RETURN_IF_ERROR(CheckFinite(tensor));
    views_.push_back(tensor);
  }
  if (run_.on_device()) AUTOSCHEME_RETURN_IF_ERROR(CarryUp(view));
  return Arrived{views_, view.ranges};
}

absl::Status WeightStream::CarryUp(const BlockView&) {
  const Device& device = *run_.device.device;
  AUTOSCHEME_RETURN_IF_ERROR(device.Synchronize(DeviceStream::kCompute));
  uint64_t at = 0;
  for (TensorView& tensor : views_) {
    std::byte* to = slot_.data() + at;
    AUTOSCHEME_RETURN_IF_ERROR(
        device.Check(device.api().copy_up(device.handle(), DeviceStream::kUp, to, tensor.data, tensor.info->bytes),
                     "copying weights"));
    tensor.data = to;
    at += (tensor.info->bytes + 255) / 256 * 256;
  }
  return device.Synchronize(DeviceStream::kUp);
}

}  // namespace autoscheme
