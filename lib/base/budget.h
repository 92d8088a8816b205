// MemoryBudget: one number that the library's large allocations are counted against.
#ifndef AUTOSCHEME_BASE_BUDGET_H_
#define AUTOSCHEME_BASE_BUDGET_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace autoscheme {

// Counts bytes; knows nothing of who allocates. Thread-safe.
class MemoryBudget {
 public:
  // limit 0 = unlimited (still counts).
  explicit MemoryBudget(uint64_t limit = 0) : limit_(limit) {}

  // Returned to the budget on destruction. Movable.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& o) noexcept { *this = static_cast<Hold&&>(o); }
    Hold& operator=(Hold&& o) noexcept;
    ~Hold();

   private:
    friend class MemoryBudget;
    MemoryBudget* budget_ = nullptr;
    uint64_t bytes_ = 0;
  };
  // RESOURCE_EXHAUSTED naming `what`, the bytes wanted, the bytes in use and the limit.
  absl::StatusOr<Hold> Take(uint64_t bytes, const std::string& what);
  uint64_t used() const { return used_.load(); }
  uint64_t peak() const { return peak_.load(); }
  uint64_t limit() const { return limit_; }

 private:
  const uint64_t limit_;
  std::atomic<uint64_t> used_{0}, peak_{0};
};

// Of this process, bytes; 0 where the system does not say. From /proc/self/status.
struct ProcessMemory {
  uint64_t rss = 0;       // VmRSS
  uint64_t peak_rss = 0;  // VmHWM
  uint64_t anon = 0;      // RssAnon
  uint64_t file = 0;      // RssFile
};
ProcessMemory ReadProcessMemory();

// Bytes that this process has read so far, of any file; 0 where the system does not say. From /proc/self/io.
struct ProcessReads {
  uint64_t disk = 0;   // read_bytes: fetched from storage
  uint64_t calls = 0;  // rchar: asked for by read calls, page cache or not
};
ProcessReads ReadProcessReads();

}  // namespace autoscheme

#endif  // AUTOSCHEME_BASE_BUDGET_H_
