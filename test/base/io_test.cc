#include "base/io.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "base/output_file.h"
#include "support/fault_io.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

using Catch::Matchers::Contains;

absl::Span<std::byte> Bytes(std::string& text) {
  return absl::MakeSpan(reinterpret_cast<std::byte*>(text.data()), text.size());
}
absl::Span<const std::byte> ConstBytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size());
}
std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST_CASE("A file is read exactly, at any offset") {
  const TempDir dir;
  const absl::StatusOr<File> file = File::OpenRead(Io::Posix(), dir.Write("f", "0123456789"));
  REQUIRE(file.ok());
  CHECK(file->size() == 10);
  std::string out(4, ' ');
  REQUIRE(file->ReadAt(3, Bytes(out)).ok());
  CHECK(out == "3456");
  CHECK(file->ReadAt(10, {}).ok());
  CHECK(file->CheckUnchanged().ok());
}

TEST_CASE("Reading past the end is DATA_LOSS with the bytes") {
  const TempDir dir;
  const absl::StatusOr<File> file = File::OpenRead(Io::Posix(), dir.Write("f", "0123456789"));
  std::string out(4, ' ');
  const absl::Status status = file->ReadAt(8, Bytes(out));
  CHECK(status.code() == absl::StatusCode::kDataLoss);
  CHECK_THAT(Message(status), Contains("/f\"") && Contains("ends at byte 10") && Contains("2 more bytes"));
  CHECK(file->ReadAt(uint64_t{1} << 63, Bytes(out)).code() == absl::StatusCode::kDataLoss);
}

TEST_CASE("What is not a regular file is refused without waiting for it") {
  const TempDir dir;
  REQUIRE(mkfifo((dir / "fifo").c_str(), 0600) == 0);
  CHECK(File::OpenRead(Io::Posix(), dir / "fifo").status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(Message(File::OpenRead(Io::Posix(), "/dev/zero").status()), Contains("not a regular file"));
  CHECK_THAT(Message(File::OpenRead(Io::Posix(), dir.path()).status()), Contains("is a folder"));
}

TEST_CASE("Errors of opening have their code and name the path") {
  const TempDir dir;
  const absl::Status missing = File::OpenRead(Io::Posix(), dir / "missing").status();
  CHECK(missing.code() == absl::StatusCode::kNotFound);
  CHECK_THAT(Message(missing), Contains("missing\""));
  REQUIRE(symlink("loop", (dir / "loop").c_str()) == 0);
  CHECK(File::OpenRead(Io::Posix(), dir / "loop").status().code() == absl::StatusCode::kNotFound);
  CHECK(File::OpenRead(Io::Posix(), "").status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(File::OpenRead(Io::Posix(), std::string("a\0b", 3)).status().code() == absl::StatusCode::kInvalidArgument);
  FaultIo denied(kOpen, EACCES, 1, true), full(kOpen, EMFILE, 1, true);
  CHECK(File::OpenRead(denied, dir / "x").status().code() == absl::StatusCode::kPermissionDenied);
  CHECK(File::OpenRead(full, dir / "x").status().code() == absl::StatusCode::kResourceExhausted);
}

TEST_CASE("A symbolic link to a regular file is followed") {
  const TempDir dir;
  dir.Write("blob", "abc");
  REQUIRE(symlink("blob", (dir / "link").c_str()) == 0);
  CHECK(*ReadFileToString(Io::Posix(), dir / "link", 10) == "abc");
}

TEST_CASE("A file that grew, shrank or was rewritten since it was opened is noticed") {
  const TempDir dir;
  const std::string path = dir.Write("f", "0123456789");
  const absl::StatusOr<File> file = File::OpenRead(Io::Posix(), path);
  REQUIRE(truncate(path.c_str(), 4) == 0);
  const absl::Status status = file->CheckUnchanged();
  CHECK(status.code() == absl::StatusCode::kDataLoss);
  CHECK_THAT(Message(status), Contains("changed while it was read") && Contains("10 bytes when opened, 4 now"));

  const absl::StatusOr<File> again = File::OpenRead(Io::Posix(), path);
  const struct timespec times[2] = {{1000, 0}, {1000, 0}};
  REQUIRE(utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
  CHECK(again->CheckUnchanged().code() == absl::StatusCode::kDataLoss);
}

TEST_CASE("A spill file keeps what is written and leaves no name behind") {
  const TempDir dir;
  absl::StatusOr<File> spill = File::CreateSpill(Io::Posix(), dir.path(), 1 << 20);
  REQUIRE(spill.ok());
  CHECK(dir.List().empty());
  CHECK(spill->size() == 1 << 20);
  REQUIRE(spill->WriteAt(1000, ConstBytes("hello")).ok());
  std::string out(6, ' ');
  REQUIRE(spill->ReadAt(999, Bytes(out)).ok());
  CHECK(out == std::string("\0hello", 6));
  spill->DropCache(0, 1 << 20);
  CHECK(File::CreateSpill(Io::Posix(), dir.path(), 0).ok());
}

TEST_CASE("A spill file that finds no room is RESOURCE_EXHAUSTED with bytes and folder") {
  const TempDir dir;
  FaultIo io(kAllocate, ENOSPC, 1, false);
  const absl::Status status = File::CreateSpill(io, dir.path(), 123456).status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(Message(status), Contains("123456 bytes") && Contains(dir.path()));
  CHECK(dir.List().empty());
  CHECK(File::CreateSpill(io, dir / "missing", 1).status().code() == absl::StatusCode::kNotFound);
}

TEST_CASE("A file system that cannot reserve space still gets a spill file of the full size") {
  const TempDir dir;
  FaultIo io(kAllocate, EOPNOTSUPP, 1, true);
  absl::StatusOr<File> spill = File::CreateSpill(io, dir.path(), 4096);
  REQUIRE(spill.ok());
  std::string out(16, ' ');
  CHECK(spill->ReadAt(4080, Bytes(out)).ok());
}

TEST_CASE("Moving a file moves the descriptor, and each is closed once") {
  const TempDir dir;
  const int before = OpenDescriptors();
  {
    File a = *File::OpenRead(Io::Posix(), dir.Write("a", "a"));
    File b = std::move(a);
    CHECK_FALSE(a.is_open());
    CHECK(b.is_open());
    a = *File::OpenRead(Io::Posix(), dir.Write("b", "b"));
    b = std::move(a);
    CHECK(OpenDescriptors() == before + 1);
    std::string out(1, ' ');
    CHECK(a.ReadAt(0, Bytes(out)).code() == absl::StatusCode::kFailedPrecondition);
  }
  CHECK(OpenDescriptors() == before);
}

TEST_CASE("A file larger than allowed is not read") {
  const TempDir dir;
  const absl::Status status = ReadFileToString(Io::Posix(), dir.Write("f", "0123456789"), 9).status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(Message(status), Contains("has 10 bytes; at most 9"));
}

TEST_CASE("errno values map to the status that says what to do") {
  const auto code = [](int error) { return ErrnoStatus(error, "x").code(); };
  CHECK(code(ENOENT) == absl::StatusCode::kNotFound);
  CHECK(code(EACCES) == absl::StatusCode::kPermissionDenied);
  CHECK(code(ENOSPC) == absl::StatusCode::kResourceExhausted);
  CHECK(code(EDQUOT) == absl::StatusCode::kResourceExhausted);
  CHECK(code(ENAMETOOLONG) == absl::StatusCode::kInvalidArgument);
  CHECK(code(EIO) == absl::StatusCode::kUnavailable);
  CHECK(Message(ErrnoStatus(ENOSPC, "cannot write")) == "cannot write: No space left on device");
}

TEST_CASE("A file beyond RLIMIT_FSIZE is refused before the kernel sends a signal") {
  const TempDir dir;
  struct rlimit before;
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  struct rlimit small = before;
  small.rlim_cur = 100000;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const absl::Status spill = File::CreateSpill(Io::Posix(), dir.path(), 100001).status();
  const absl::Status output = WriteOutput(Io::Posix(), dir / "out", std::string(100001, 'x'));
  const absl::Status fits = File::CreateSpill(Io::Posix(), dir.path(), 100000).status();
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  for (const absl::Status& status : {spill, output}) {
    CHECK(status.code() == absl::StatusCode::kResourceExhausted);
    CHECK(absl::StrContains(status.message(), "100001 bytes"));
    CHECK(absl::StrContains(status.message(), "100000 bytes"));
  }
  CHECK(fits.ok());
  CHECK(dir.List().empty());
}

TEST_CASE("A disk that cannot reserve and has too little room is found full when the spill file is made") {
  const TempDir dir;
  struct SmallDisk : FaultIo {
    using FaultIo::FaultIo;
    int Fstatfs(int, struct statfs* out) override {
      *out = {};
      out->f_bsize = 4096;
      out->f_bavail = 10;
      return 0;
    }
  } io(kAllocate, EOPNOTSUPP, 1, true);
  const absl::Status full = File::CreateSpill(io, dir.path(), 50000).status();
  CHECK(full.code() == absl::StatusCode::kResourceExhausted);
  CHECK(absl::StrContains(full.message(), "50000 bytes"));
  CHECK(absl::StrContains(full.message(), dir.path()));
  CHECK(File::CreateSpill(io, dir.path(), 30000).ok());
}

TEST_CASE("Too many open files: the message has the limit, the need and the remedy") {
  const TempDir dir;
  const std::string path = dir.Write("f", "x");
  struct rlimit limit;
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const std::string number = std::to_string(static_cast<uint64_t>(limit.rlim_cur));
  FaultIo io(kOpen, EMFILE, 1, true);
  const absl::Status known = File::OpenRead(io, path, 414).status(), unknown = File::OpenRead(io, path).status();
  CHECK(known.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(Message(known),
             Contains("may have " + number +
                      " open at once (RLIMIT_NOFILE) and needs up to 414: raise the limit with ulimit -n"));
  CHECK_THAT(Message(unknown),
             Contains("may have " + number + " open at once (RLIMIT_NOFILE): raise the limit with ulimit -n"));
  io.Arm(kOpen, ENFILE, 1, true);
  CHECK_THAT(Message(File::OpenRead(io, path, 414).status()), Contains("the whole system") && Contains("fs.file-max"));
}

TEST_CASE("Where the working folder has been deleted, what was not found says so") {
  const TempDir dir;
  const int before = open(".", O_RDONLY | O_DIRECTORY);
  REQUIRE(before >= 0);
  const std::string gone = dir / "gone";
  REQUIRE(mkdir(gone.c_str(), 0700) == 0);
  CHECK(WorkingFolderNote().empty());
  REQUIRE(chdir(gone.c_str()) == 0);
  REQUIRE(rmdir(gone.c_str()) == 0);
  const std::string note = WorkingFolderNote();
  const absl::Status opened = File::OpenRead(Io::Posix(), "f").status();
  const absl::Status written = WriteOutput(Io::Posix(), "f", "x");
  const absl::Status spill = File::CreateSpill(Io::Posix(), ".", 10).status();
  const absl::StatusOr<File> absolute = File::OpenRead(Io::Posix(), dir.Write("f", "x"));
  REQUIRE(fchdir(before) == 0);
  close(before);
  for (const absl::Status& status : {opened, written, spill}) {
    CHECK(status.code() == absl::StatusCode::kNotFound);
    CHECK_THAT(Message(status), Contains("the working folder of this process has been deleted"));
  }
  CHECK_THAT(note, Contains("absolute paths"));
  CHECK(absolute.ok());
  CHECK_FALSE(absl::StrContains(File::OpenRead(Io::Posix(), "absent").status().message(), "working folder"));
}

}  // namespace
}  // namespace autoscheme
