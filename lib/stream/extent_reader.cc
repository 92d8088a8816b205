#include "stream/extent_reader.h"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/count.h"
#include "base/status_macros.h"
#include "stream/pages.h"

namespace autoscheme {
namespace {

std::string ErrnoText(int error) { return std::generic_category().message(error); }

// Calls body(extent, begin, end) for the bytes of extents, from `first` on, that lie in `bytes`.
template <typename Body>
void ForEachWanted(absl::Span<const Extent> extents, size_t first, ByteRange bytes, const Body& body) {
  for (size_t k = first; k < extents.size(); ++k) {
    const Extent& extent = extents[k];
    if (k > first && !SharesPages(extents[first], extent)) return;
    const uint64_t begin = std::max(bytes.begin, extent.file_offset), end = std::min(bytes.end, extent.file_end());
    if (begin >= bytes.end) return;
    if (begin < end) body(extent, begin, end);
  }
}

}  // namespace

ExtentReader::ExtentReader(const Context& context, const Checkpoint& checkpoint, const Options& options,
                           Interrupt interrupt)
    : context_(context),
      checkpoint_(checkpoint),
      options_(options),
      interrupt_(std::move(interrupt)),
      engine_(checkpoint.direct_refused() ? IoEngine::kBuffered : options.engine),
      direct_files_(checkpoint.shards().size()) {
  for (int tag = kDepth - 1; tag >= 0; --tag) free_tags_.push_back(tag);
}

absl::Status ExtentReader::Read(absl::Span<const Extent> extents, std::byte* slot, Place* failed) {
  Cursor cursor{extents, slot};
  absl::Status status;
  // If several reads fail, the first in the file is told: where a file ends, say.
  const auto fail = [&](absl::Status error, const Place& place) {
    if (status.ok() || (failed->shard >= 0 &&
                        std::tie(place.shard, place.bytes.begin) < std::tie(failed->shard, failed->bytes.begin))) {
      status = std::move(error);
      *failed = place;
    }
  };
  bool more = true;
  while (true) {
    Place place;
    const bool direct = engine() == IoEngine::kDirect;
    const bool replaced = queue_ != nullptr && !direct;
    if (replaced && under_way() == 0) {
      queue_.reset();
    } else if (status.ok() && more && !replaced && under_way() < kDepth) {
      Request request;
      if (absl::Status interrupted = interrupt_(); !interrupted.ok()) {
        fail(std::move(interrupted), place);
      } else if (direct && queue_ == nullptr) {
        queue_ = std::make_unique<ReadQueue>(IoOf(context_), kThreads, kDepth);
      } else if (more = NextRequest(cursor, direct, &request); more && !(request.direct && Start(request))) {
        absl::Status read = ReadBuffered(cursor, request, 0, &place);
        if (!read.ok()) fail(std::move(read), place);
      }
    } else if (under_way() > 0) {
      absl::Status completed = Complete(cursor, &place);
      if (!completed.ok()) fail(std::move(completed), place);
    } else {
      return status;
    }
  }
}

bool ExtentReader::NextRequest(Cursor& cursor, bool direct, Request* request) {
  if (cursor.next == cursor.extents.size()) return false;
  const Extent& extent = cursor.extents[cursor.next];
  request->first_extent = cursor.next;
  request->shard = extent.shard;
  request->direct = direct && extent.direct;
  uint64_t& begin = request->bytes.begin;
  uint64_t& end = request->bytes.end;
  size_t last = cursor.next;
  if (request->direct) {
    begin = std::max(PageFloor(extent.file_offset), cursor.offset);
    const uint64_t most = begin + kDirectChunkBytes;
    while (last + 1 < cursor.extents.size() && cursor.extents[last].file_end() < most &&
           SharesPages(extent, cursor.extents[last + 1])) {
      ++last;
    }
    end = std::min(RoundUp(cursor.extents[last].file_end(), kPageBytes), most);
  } else {
    // Cut at whole pages of the file, so that every page is read, and dropped, once.
    begin = std::max(extent.file_offset, cursor.offset);
    end = std::min(extent.file_end(), PageFloor(begin + kChunkBytes));
  }
  request->to = cursor.slot + (extent.slot_offset + begin - extent.file_offset);

  cursor.offset = end;
  while (cursor.next < cursor.extents.size() && cursor.extents[cursor.next].file_end() <= end && cursor.next <= last) {
    ++cursor.next;
  }
  const bool goes_on = cursor.next < cursor.extents.size() &&
                       (cursor.next == request->first_extent || SharesPages(extent, cursor.extents[cursor.next]));
  if (!goes_on) cursor.offset = 0;
  return true;
}

bool ExtentReader::Start(const Request& request) {
  if (!OpenShard(request.shard)) return false;
  const int tag = free_tags_.back();
  queue_->Submit({direct_files_[request.shard].fd(), request.to, request.bytes.end - request.bytes.begin,
                  request.bytes.begin, tag});
  free_tags_.pop_back();
  under_way_[tag] = request;
  return true;
}

absl::Status ExtentReader::Complete(const Cursor& cursor, Place* failed) {
  const ReadQueue::Completion completion = queue_->Wait();
  free_tags_.push_back(completion.tag);
  const Request& request = under_way_[completion.tag];
  uint64_t wanted = 0, wanted_end = request.bytes.begin;
  ForEachWanted(cursor.extents, request.first_extent, request.bytes, [&](const Extent&, uint64_t begin, uint64_t end) {
    wanted += end - begin;
    wanted_end = end;
  });
  if (completion.result >= static_cast<ssize_t>(wanted_end - request.bytes.begin)) {
    bytes_read_ += wanted;
    return absl::OkStatus();
  }
  const int error = static_cast<int>(-completion.result);
  switch (error) {
    case EINVAL:
    case EPERM:
    case EOPNOTSUPP:
    case ENOSYS: GiveUpDirect(ErrnoText(error)); return ReadBuffered(cursor, request, 0, failed);
    case EAGAIN:
    case EINTR: return ReadBuffered(cursor, request, 0, failed);
    default: break;
  }
  // A short read is the file's end, before the last wanted byte, or a file system's whim: the usual way finds out.
  if (completion.result >= 0) return ReadBuffered(cursor, request, completion.result, failed);
  *failed = {request.shard, request.bytes};
  return ErrnoStatus(error,
                     absl::StrCat("cannot read ", Count(request.bytes.end - request.bytes.begin, "byte"), " at offset ",
                                  request.bytes.begin, " of ", Quoted(direct_files_[request.shard].path())));
}

absl::Status ExtentReader::ReadBuffered(const Cursor& cursor, const Request& request, uint64_t done, Place* failed) {
  const File& file = checkpoint_.shards()[request.shard].file;
  absl::Status status;
  uint64_t wanted = 0;
  const auto read = [&](const Extent& extent, uint64_t begin, uint64_t end) {
    wanted += end - begin;
    begin = std::max(begin, request.bytes.begin + done);
    if (!status.ok() || begin >= end) return;
    std::byte* to = cursor.slot + extent.slot_offset + (begin - extent.file_offset);
    status = file.ReadAt(begin, absl::MakeSpan(to, end - begin));
    if (!status.ok()) {
      *failed = {request.shard, {begin, end}};
    } else if (options_.drop_page_cache) {
      file.DropCache(PageFloor(begin), RoundUp(end, kPageBytes) - PageFloor(begin));
    }
  };
  ForEachWanted(cursor.extents, request.first_extent, request.bytes, read);
  if (status.ok()) bytes_read_ += wanted;
  return status;
}

bool ExtentReader::OpenShard(int shard) {
  if (direct_files_[shard].is_open()) return true;
  absl::StatusOr<File> file = checkpoint_.shards()[shard].file.OpenDirect();
  if (!file.ok()) {
    GiveUpDirect(file.status().message());
    return false;
  }
  direct_files_[shard] = *std::move(file);
  return true;
}

void ExtentReader::GiveUpDirect(absl::string_view why) {
  engine_ = IoEngine::kBuffered;
  if (!checkpoint_.RefuseDirect() || !options_.warn) return;
  context_.Warn(absl::StrCat("the I/O engine direct does not work for ", Quoted(checkpoint_.directory()), " (", why,
                             "): buffered is used"));
}

}  // namespace autoscheme
