#include "stream/extents.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/count.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "stream/pages.h"

namespace autoscheme {
namespace {

constexpr uint64_t kExtentAlignment = 64;  // for extents that are not direct

int64_t RowsOf(const TensorInfo& info) { return info.shape.empty() ? 1 : info.shape[0]; }

absl::Status CheckRange(const TensorRange& range) {
  if (range.info == nullptr) return absl::InvalidArgumentError("a tensor of the step is null");
  const TensorInfo& info = *range.info;
  const int64_t rows = RowsOf(info);
  if (range.first_row < 0 || range.rows < 0 || range.first_row > rows || range.rows > rows - range.first_row) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(info.name), ": ", Count(range.rows, "row"),
                                                   " from row ", range.first_row, " are not within its ",
                                                   Count(rows, "row")));
  }
  if (range.rows != rows && rows > 0 && info.bytes % static_cast<uint64_t>(rows) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(info.name), ": rows of ", DtypeName(info.dtype),
                                                   " do not start on whole bytes (", info.bytes, " bytes, ", rows,
                                                   " rows); read the whole tensor"));
  }
  if (info.offset > UINT64_MAX - info.bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Quoted(info.name), ": offset ", info.offset, " plus ", info.bytes, " bytes overflows"));
  }
  return absl::OkStatus();
}

// Gives the extents their places. Returns the room that they take.
uint64_t LayOut(std::vector<Extent>& extents) {
  uint64_t end = 0;
  for (size_t i = 0; i < extents.size(); ++i) {
    Extent& extent = extents[i];
    if (!extent.direct) {
      extent.slot_offset = RoundUp(end, kExtentAlignment);
      end = extent.slot_offset + extent.bytes;
      continue;
    }
    const Extent* before = i > 0 ? &extents[i - 1] : nullptr;
    if (before != nullptr && before->direct && before->shard == extent.shard &&
        PageFloor(extent.file_offset) <= RoundUp(before->file_end(), kPageBytes)) {
      extent.slot_offset = before->slot_offset + (extent.file_offset - before->file_offset);
    } else {
      extent.slot_offset = RoundUp(end, kPageBytes) + extent.file_offset % kPageBytes;
    }
    end = RoundUp(extent.slot_offset + extent.bytes, kPageBytes);
  }
  return end;
}

}  // namespace

TensorRange WholeTensor(const TensorInfo& info) { return {&info, 0, RowsOf(info)}; }

absl::StatusOr<StepPlan> PlanStep(absl::Span<const TensorRange> step) {
  for (const TensorRange& range : step) AUTOSCHEME_RETURN_IF_ERROR(CheckRange(range));
  std::vector<size_t> by_place(step.size());
  std::iota(by_place.begin(), by_place.end(), size_t{0});
  std::sort(by_place.begin(), by_place.end(), [&](size_t a, size_t b) {
    return std::make_tuple(step[a].info->shard, FileBytes(step[a]).begin) <
           std::make_tuple(step[b].info->shard, FileBytes(step[b]).begin);
  });

  StepPlan plan;
  std::vector<size_t> extent_of(step.size());
  for (size_t i : by_place) {
    const auto [begin, end] = FileBytes(step[i]);
    if (begin == end) continue;
    const int shard = step[i].info->shard;
    if (plan.extents.empty() || plan.extents.back().shard != shard || plan.extents.back().file_end() < begin) {
      plan.extents.push_back({shard, begin, 0, 0, true});
    }
    Extent& extent = plan.extents.back();
    extent.bytes = std::max(extent.bytes, end - extent.file_offset);
    extent.direct = extent.direct && begin % std::max<uint64_t>(DtypeBits(step[i].info->dtype) / 8, 1) == 0;
    extent_of[i] = plan.extents.size() - 1;
  }
  plan.slot_bytes = LayOut(plan.extents);
  for (const Extent& extent : plan.extents) plan.read_bytes += extent.bytes;
  plan.slot_offsets.resize(step.size());
  for (size_t i : by_place) {
    const ByteRange bytes = FileBytes(step[i]);
    if (bytes.begin == bytes.end) continue;
    const Extent& extent = plan.extents[extent_of[i]];
    plan.slot_offsets[i] = extent.slot_offset + (bytes.begin - extent.file_offset);
  }
  return plan;
}

bool SharesPages(const Extent& a, const Extent& b) {
  return a.direct && b.direct && a.shard == b.shard && b.slot_offset - a.slot_offset == b.file_offset - a.file_offset;
}

ByteRange FileBytes(const TensorRange& range) {
  const TensorInfo& info = *range.info;
  const uint64_t rows = static_cast<uint64_t>(RowsOf(info));
  if (static_cast<uint64_t>(range.rows) == rows) return {info.offset, info.offset + info.bytes};
  const uint64_t row_bytes = info.bytes / rows;
  const uint64_t begin = info.offset + static_cast<uint64_t>(range.first_row) * row_bytes;
  return {begin, begin + static_cast<uint64_t>(range.rows) * row_bytes};
}

}  // namespace autoscheme
