// What a step of the stream reads: its tensors as few, large pieces of the shard files, and where they land in a slot.
#ifndef AUTOSCHEME_STREAM_EXTENTS_H_
#define AUTOSCHEME_STREAM_EXTENTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/block_streamer.h"

namespace autoscheme {

// One uninterrupted read. Gaps between tensors are never part of it.
struct Extent {
  int shard = 0;
  uint64_t file_offset = 0;
  uint64_t bytes = 0;
  uint64_t slot_offset = 0;
};

struct StepPlan {
  std::vector<Extent> extents;         // disjoint, ordered by (shard, file_offset)
  std::vector<uint64_t> slot_offsets;  // of the first byte of every range, in the step's order
  uint64_t read_bytes = 0;             // sum over extents: bytes that ranges share count once
  uint64_t slot_bytes = 0;             // room that the extents take in a slot
};

// Joins ranges that touch or overlap in the file. Extents start at multiples of 64 in the slot, so tensors of one dtype
// are aligned even where the file's header is of odd length. (A reader that wants the slot offset congruent to the file
// offset, as O_DIRECT does, changes it here.)
// INVALID_ARGUMENT naming the tensor: a null info, rows outside the tensor, rows that do not start on a byte.
absl::StatusOr<StepPlan> PlanStep(absl::Span<const TensorRange> step);

// First byte of a range in its shard file, and one past the last. Only for ranges that PlanStep has accepted.
struct ByteRange {
  uint64_t begin = 0, end = 0;
};
ByteRange FileBytes(const TensorRange& range);

}  // namespace autoscheme

#endif  // AUTOSCHEME_STREAM_EXTENTS_H_
