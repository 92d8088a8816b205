#include "exec/unit_source.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status_macros.h"
#include "exec/weights.h"

namespace autoscheme {
namespace {

// Tensors start at multiples of this in a cached unit.
constexpr uint64_t kAlignment = 64;
uint64_t Padded(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool IsLinearWeight(const Unit& unit, const TensorInfo* info) {
  return std::any_of(unit.linears.begin(), unit.linears.end(),
                     [&](const Unit::Linear& l) { return l.layer->weight == info; });
}

}  // namespace

absl::Status UnitSource::Begin(std::vector<UnitStep> steps) {
  steps_ = std::move(steps), next_ = 0;
  std::vector<BlockStreamer::Step> order;
  for (const UnitStep& step : steps_) {
    if (step.pass != Pass::kForward && IsCached(step.unit)) continue;
    BlockStreamer::Step tensors;
    for (const TensorInfo* info : units_[step.unit].tensors) {
      if (!plan_.tiled || !IsLinearWeight(units_[step.unit], info)) tensors.push_back(info);
    }
    order.push_back(std::move(tensors));
  }
  if (order.empty()) return absl::OkStatus();
  BlockStreamer::Options options;
  options.slots = plan_.unit_slots;
  options.drop_page_cache = plan_.drop_page_cache;
  options.io_engine = run_.io_engine;
  AUTOSCHEME_ASSIGN_OR_RETURN(streamer_, BlockStreamer::Create(run_.context, checkpoint_, std::move(order), options));
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const TensorView>> UnitSource::Next() {
  const UnitStep step = steps_[next_++];
  if (step.pass == Pass::kBackward) cached_.erase(cached_.upper_bound(step.unit), cached_.end());  // used up
  if (step.pass != Pass::kForward && IsCached(step.unit)) return absl::MakeConstSpan(cached_.at(step.unit).views);
  AUTOSCHEME_ASSIGN_OR_RETURN(BlockView view, streamer_->Next());
  if (step.pass == Pass::kForward) {
    for (const TensorView& tensor : view.tensors) AUTOSCHEME_RETURN_IF_ERROR(CheckFinite(tensor));
    if (IsCached(step.unit)) Keep(step.unit, view.tensors);
  }
  return view.tensors;
}

void UnitSource::Keep(int unit, absl::Span<const TensorView> views) {
  uint64_t bytes = 0;
  for (const TensorView& view : views) bytes += Padded(view.info->bytes);
  Cached kept;
  kept.bytes.resize(bytes);
  uint64_t offset = 0;
  for (const TensorView& view : views) {
    std::memcpy(kept.bytes.data() + offset, view.data, view.info->bytes);
    kept.views.push_back({view.info, kept.bytes.data() + offset});
    offset += Padded(view.info->bytes);
  }
  cached_.emplace(unit, std::move(kept));
}

void UnitSource::End() {
  if (!steps_.empty() && steps_.back().pass == Pass::kBackward) cached_.clear();
  if (streamer_ == nullptr) return;
  const StreamStats stats = streamer_->stats();
  run_.stats.read_bytes += stats.bytes_read;
  run_.stats.stall_s += stats.stall_s;
  if (!plan_.tiled) run_.stats.io_engine = stats.engine;  // else the tiles say which read the weights
  streamer_.reset();
}

}  // namespace autoscheme
