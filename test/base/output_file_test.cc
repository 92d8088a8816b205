// Where results are written, and what becomes of what was there.
#include "base/output_file.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <future>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "autoscheme/output.h"
#include "support/fault_io.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

using Catch::Matchers::Contains;
using Names = std::vector<std::string>;
constexpr absl::StatusCode kRefused = absl::StatusCode::kInvalidArgument;

absl::Status Write(const std::string& path, absl::string_view text) { return WriteOutput(Io::Posix(), path, text); }
absl::Status Check(const Names& outputs, const Names& inputs = {}, Io& io = Io::Posix()) {
  Context context;
  context.io = &io;
  return CheckOutputs(context, outputs, inputs);
}
std::string Message(const absl::Status& status) { return std::string(status.message()); }

struct stat StatOf(const std::string& path) {
  struct stat st = {};
  REQUIRE(lstat(path.c_str(), &st) == 0);
  return st;
}
mode_t ModeOf(const std::string& path) { return StatOf(path).st_mode & 07777; }

// Where a symbolic link leads; "" if it is none.
std::string LinkOf(const std::string& path) {
  char target[256];
  const ssize_t n = readlink(path.c_str(), target, sizeof target);
  return n < 0 ? "" : std::string(target, static_cast<size_t>(n));
}
void Link(const std::string& target, const std::string& path) { REQUIRE(symlink(target.c_str(), path.c_str()) == 0); }

// Sets the process's umask while it lives.
struct Umask {
  explicit Umask(mode_t mask) : before(umask(mask)) {}
  ~Umask() { umask(before); }
  mode_t before;
};

// What is read from a pipe with a name, by a reader that ends with its writer.
std::future<std::string> ReadPipe(const std::string& path) {
  return std::async(std::launch::async, [path] { return Slurp(path); });
}

TEST_CASE("A result replaces the file and leaves nothing else") {
  const TempDir dir;
  REQUIRE(Write(dir / "out.json", "one").ok());
  REQUIRE(Write(dir / "out.json", "two").ok());
  CHECK(Slurp(dir / "out.json") == "two");
  REQUIRE(Write(dir / "empty", "").ok());
  CHECK(Slurp(dir / "empty").empty());
  CHECK(dir.List() == Names{"empty", "out.json"});
}

TEST_CASE("Outputs that cannot be written are found beforehand, and the trial leaves nothing") {
  const TempDir dir;
  CHECK(Check({dir / "new.json"}).ok());
  dir.Write("old.json", "old");
  CHECK(Check({dir / "old.json"}).ok());
  CHECK(Slurp(dir / "old.json") == "old");
  CHECK(dir.List() == Names{"old.json"});
  CHECK(Check({}).ok());

  CHECK(Check({dir / "missing/x"}).code() == absl::StatusCode::kNotFound);
  CHECK(Check({dir / "old.json/x"}).code() == absl::StatusCode::kNotFound);
  CHECK(Check({dir.path()}).code() == kRefused);
  for (const char* path : {"", "folder/", "..", "a/.."}) {
    CAPTURE(path);
    CHECK(Check({path}).code() == kRefused);
    CHECK(Write(path, "x").code() == kRefused);
  }
  FaultIo readonly(kOpen, EROFS, 1, true);
  const absl::Status status = Check({dir / "x"}, {}, readonly);
  CHECK(status.code() == absl::StatusCode::kPermissionDenied);
  CHECK_THAT(Message(status), Contains("its folder \"" + dir.path() + "\" takes no new file"));
}

TEST_CASE("A result that a model folder would read as a part of the model is refused there, and nowhere else") {
  const TempDir dir;
  dir.Write("model/config.json", "{}");
  dir.Write("model/model-00001-of-00001.safetensors", "weights");
  dir.Write("plain/.keep", "");
  dir.Write("bare/model-00001-of-00002.safetensors", "weights");
  Link("../model/model.safetensors", dir / "plain/link.json");
  for (const char* name : {"model/model.safetensors", "model/variant.safetensors", "model/adapter_config.json",
                           "model/model.safetensors.index.json", "model/config.json", "plain/link.json",
                           "bare/model-00001-of-00002.safetensors", "bare/config.json"}) {
    INFO(name);
    const absl::Status status = Check({dir / name});
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Catch::Contains("its folder is a model's"));
  }
  for (const char* name :
       {"model/recipe.json", "model/scores", "plain/model.safetensors", "plain/config.json", "bare/recipe.json"}) {
    INFO(name);
    CHECK(Check({dir / name}).ok());
  }
}

TEST_CASE("A link stays, and the file that it leads to is replaced beside itself") {
  const TempDir dir;
  dir.Write("real/result.json", "old");
  dir.Write("links/.keep", "");
  Link("../real/result.json", dir / "links/second");
  Link("links/second", dir / "first");
  Link("real", dir / "folder");
  for (const char* path : {"first", "links/second", "folder/result.json"}) {
    CAPTURE(path);
    REQUIRE(Check({dir / path}).ok());
    REQUIRE(Write(dir / path, path).ok());
    CHECK(Slurp(dir / "real/result.json") == path);
    CHECK(LinkOf(dir / "real/result.json").empty());
  }
  CHECK(LinkOf(dir / "first") == "links/second");
  CHECK(LinkOf(dir / "links/second") == "../real/result.json");
  CHECK(LinkOf(dir / "folder") == "real");
  CHECK(dir.List() == Names{"first", "folder", "links", "real"});
}

TEST_CASE("A dangling link gets its target, a circle of links is refused") {
  const TempDir dir;
  dir.Write("deep/.keep", "");
  Link(dir / "deep/target", dir / "absolute");
  Link("absolute", dir / "dangling");
  REQUIRE(Check({dir / "dangling"}).ok());
  CHECK(dir.List() == Names{"absolute", "dangling", "deep"});
  REQUIRE(Write(dir / "dangling", "new").ok());
  CHECK(Slurp(dir / "deep/target") == "new");
  CHECK(LinkOf(dir / "dangling") == "absolute");

  Link("nowhere/target", dir / "broken");
  const absl::Status broken = Write(dir / "broken", "x");
  CHECK(broken.code() == absl::StatusCode::kNotFound);
  CHECK_THAT(Message(broken), Contains("broken") && Contains("nowhere/target"));
  Link("b", dir / "a");
  Link("a", dir / "b");
  CHECK(Check({dir / "a"}).code() == absl::StatusCode::kNotFound);
  Link("deep", dir / "to_folder");
  CHECK(Check({dir / "to_folder"}).code() == kRefused);
  Link("absent/", dir / "slash");
  CHECK(Check({dir / "slash"}).code() == kRefused);
}

TEST_CASE("A link that the kernel does not follow is not followed") {
  const TempDir dir;
  dir.Write("target", "old");
  Link("target", dir / "planted");
  FaultIo protects_links(kStat, EACCES, 1, true);
  CHECK(WriteOutput(protects_links, dir / "planted", "x").code() == absl::StatusCode::kPermissionDenied);
  CHECK(Slurp(dir / "target") == "old");
}

TEST_CASE("A replaced file keeps its mode, a new one gets what the umask leaves") {
  const TempDir dir;
  const Umask mask(027);
  for (const mode_t mode : {0600, 0644, 0666, 0700}) {
    CAPTURE(mode);
    const std::string path = dir.Write("result", "old");
    REQUIRE(chmod(path.c_str(), mode) == 0);
    REQUIRE(Write(path, "new").ok());
    CHECK(Slurp(path) == "new");
    CHECK(ModeOf(path) == mode);
  }
  REQUIRE(Write(dir / "fresh", "new").ok());
  CHECK(ModeOf(dir / "fresh") == 0640);
}

TEST_CASE("What replaces a private file is private from the start") {
  const TempDir dir;
  const std::string path = dir.Write("result", "old");
  REQUIRE(chmod(path.c_str(), 0600) == 0);
  struct Watch : Io {
    mode_t created = 0;
    int Open(const char* p, int flags, mode_t mode) override {
      if ((flags & O_CREAT) != 0) created = mode;
      return Io::Open(p, flags, mode);
    }
  } io;
  REQUIRE(WriteOutput(io, path, "secret").ok());
  CHECK(io.created == 0600);
}

TEST_CASE("A replaced file keeps its owner where the system permits, and another group gets no more than everybody") {
  const TempDir dir;
  const std::string path = dir.Write("result", "old");
  REQUIRE(chmod(path.c_str(), 0664) == 0);
  if (geteuid() == 0) {
    REQUIRE(chown(path.c_str(), 12345, 23456) == 0);
    REQUIRE(Write(path, "new").ok());
    CHECK(StatOf(path).st_uid == 12345);
    CHECK(StatOf(path).st_gid == 23456);
    CHECK(ModeOf(path) == 0664);
  }
  FaultIo io(kFchown, EPERM, 1, true);
  REQUIRE(WriteOutput(io, path, "newer").ok());
  CHECK(io.calls() == 2);  // owner and group, then the group alone
  CHECK(ModeOf(path) == 0644);
  CHECK(Slurp(path) == "newer");
}

TEST_CASE("What replaces a file with an access list gives its group no more than everybody") {
  const TempDir dir;
  const std::string path = dir.Write("result", "old");
  REQUIRE(chmod(path.c_str(), 0664) == 0);
  struct Listed : Io {
    bool HasAccessList(const char*) override { return true; }
  } io;
  REQUIRE(WriteOutput(io, path, "new").ok());
  CHECK(ModeOf(path) == 0644);
  // A real one, where the file system takes it: the group has nothing, user 12345 reads and writes.
  REQUIRE(chmod(path.c_str(), 0600) == 0);
  const unsigned char list[] = {2,    0, 0, 0,                           // version
                                1,    0, 6, 0, 0xff, 0xff, 0xff, 0xff,   // owner
                                2,    0, 6, 0, 0x39, 0x30, 0x00, 0x00,   // user 12345
                                4,    0, 0, 0, 0xff, 0xff, 0xff, 0xff,   // group
                                0x10, 0, 6, 0, 0xff, 0xff, 0xff, 0xff,   // mask
                                0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};  // others
  if (setxattr(path.c_str(), "system.posix_acl_access", list, sizeof(list), 0) != 0) return;
  CHECK(ModeOf(path) == 0660);
  REQUIRE(Write(path, "newer").ok());
  CHECK(ModeOf(path) == 0600);
}

TEST_CASE("A file system without modes and owners takes results all the same") {
  const TempDir dir;
  const std::string path = dir.Write("result", "old");
  FaultIo io(kFchmod | kFchown, EPERM, 1, true);
  REQUIRE(WriteOutput(io, path, "new").ok());
  CHECK(Slurp(path) == "new");
}

TEST_CASE("Of a file with two names the written one gets the new contents, the other keeps the old") {
  const TempDir dir;
  dir.Write("result", "old");
  REQUIRE(link((dir / "result").c_str(), (dir / "other").c_str()) == 0);
  REQUIRE(Write(dir / "result", "new").ok());
  CHECK(Slurp(dir / "result") == "new");
  CHECK(Slurp(dir / "other") == "old");
}

TEST_CASE("A pipe is written to, and not opened by the trial") {
  const TempDir dir;
  REQUIRE(mkfifo((dir / "pipe").c_str(), 0600) == 0);
  Link("pipe", dir / "link");
  REQUIRE(Check({dir / "pipe"}).ok());  // nobody reads: opening it would wait for ever
  const std::string text(300000, 'x');  // more than a pipe holds
  for (const char* name : {"pipe", "link"}) {
    auto got = ReadPipe(dir / name);
    CHECK(Write(dir / name, text).ok());
    CHECK(got.get() == text);
  }
  CHECK(S_ISFIFO(StatOf(dir / "pipe").st_mode));
  CHECK(dir.List() == Names{"link", "pipe"});
}

TEST_CASE("A device is written to, and a full one names the bytes") {
  const TempDir dir;
  const auto make = [&](const char* name, unsigned minor) {
    if (mknod((dir / name).c_str(), S_IFCHR | 0666, makedev(1, minor)) != 0) return false;
    const int fd = open((dir / name).c_str(), O_WRONLY | O_CLOEXEC);
    if (fd >= 0) close(fd);
    return fd >= 0;
  };
  if (!make("null", 3) || !make("full", 7)) {
    WARN("no right to make devices here");
    return;
  }
  REQUIRE(Check({dir / "null", dir / "full"}).ok());
  CHECK(Write(dir / "null", "text").ok());
  const absl::Status full = Write(dir / "full", "text");
  CHECK(full.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(Message(full), Contains("0 of 4 bytes written"));
  for (const char* name : {"null", "full"}) CHECK(S_ISCHR(StatOf(dir / name).st_mode));
  CHECK(dir.List() == Names{"full", "null"});

  REQUIRE(mknod((dir / "disk").c_str(), S_IFBLK | 0600, makedev(240, 0)) == 0);
  CHECK(Check({dir / "disk"}).code() == kRefused);
  CHECK(Write(dir / "disk", "text").code() == kRefused);
}

TEST_CASE("A descriptor of the process is written to where it stands, whatever it leads to") {
  const TempDir dir;
  const auto path_of = [](int fd) { return "/dev/fd/" + std::to_string(fd); };
  const std::string file = dir.Write("file", "");
  const int fd = open(file.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(write(fd, "before ", 7) == 7);
  REQUIRE(Check({path_of(fd)}).ok());
  REQUIRE(Write(path_of(fd), "result").ok());
  Link(path_of(fd), dir / "link");
  REQUIRE(Write(dir / "link", " again").ok());
  REQUIRE(Write("/proc/self/fd/" + std::to_string(fd), ".").ok());
  close(fd);
  CHECK(Slurp(file) == "before result again.");
  const absl::Status closed = Check({path_of(fd)});
  CHECK_FALSE(closed.ok());
  CHECK_THAT(Message(closed), Contains("descriptor"));

  const int reading = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  CHECK(Check({path_of(reading)}).code() == absl::StatusCode::kPermissionDenied);
  close(reading);

  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  REQUIRE(Check({path_of(pair[0])}).ok());
  REQUIRE(Write(path_of(pair[0]), "by socket").ok());
  char got[20] = {};
  CHECK(read(pair[1], got, sizeof got) == 9);
  CHECK(std::string(got) == "by socket");
  close(pair[0]), close(pair[1]);
}

TEST_CASE("A descriptor that does not wait is waited for") {
  int ends[2];
  REQUIRE(pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
  const std::string text(300000, 'x');
  auto got = std::async(std::launch::async, [&] {
    fcntl(ends[0], F_SETFL, 0);
    std::string all;
    char part[4096];
    while (all.size() < text.size()) {
      const ssize_t n = read(ends[0], part, sizeof part);
      if (n <= 0) break;
      all.append(part, static_cast<size_t>(n));
    }
    return all;
  });
  CHECK(Write("/dev/fd/" + std::to_string(ends[1]), text).ok());
  CHECK(got.get() == text);
  close(ends[0]), close(ends[1]);
}

TEST_CASE("A reader that is gone is an error, not a signal") {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  close(ends[0]);
  // A SIGPIPE would end this program here.
  const absl::Status status = Write("/dev/fd/" + std::to_string(ends[1]), "text");
  CHECK_FALSE(status.ok());
  CHECK_THAT(Message(status), Contains("0 of 4 bytes written: Broken pipe"));
  sigset_t pending, blocked;
  sigpending(&pending);
  pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  CHECK(sigismember(&pending, SIGPIPE) == 0);
  CHECK(sigismember(&blocked, SIGPIPE) == 0);
  close(ends[1]);
}

TEST_CASE("A socket in the file system, a mount point and a protected file are refused") {
  const TempDir dir;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  const std::string path = dir / "s";
  REQUIRE(path.size() < sizeof name.sun_path);
  std::memcpy(name.sun_path, path.data(), path.size());
  REQUIRE(bind(fd, reinterpret_cast<struct sockaddr*>(&name), sizeof name) == 0);
  CHECK(Check({path}).code() == kRefused);
  CHECK(Write(path, "x").code() == kRefused);
  CHECK(S_ISSOCK(StatOf(path).st_mode));
  close(fd);

  dir.Write("mounted", "old");
  struct Mounted : Io {
    bool IsMountPoint(const char* p) override { return absl::EndsWith(p, "/mounted"); }
  } io;
  const absl::Status mounted = Check({dir / "mounted"}, {}, io);
  CHECK(mounted.code() == kRefused);
  CHECK_THAT(Message(mounted), Contains("mount point"));

  FaultIo not_ours(kAccess, EACCES, 1, true);
  CHECK(WriteOutput(not_ours, dir / "mounted", "x").code() == absl::StatusCode::kPermissionDenied);
  CHECK(Slurp(dir / "mounted") == "old");
}

TEST_CASE("A full disk leaves the old file, nothing beside it, and names the bytes that are needed") {
  const TempDir dir;
  dir.Write("result", "old");
  struct FullDisk : Io {
    ssize_t Pwrite(int fd, const void* data, size_t size, off_t offset) override {
      return offset >= 5 ? -ENOSPC : Io::Pwrite(fd, data, std::min<size_t>(size, 5), offset);
    }
  } io;
  const absl::Status status = WriteOutput(io, dir / "result", "twelve bytes");
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(Message(status), Contains("5 of 12 bytes written"));
  CHECK(Slurp(dir / "result") == "old");
  CHECK(dir.List() == Names{"result"});
  for (const IoOp late : {kFsync, kClose}) {
    FaultIo fails_late(late, ENOSPC, 1, false);
    CHECK_THAT(Message(WriteOutput(fails_late, dir / "result", "twelve bytes")), Contains("12 bytes"));
    CHECK(Slurp(dir / "result") == "old");
  }
}

TEST_CASE("Two spellings of one output are refused") {
  const TempDir dir;
  dir.Write("there", "old");
  dir.Write("folder/.keep", "");
  Link("folder", dir / "other");
  Link("there", dir / "link");
  Link("folder/target", dir / "dangling");
  REQUIRE(link((dir / "there").c_str(), (dir / "hard").c_str()) == 0);
  REQUIRE(mkfifo((dir / "pipe").c_str(), 0600) == 0);
  const auto names = dir.List();
  const std::vector<std::pair<std::string, std::string>> one = {
      {dir / "there", dir / "./there"},     {dir / "there", dir / "folder/../there"},
      {dir / "link", dir / "there"},        {dir / "there", dir / "hard"},
      {dir / "new", dir / "./new"},         {dir / "new", dir / "folder//../new"},
      {dir / "folder/x", dir / "other/x"},  {dir / "dangling", dir / "other/target"},
      {dir / "dangling", dir / "dangling"}, {dir / "pipe", dir / "folder/../pipe"}};
  for (const auto& [a, b] : one) {
    CAPTURE(a, b);
    for (const Names& outputs : {Names{a, b}, Names{b, a}, Names{dir / "apart", a, b}}) {
      const absl::Status status = Check(outputs);
      CHECK(status.code() == kRefused);
      CHECK_THAT(Message(status), Contains("the same file"));
    }
  }
  CHECK(Check({dir / "there", dir / "new", dir / "New", dir / "folder/new", dir / "dangling", dir / "folder/there"})
            .ok());
  CHECK(Slurp(dir / "there") == "old");
  CHECK(dir.List() == names);
}

TEST_CASE("Two names that only such a file system takes for one are refused there") {
  const TempDir dir;
  // Folders are case-sensitive, their files are not.
  struct FoldingIo : Io {
    static std::string Fold(const char* path) {
      std::string folded = path;
      const size_t slash = folded.rfind('/') + 1;
      return folded.substr(0, slash) + absl::AsciiStrToLower(folded.substr(slash));
    }
    int Open(const char* path, int flags, mode_t mode) override { return Io::Open(Fold(path).c_str(), flags, mode); }
    int Stat(const char* path, struct stat* out) override { return Io::Stat(Fold(path).c_str(), out); }
    int Unlink(const char* path) override { return Io::Unlink(Fold(path).c_str()); }
    int Readlink(const char* path, std::string* out) override { return Io::Readlink(Fold(path).c_str(), out); }
  } io;
  dir.Write("low/.keep", "");  // the temporary folder's own name has capitals
  const std::string one = dir / "low/Result.json", two = dir / "low/result.JSON";
  CHECK(Check({one, two}, {}, io).code() == kRefused);
  CHECK(Check({one, dir / "low/other.json"}, {}, io).ok());
  CHECK(Check({one, two}).ok());
  CHECK(dir.List() == Names{"low"});
  CHECK(std::distance(std::filesystem::directory_iterator(dir / "low"), {}) == 1);
}

TEST_CASE("An input is protected under every name, and nothing else is") {
  const TempDir dir;
  dir.Write("model/config.json", "config");
  dir.Write("model/other.json", "free");
  Link("model/config.json", dir / "link");
  Link("model", dir / "alias");
  REQUIRE(link((dir / "model/config.json").c_str(), (dir / "hard").c_str()) == 0);
  const std::string input = dir / "model/config.json";
  for (const char* name : {"model/config.json", "model/../model/config.json", "link", "alias/config.json", "hard"}) {
    CAPTURE(name);
    const absl::Status status = Check({dir / name}, {dir / "absent", input});
    CHECK(status.code() == kRefused);
    CHECK_THAT(Message(status), Contains("overwrite the input") && Contains("config.json"));
  }
  CHECK(Check({dir / "link"}, {dir / "alias/config.json"}).code() == kRefused);
  CHECK(Check({dir / "model/other.json", dir / "model/new.json"}, {input, dir / "absent", ""}).ok());
  CHECK(Slurp(input) == "config");
}

}  // namespace
}  // namespace autoscheme
