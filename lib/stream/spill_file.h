// SpillFile: room on disk for bytes that must come back unchanged later in the same run.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"
#include "base/io.h"

namespace autoscheme {

// Preallocated and nameless (File::CreateSpill), so a full disk is found at creation and no way of dying leaves a file
// behind. Keeps its own bytes out of the page cache. Movable, while no other thread uses it.
// Several threads may write and read different records at once.
class SpillFile {
 public:
  // Where a record must start, so that records share no page.
  static constexpr uint64_t kAlignment = 4096;

  // `dir` empty: $TMPDIR, else /tmp. `what` names the use in messages. RESOURCE_EXHAUSTED with bytes and folder.
  // Warns when the folder is in memory.
  static absl::StatusOr<SpillFile> Create(const Context& context, const std::string& dir, uint64_t bytes,
                                          absl::string_view what);

  // Writes a record and returns its checksum, which the caller keeps. `id` is part of the checksum: a record that is
  // read back as another one does not match. `offset` must be a multiple of kAlignment.
  absl::StatusOr<uint64_t> Write(uint64_t id, uint64_t offset, absl::Span<const std::byte> bytes);
  // A Read of that range follows soon: its bytes are fetched meanwhile.
  void WillRead(uint64_t offset, uint64_t bytes) const { file_.WillNeed(offset, bytes); }
  // DATA_LOSS when the bytes are not those of that checksum.
  absl::Status Read(uint64_t id, uint64_t offset, uint64_t checksum, absl::Span<std::byte> out) const;

 private:
  void DropBehindWrite(uint64_t offset, uint64_t bytes);

  File file_;
  std::string what_;
  std::unique_ptr<std::atomic<uint64_t>> written_since_drop_ = std::make_unique<std::atomic<uint64_t>>(0);
};

}  // namespace autoscheme
