// What a step of the stream reads: its tensors as few, large extents of the shard files, and where they land in a slot.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/block_streamer.h"

namespace autoscheme {

// Consecutive bytes of a file that are wanted, and where they go. Gaps between tensors are never part of it.
struct Extent {
  int shard = 0;
  uint64_t file_offset = 0;
  uint64_t bytes = 0;
  uint64_t slot_offset = 0;
  // Lies in the slot as it does in the file's pages, so that the whole pages around it can be read past the page cache
  // straight into place: the slot has room for them.
  bool direct = true;

  uint64_t file_end() const { return file_offset + bytes; }
};

struct StepPlan {
  std::vector<Extent> extents;         // disjoint, ordered by (shard, file_offset)
  std::vector<uint64_t> slot_offsets;  // where the first byte of every range lies, in the step's order
  uint64_t read_bytes = 0;             // sum over extents: bytes that ranges share count once
  uint64_t slot_bytes = 0;             // room that the extents take in a slot, the rest of their pages included
};

// Joins ranges that touch or overlap in the file. A direct extent's slot offset is congruent to its file offset, modulo
// pages; direct extents whose pages touch keep their distance, so that one read can serve both. An extent with a tensor
// that would be misaligned for its dtype in that way (the file's header is of odd length) starts at a multiple of 64
// instead, and is not direct.
// INVALID_ARGUMENT naming the tensor: a null info, rows outside the tensor, rows that do not start on a byte.
absl::StatusOr<StepPlan> PlanStep(absl::Span<const TensorRange> step);

// Whether `b`, the extent after `a`, continues a's pages in file and slot.
bool SharesPages(const Extent& a, const Extent& b);

// First byte of a range in its shard file, and one past the last. Only for ranges that PlanStep has accepted.
struct ByteRange {
  uint64_t begin = 0, end = 0;
};
ByteRange FileBytes(const TensorRange& range);

}  // namespace autoscheme
