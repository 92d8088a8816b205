#include "stream/spill_file.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/count.h"
#include "base/status_macros.h"
#include "stream/checksum.h"

namespace autoscheme {
namespace {

// Bytes written between two looks at what has reached the disk.
constexpr uint64_t kDropEveryBytes = 64 << 20;

std::string FolderOf(const std::string& dir) {
  if (!dir.empty()) return dir;
  const char* tmpdir = std::getenv("TMPDIR");
  return tmpdir != nullptr && *tmpdir != '\0' ? tmpdir : "/tmp";
}

absl::Status Annotate(const absl::Status& status, absl::string_view what) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", status.message()));
}

}  // namespace

absl::StatusOr<SpillFile> SpillFile::Create(const Context& context, const std::string& dir, uint64_t bytes,
                                            absl::string_view what) {
  absl::StatusOr<File> file = File::CreateSpill(IoOf(context), FolderOf(dir), bytes);
  if (!file.ok()) {
    return absl::Status(file.status().code(), absl::StrCat(file.status().message(), "; it was to hold ", what));
  }
  if (file->IsInMemory()) {
    context.Warn(absl::StrCat("the spill file for ", what, ", ", Count(bytes, "byte"), ", lies in ",
                              Quoted(FolderOf(dir)),
                              ", which is memory (tmpfs) and adds to what the run takes: name a folder on a disk"));
  }
  SpillFile spill;
  spill.file_ = *std::move(file);
  spill.what_ = std::string(what);
  return spill;
}

absl::StatusOr<uint64_t> SpillFile::Write(uint64_t id, uint64_t offset, absl::Span<const std::byte> bytes) {
  if (absl::Status status = file_.WriteAt(offset, bytes); !status.ok()) {
    return Annotate(status, absl::StrCat("writing ", bytes.size(), " bytes of ", what_, " (record ", id, ")"));
  }
  DropBehindWrite(offset, bytes.size());
  return Checksum64(id, bytes);
}

absl::Status SpillFile::Read(uint64_t id, uint64_t offset, uint64_t checksum, absl::Span<std::byte> out) const {
  if (absl::Status status = file_.ReadAt(offset, out); !status.ok()) {
    return Annotate(status, absl::StrCat("reading ", out.size(), " bytes of ", what_, " (record ", id, ")"));
  }
  file_.DropCache(offset, out.size());
  const uint64_t found = Checksum64(id, out);
  if (found == checksum) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the spill file for ", what_, " was changed: record ", id, " of ", out.size(),
                                          " bytes at offset ", offset, " has checksum ", absl::Hex(found), ", not ",
                                          absl::Hex(checksum), "; run again"));
}

// Dirty pages cannot be dropped. POSIX_FADV_DONTNEED on a dirty range starts to write it and returns, so a first call
// sends a record off and a later one over the whole file finds it clean. Nobody waits for the disk: writing costs a
// quarter of what it does with an fdatasync in place of the second call, or with no dropping at all.
void SpillFile::DropBehindWrite(uint64_t offset, uint64_t bytes) {
  file_.DropCache(offset, bytes);
  if (written_since_drop_->fetch_add(bytes) + bytes < kDropEveryBytes) return;
  *written_since_drop_ = 0;
  file_.DropCache(0, file_.size());
}

}  // namespace autoscheme
