#include "base/budget.h"

#include <fcntl.h>

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "base/io.h"

namespace autoscheme {

absl::StatusOr<MemoryBudget::Hold> MemoryBudget::Take(uint64_t bytes, const std::string& what) {
  uint64_t used = used_.load();
  uint64_t wanted;
  do {
    const bool overflow = __builtin_add_overflow(used, bytes, &wanted);
    if (overflow || (limit_ != 0 && wanted > limit_)) {
      return absl::ResourceExhaustedError(absl::StrCat("no memory for ", what, ": ", bytes, " bytes wanted, ", used,
                                                       " in use of a budget of ", limit_,
                                                       "; raise the budget or lower the demand"));
    }
  } while (!used_.compare_exchange_weak(used, wanted));
  uint64_t peak = peak_.load();
  while (peak < wanted && !peak_.compare_exchange_weak(peak, wanted)) {
  }
  Hold hold;
  hold.budget_ = this;
  hold.bytes_ = bytes;
  return hold;
}

MemoryBudget::Hold& MemoryBudget::Hold::operator=(Hold&& o) noexcept {
  if (this != &o) {
    if (budget_ != nullptr) budget_->used_.fetch_sub(bytes_);
    budget_ = std::exchange(o.budget_, nullptr);
    bytes_ = std::exchange(o.bytes_, 0);
  }
  return *this;
}

MemoryBudget::Hold::~Hold() {
  if (budget_ != nullptr) budget_->used_.fetch_sub(bytes_);
}

namespace {

// Sets the fields ("VmRSS:") that occur in a /proc text whose lines read "VmRSS:      1234 kB" or "rchar: 1234", in bytes.
void ReadNumbers(const char* path, absl::Span<const std::pair<absl::string_view, uint64_t*>> fields) {
  Io& io = Io::Posix();
  const int fd = RetryInterrupted([&] { return io.Open(path, O_RDONLY | O_CLOEXEC, 0); });
  if (fd < 0) return;
  char text[8192];
  const ssize_t size = RetryInterrupted([&] { return io.Pread(fd, text, sizeof(text), 0); });
  io.Close(fd);
  if (size <= 0) return;
  for (absl::string_view line : absl::StrSplit(absl::string_view(text, static_cast<size_t>(size)), '\n')) {
    for (const auto& [name, value] : fields) {
      if (!absl::ConsumePrefix(&line, name)) continue;
      const uint64_t unit = absl::ConsumeSuffix(&line, "kB") ? 1024 : 1;
      uint64_t number = 0;
      if (absl::SimpleAtoi(line, &number)) *value = number * unit;
    }
  }
}

}  // namespace

ProcessMemory ReadProcessMemory() {
  ProcessMemory memory;
  ReadNumbers("/proc/self/status", {{"VmRSS:", &memory.rss}, {"VmHWM:", &memory.peak_rss}, {"RssAnon:", &memory.anon}, {"RssFile:", &memory.file}});
  return memory;
}

ProcessReads ReadProcessReads() {
  ProcessReads reads;
  ReadNumbers("/proc/self/io", {{"read_bytes:", &reads.disk}, {"rchar:", &reads.calls}});
  return reads;
}

}  // namespace autoscheme
