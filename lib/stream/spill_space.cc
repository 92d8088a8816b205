#include "stream/spill_space.h"

#include <utility>

#include "base/checked.h"
#include "base/status_macros.h"
#include "stream/pages.h"

namespace autoscheme {
namespace {

uint64_t Room(uint64_t bytes) { return RoundUp(bytes, SpillFile::kAlignment); }

}  // namespace

absl::StatusOr<std::vector<SpillSpace::Place>> SpillSpace::Take(absl::Span<const uint64_t> sizes) {
  std::vector<Place> places(sizes.size());
  uint64_t missing = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) continue;
    places[i] = TakeFree(sizes[i]);
    if (places[i].file >= 0) continue;
    const std::optional<uint64_t> sum = CheckedAdd(missing, sizes[i] + SpillFile::kAlignment - 1);
    missing = sum ? *sum / SpillFile::kAlignment * SpillFile::kAlignment : UINT64_MAX;
  }
  if (missing == 0) return places;

  absl::StatusOr<SpillFile> spill = SpillFile::Create(context_, dir_, missing, what_);
  if (!spill.ok()) {
    for (const Place& place : places) Return(place);
    return spill.status();
  }
  files_.push_back({*std::move(spill), {}});
  uint64_t offset = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0 || places[i].file >= 0) continue;
    places[i] = {static_cast<int>(files_.size()) - 1, offset, sizes[i]};
    offset += Room(sizes[i]);
  }
  return places;
}

// First fit; the rest of the gap stays free.
SpillSpace::Place SpillSpace::TakeFree(uint64_t bytes) {
  for (size_t f = 0; f < files_.size(); ++f) {
    for (auto gap = files_[f].free.begin(); gap != files_[f].free.end(); ++gap) {
      const auto [offset, room] = *gap;
      if (room < Room(bytes)) continue;
      files_[f].free.erase(gap);
      if (room > Room(bytes)) files_[f].free[offset + Room(bytes)] = room - Room(bytes);
      return {static_cast<int>(f), offset, bytes};
    }
  }
  return {};
}

void SpillSpace::Return(const Place& place) {
  if (place.file < 0) return;
  std::map<uint64_t, uint64_t>& free = files_[place.file].free;
  auto gap = free.emplace(place.offset, Room(place.bytes)).first;
  if (auto next = std::next(gap); next != free.end() && gap->first + gap->second == next->first) {
    gap->second += next->second;
    free.erase(next);
  }
  if (gap == free.begin()) return;
  if (auto before = std::prev(gap); before->first + before->second == gap->first) {
    before->second += gap->second;
    free.erase(gap);
  }
}

}  // namespace autoscheme
