// RecordStore: block inputs kept between the forward and the backward sweep, in RAM or in one spill file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"

namespace autoscheme {

// A table of `count` records of at most `record_bytes` each, written once in any order and read back any number of
// times. Several threads may put and get different records at once.
class RecordStore {
 public:
  struct Options {
    int64_t count = 0;
    uint64_t record_bytes = 0;
    bool in_ram = true;
    std::string work_dir;  // for the spill file: preallocated, mode 0600, unlinked at once, page cache dropped behind
  };
  // RESOURCE_EXHAUSTED: not enough memory, or disk (spill; names the bytes needed and the folder).
  static absl::StatusOr<std::unique_ptr<RecordStore>> Create(const Context& context, const Options& options);
  ~RecordStore();

  // Copies `bytes` in. INVALID_ARGUMENT when index or size is out of range.
  absl::Status Put(int64_t index, absl::Span<const std::byte> bytes);
  // Copies record `index` out; out.size() must be what was put. DATA_LOSS when a spilled record's checksum does not
  // match (records in RAM have none), FAILED_PRECONDITION when nothing was put there.
  absl::Status Get(int64_t index, absl::Span<std::byte> out);
  // A Get of that record follows soon: a spilled one is read meanwhile, into the page cache, where nobody waits for it.
  // Only a hint; out of range it is none.
  void WillGet(int64_t index) const;
  uint64_t bytes_written() const;
  uint64_t ram_bytes() const;  // what the records take; 0 where they are spilled

 private:
  struct Rep;
  explicit RecordStore(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

}  // namespace autoscheme
