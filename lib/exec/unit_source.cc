#include "exec/unit_source.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status_macros.h"

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
  std::vector<WeightStream::Step> order;
  for (const UnitStep& step : steps_) {
    if (step.pass != Pass::kForward && IsCached(step.unit)) continue;
    WeightStream::Step tensors;
    tensors.check_finite = step.pass == Pass::kForward;
    for (const TensorInfo* info : units_[step.unit].tensors) {
      if (!plan_.tiled || !IsLinearWeight(units_[step.unit], info)) tensors.ranges.push_back(WholeTensor(*info));
    }
    order.push_back(std::move(tensors));
  }
  if (order.empty()) return absl::OkStatus();
  AUTOSCHEME_ASSIGN_OR_RETURN(
      stream_, WeightStream::Create(run_, checkpoint_, std::move(order), {plan_.unit_slots, plan_.drop_page_cache}));
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const TensorView>> UnitSource::Next() {
  const UnitStep step = steps_[next_++];
  if (step.pass == Pass::kBackward) cached_.erase(cached_.upper_bound(step.unit), cached_.end());  // used up
  if (step.pass != Pass::kForward && IsCached(step.unit)) return absl::MakeConstSpan(cached_.at(step.unit).views);
  AUTOSCHEME_ASSIGN_OR_RETURN(const WeightStream::Arrived arrived, stream_->Next());
  if (step.pass == Pass::kForward && IsCached(step.unit)) Keep(step.unit, arrived.tensors);
  return arrived.tensors;
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
  if (stream_ == nullptr) return;
  const StreamStats stats = stream_->stats();
  run_.stats.read_bytes += stats.bytes_read;
  run_.stats.stall_s += stats.stall_s;
  if (!plan_.tiled) run_.stats.io_engine = stats.engine;  // else the tiles say which read the weights
  stream_.reset();
}

}  // namespace autoscheme
