// Every file operation made to fail, one after the other, until none is left to fail.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <functional>
#include <string>
#include <vector>

#include "autoscheme/output.h"
#include "base/io.h"
#include "base/output_file.h"
#include "support/fault_io.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

struct Injection {
  uint32_t op;
  int error;
  bool forever;
  int64_t countdown;
};

// Calls `run` with the k-th call failing for k = 1, 2, ... until a run gets by without an injection. `check` sees each
// run's status, after which no descriptor may be open that was not before.
void Sweep(uint32_t ops, const std::function<absl::Status(Io&)>& run,
           const std::function<void(const Injection&, const absl::Status&)>& check) {
  const int descriptors = OpenDescriptors();
  for (const int error : {EIO, ENOSPC, EINTR, FaultIo::kShort}) {
    for (uint32_t op = 1; op < kEveryOp; op <<= 1) {
      if ((op & ops) == 0) continue;
      for (const bool forever : {false, true}) {
        for (int64_t k = 1; k < 1000; ++k) {
          FaultIo io(op, error, k, forever);
          const absl::Status status = run(io);
          if (io.fired() == 0) break;
          CAPTURE(op, error, forever, k, status.ToString());
          check({op, error, forever, k}, status);
          // An interruption or a short transfer is no reason to give up.
          if (error == EINTR || error == FaultIo::kShort) CHECK(status.ok());
          REQUIRE(OpenDescriptors() == descriptors);
        }
      }
    }
  }
}

TEST_CASE("An atomic write that fails anywhere leaves the old file, and no other") {
  const TempDir dir;
  const std::string path = dir / "out.json", fresh(40, 'n');
  int failures = 0;
  Sweep(
      kEveryOp,
      [&](Io& io) {
        REQUIRE(WriteOutput(Io::Posix(), path, "old").ok());
        return WriteOutput(io, path, fresh);
      },
      [&](const Injection& injection, const absl::Status& status) {
        const std::string now = Slurp(path);
        // Only the folder's open and fsync come after the rename.
        const bool durable_only = injection.op == kFsync || injection.op == kOpen;
        if (status.ok()) {
          CHECK(now == fresh);
        } else if (injection.countdown == 2 && durable_only && !injection.forever) {
          CHECK(now == fresh);
        } else {
          CHECK((now == "old" || (durable_only && now == fresh)));
          ++failures;
        }
        // The one thing that cannot be cleaned up after is an unlink that never works.
        if (injection.op != kUnlink || !injection.forever) {
          CHECK(dir.List() == std::vector<std::string>{"out.json"});
        }
      });
  CHECK(failures >= 10);
}

TEST_CASE("A failed fsync is not tried again on the same data") {
  const TempDir dir;
  FaultIo io(kFsync, EIO, 1, false);
  const absl::Status status = WriteOutput(io, dir / "x", "data");
  CHECK(status.code() == absl::StatusCode::kUnavailable);
  CHECK(io.calls() == 1);
  CHECK(dir.List().empty());
}

TEST_CASE("A full disk that shows only at close creates no file") {
  const TempDir dir;
  FaultIo io(kClose, ENOSPC, 1, false);
  CHECK(WriteOutput(io, dir / "x", "data").code() == absl::StatusCode::kResourceExhausted);
  CHECK(dir.List().empty());
}

TEST_CASE("A write to a pipe that fails anywhere writes all of it or is an error, through a link as well") {
  const TempDir dir;
  REQUIRE(mkfifo((dir / "pipe").c_str(), 0600) == 0);
  REQUIRE(symlink("pipe", (dir / "link").c_str()) == 0);
  const int reader = open((dir / "pipe").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  REQUIRE(reader >= 0);
  const auto read_all = [&] {
    char got[200];
    const ssize_t n = read(reader, got, sizeof got);
    return std::string(got, n > 0 ? static_cast<size_t>(n) : 0);
  };
  const std::string text(40, 'n');
  Sweep(
      kEveryOp,
      [&](Io& io) {
        read_all();
        return WriteOutput(io, dir / "link", text);
      },
      [&](const Injection&, const absl::Status& status) {
        const std::string got = read_all();
        if (status.ok()) CHECK(got == text);
        CHECK(dir.List() == std::vector<std::string>{"link", "pipe"});
      });
  close(reader);
}

TEST_CASE("A look at outputs that fails anywhere leaves everything as it was") {
  const TempDir dir;
  dir.Write("there", "old");
  REQUIRE(symlink("absent", (dir / "dangling").c_str()) == 0);
  Sweep(
      kEveryOp,
      [&](Io& io) {
        Context context;
        context.io = &io;
        return CheckOutputs(context, {dir / "there", dir / "dangling", dir / "new"}, {dir / "input"});
      },
      [&](const Injection& injection, const absl::Status&) {
        CHECK(Slurp(dir / "there") == "old");
        if (injection.op == kUnlink && injection.forever) {
          for (const std::string& name : dir.List()) {
            if (name[0] == '.') Io::Posix().Unlink((dir / name).c_str());
          }
        }
        CHECK(dir.List() == std::vector<std::string>{"dangling", "there"});
      });
}

TEST_CASE("A spill file that fails anywhere leaves no file and no descriptor") {
  const TempDir dir;
  Sweep(
      kEveryOp,
      [&](Io& io) -> absl::Status {
        absl::StatusOr<File> spill = File::CreateSpill(io, dir.path(), 64);
        if (!spill.ok()) return spill.status();
        const std::string data = "0123456789";
        std::string back(10, ' ');
        const auto bytes = absl::MakeConstSpan(reinterpret_cast<const std::byte*>(data.data()), data.size());
        if (absl::Status status = spill->WriteAt(20, bytes); !status.ok()) return status;
        const auto out = absl::MakeSpan(reinterpret_cast<std::byte*>(back.data()), back.size());
        if (absl::Status status = spill->ReadAt(20, out); !status.ok()) return status;
        CHECK(back == data);
        return absl::OkStatus();
      },
      [&](const Injection& injection, const absl::Status& status) {
        // What close says of a file without a name concerns nobody.
        const bool harmless = injection.op == kClose;
        CHECK(status.ok() == (harmless || injection.error == EINTR || injection.error == FaultIo::kShort));
        if (injection.error == ENOSPC && !status.ok()) {
          CHECK(status.code() == absl::StatusCode::kResourceExhausted);
        }
        if (injection.op == kUnlink && injection.forever && !status.ok()) {
          for (const std::string& name : dir.List()) Io::Posix().Unlink((dir / name).c_str());
        }
        CHECK(dir.List().empty());
      });
}

TEST_CASE("A file whose reads fail anywhere gives the error or the same bytes") {
  const TempDir dir;
  const std::string contents = "the quick brown fox", path = dir.Write("f", contents);
  Sweep(
      kEveryOp,
      [&](Io& io) -> absl::Status {
        const absl::StatusOr<std::string> text = ReadFileToString(io, path, 100);
        if (text.ok()) CHECK(*text == contents);
        return text.status();
      },
      [&](const Injection& injection, const absl::Status& status) {
        if (injection.error == EIO && injection.op != kClose) {
          CHECK(status.code() == absl::StatusCode::kUnavailable);
          CHECK(status.message().find(path) != absl::string_view::npos);
        }
      });
}

}  // namespace
}  // namespace autoscheme
