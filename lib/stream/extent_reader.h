// ExtentReader: reads the extents of a step into their places, past the page cache or through it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"
#include "autoscheme/io_engine.h"
#include "base/io.h"
#include "base/read_queue.h"
#include "checkpoint/checkpoint.h"
#include "stream/extents.h"

namespace autoscheme {

// One thread at a time. Nothing is allocated per read; the pages that a direct read brings beside the wanted bytes land
// in the slot's slack (extents.h).
class ExtentReader {
 public:
  // Bytes of a buffered read, which is the only one under way: large enough for full disk speed, small enough that a
  // cancel between two of them is seen within milliseconds.
  static constexpr uint64_t kChunkBytes = 4 << 20;
  // The direct engine's bytes of a read, reads under way, and threads. On a virtual disk of 1.2 GB/s (ext4, kernel
  // 6.18, cold) reads of 0.5 to 8 MiB with 8 to 32 MiB under way are equally fast, within the disk's noise; the
  // smallest of them that serves is taken, for the shortest wait at a cancel.
  static constexpr uint64_t kDirectChunkBytes = 1 << 20;
  static constexpr int kDepth = 16;
  static constexpr int kThreads = 8;

  struct Options {
    IoEngine engine = IoEngine::kBuffered;  // not kAuto
    bool drop_page_cache = true;
    bool warn = true;  // where kDirect is refused
  };
  // What could not be read: bytes of a shard.
  struct Place {
    int shard = -1;  // -1: no read failed
    ByteRange bytes;
  };
  // Looked at before every read; its error ends Read.
  using Interrupt = std::function<absl::Status()>;

  // `checkpoint` must outlive it.
  ExtentReader(const Context& context, const Checkpoint& checkpoint, const Options& options, Interrupt interrupt);

  // Reads `extents` into `slot`, which is page-aligned. Whatever it returns, no read is under way any more. DATA_LOSS
  // when a file ends early, UNAVAILABLE for other read errors, and `failed` then says where; the interrupt's error.
  absl::Status Read(absl::Span<const Extent> extents, std::byte* slot, Place* failed);

  // The engine that reads: kBuffered once kDirect has been refused.
  IoEngine engine() const { return engine_.load(std::memory_order_relaxed); }
  // Bytes of extents that were read; thread-safe.
  uint64_t bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }

 private:
  // A read: whole pages of consecutive extents if direct, else bytes of one extent.
  struct Request {
    size_t first_extent = 0;  // the first that it has bytes of
    int shard = 0;
    bool direct = false;
    ByteRange bytes;
    std::byte* to = nullptr;
  };
  // Cuts extents into requests, in order.
  struct Cursor {
    absl::Span<const Extent> extents;
    std::byte* slot = nullptr;
    size_t next = 0;      // the extent that goes on
    uint64_t offset = 0;  // from where in the file; 0: from its first byte or page
  };

  static bool NextRequest(Cursor& cursor, bool direct, Request* request);
  // Starts the read of a direct request, or says false: it has to be read in another way.
  bool Start(const Request& request);
  absl::Status Complete(const Cursor& cursor, Place* failed);
  // Reads what is wanted of a request, from its byte `done` on, through the page cache.
  absl::Status ReadBuffered(const Cursor& cursor, const Request& request, uint64_t done, Place* failed);
  bool OpenShard(int shard);
  // Makes kBuffered take over, now and for later streams.
  void GiveUpDirect(absl::string_view why);
  int under_way() const { return kDepth - static_cast<int>(free_tags_.size()); }

  const Context context_;
  const Checkpoint& checkpoint_;
  const Options options_;
  const Interrupt interrupt_;
  std::atomic<IoEngine> engine_;
  std::atomic<uint64_t> bytes_read_{0};
  std::vector<File> direct_files_;  // by shard; opened when first read
  std::array<Request, kDepth> under_way_;
  std::vector<int> free_tags_;
  std::unique_ptr<ReadQueue> queue_;  // after the files: its reads end before they are closed
};

}  // namespace autoscheme
