#include "exec/unit_source.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "exec/weights.h"

namespace autoscheme {
namespace {

// Tensors start at multiples of this in a cached unit.
constexpr uint64_t kAlignment = 64;
uint64_t Padded(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool IsLinearWeight(const Unit& unit, const TensorInfo* info) {
  return std::any_of(unit.linears.begin(), unit.linears.end(), [&](const LinearLayer* l) { return l->weight == info; });
}

}  // namespace

UnitSource::UnitSource(const Context& context, const Checkpoint& checkpoint, absl::Span<const Unit> units, const Options& options)
    : context_(context), checkpoint_(checkpoint), units_(units), options_(options) {}

absl::Status UnitSource::Begin(std::vector<UnitStep> steps) {
  steps_ = std::move(steps), next_ = 0;
  std::vector<BlockStreamer::Step> order;
  for (const UnitStep& step : steps_) {
    if (!IsFirst(step) && IsCached(step.unit)) continue;
    BlockStreamer::Step tensors;
    for (const TensorInfo* info : units_[step.unit].tensors) {
      if (!options_.tiled || !IsLinearWeight(units_[step.unit], info)) tensors.push_back(info);
    }
    order.push_back(std::move(tensors));
  }
  if (order.empty()) return absl::OkStatus();
  BlockStreamer::Options options;
  options.slots = options_.slots;
  options.drop_page_cache = options_.drop_page_cache;
  options.io_engine = options_.io_engine;
  AUTOSCHEME_ASSIGN_OR_RETURN(streamer_, BlockStreamer::Create(context_, checkpoint_, std::move(order), options, options_.budget));
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const TensorView>> UnitSource::Next() {
  const UnitStep step = steps_[next_++];
  if (step.pass == Pass::kBackward) cached_.erase(cached_.upper_bound(step.unit), cached_.end());  // used up
  if (!IsFirst(step) && IsCached(step.unit)) return absl::MakeConstSpan(cached_.at(step.unit).views);
  AUTOSCHEME_ASSIGN_OR_RETURN(BlockView view, streamer_->Next());
  if (IsFirst(step)) {
    for (const TensorView& tensor : view.tensors) AUTOSCHEME_RETURN_IF_ERROR(CheckFinite(tensor));
    if (IsCached(step.unit)) AUTOSCHEME_RETURN_IF_ERROR(Keep(step.unit, view.tensors));
  }
  return view.tensors;
}

absl::Status UnitSource::Keep(int unit, absl::Span<const TensorView> views) {
  uint64_t bytes = 0;
  for (const TensorView& view : views) bytes += Padded(view.info->bytes);
  Cached kept;
  if (options_.budget != nullptr) {
    AUTOSCHEME_ASSIGN_OR_RETURN(kept.hold, options_.budget->Take(bytes, absl::StrCat("weights of unit ", unit, " between the sweeps")));
  }
  kept.bytes.resize(bytes);
  uint64_t offset = 0;
  for (const TensorView& view : views) {
    std::memcpy(kept.bytes.data() + offset, view.data, view.info->bytes);
    kept.views.push_back({view.info, kept.bytes.data() + offset});
    offset += Padded(view.info->bytes);
  }
  cached_.emplace(unit, std::move(kept));
  return absl::OkStatus();
}

void UnitSource::End() {
  if (!steps_.empty() && steps_.back().pass == Pass::kBackward) cached_.clear();
  if (streamer_ == nullptr) return;
  const StreamStats stats = streamer_->stats();
  read_bytes_ += stats.bytes_read;
  stall_s_ += stats.stall_s;
  engine_ = stats.engine;
  streamer_.reset();
}

uint64_t UnitSource::read_bytes() const { return read_bytes_ + (streamer_ != nullptr ? streamer_->stats().bytes_read : 0); }
double UnitSource::stall_s() const { return stall_s_ + (streamer_ != nullptr ? streamer_->stats().stall_s : 0); }

}  // namespace autoscheme
