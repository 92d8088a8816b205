// An Io that fails where a test tells it to, and otherwise is the operating system's.
#pragma once

#include <dirent.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include "base/io.h"

namespace autoscheme {

enum IoOp : uint32_t {
  kOpen = 1 << 0,
  kClose = 1 << 1,
  kFstat = 1 << 2,
  kStat = 1 << 3,
  kPread = 1 << 4,
  kPwrite = 1 << 5,
  kFsync = 1 << 6,
  kAllocate = 1 << 7,
  kDropCache = 1 << 8,
  kRename = 1 << 9,
  kUnlink = 1 << 10,
  kFstatfs = 1 << 11,
  kWillNeed = 1 << 12,
  kWrite = 1 << 13,
  kReadlink = 1 << 14,
  kAccess = 1 << 15,
  kFchmod = 1 << 16,
  kFchown = 1 << 17,
  kList = 1 << 18,
  kEveryOp = (1 << 19) - 1,
};

// The `countdown`-th call (from 1) of an operation in `mask` fails: once, or that and every later one.
// error > 0: that errno. kShort: reads and writes move one byte, the other operations work. EINTR with `forever`
// interrupts every other call, since callers try again until it works.
class FaultIo : public Io {
 public:
  static constexpr int kShort = -1;

  FaultIo() = default;
  FaultIo(uint32_t mask, int error, int64_t countdown, bool forever) { Arm(mask, error, countdown, forever); }

  void Arm(uint32_t mask, int error, int64_t countdown, bool forever) {
    mask_ = mask;
    error_ = error;
    countdown_ = countdown;
    forever_ = forever;
    calls_ = 0;
    fired_ = 0;
  }
  void Disarm() { mask_ = 0; }
  // Calls of the operations in the mask so far, and how many of them were made to fail.
  int64_t calls() const { return calls_; }
  int64_t fired() const { return fired_; }
  // Bytes that Pread has delivered, whatever the mask.
  uint64_t bytes_read() const { return bytes_read_; }

  int Open(const char* path, int flags, mode_t mode) override {
    const int error = Fault(kOpen);
    return error > 0 ? -error : Io::Open(path, flags, mode);
  }
  int Close(int fd) override {
    const int error = Fault(kClose);
    const int result = Io::Close(fd);  // as in the kernel: the descriptor is gone whatever close returns
    return error > 0 ? -error : result;
  }
  int Fstat(int fd, struct stat* out) override {
    const int error = Fault(kFstat);
    return error > 0 ? -error : Io::Fstat(fd, out);
  }
  int Stat(const char* path, struct stat* out) override {
    const int error = Fault(kStat);
    return error > 0 ? -error : Io::Stat(path, out);
  }
  ssize_t Pread(int fd, void* data, size_t size, off_t offset) override {
    const int error = Fault(kPread);
    if (error > 0) return -error;
    const ssize_t n = Io::Pread(fd, data, error == kShort && size > 1 ? 1 : size, offset);
    if (n > 0) bytes_read_ += static_cast<uint64_t>(n);
    return n;
  }
  ssize_t Pwrite(int fd, const void* data, size_t size, off_t offset) override {
    const int error = Fault(kPwrite);
    if (error > 0) return -error;
    return Io::Pwrite(fd, data, error == kShort && size > 1 ? 1 : size, offset);
  }
  ssize_t Write(int fd, const void* data, size_t size) override {
    const int error = Fault(kWrite);
    if (error > 0) return -error;
    return Io::Write(fd, data, error == kShort && size > 1 ? 1 : size);
  }
  int Fsync(int fd) override {
    const int error = Fault(kFsync);
    return error > 0 ? -error : Io::Fsync(fd);
  }
  int Allocate(int fd, off_t size) override {
    const int error = Fault(kAllocate);
    return error > 0 ? -error : Io::Allocate(fd, size);
  }
  int DropCache(int fd, off_t offset, off_t size) override {
    const int error = Fault(kDropCache);
    return error > 0 ? -error : Io::DropCache(fd, offset, size);
  }
  int WillNeed(int fd, off_t offset, off_t size) override {
    const int error = Fault(kWillNeed);
    return error > 0 ? -error : Io::WillNeed(fd, offset, size);
  }
  int Rename(const char* from, const char* to) override {
    const int error = Fault(kRename);
    return error > 0 ? -error : Io::Rename(from, to);
  }
  int Unlink(const char* path) override {
    const int error = Fault(kUnlink);
    return error > 0 ? -error : Io::Unlink(path);
  }
  int Readlink(const char* path, std::string* out) override {
    const int error = Fault(kReadlink);
    return error > 0 ? -error : Io::Readlink(path, out);
  }
  int List(const char* folder, std::vector<std::string>* names) override {
    const int error = Fault(kList);
    return error > 0 ? -error : Io::List(folder, names);
  }
  int Access(const char* path, int mode) override {
    const int error = Fault(kAccess);
    return error > 0 ? -error : Io::Access(path, mode);
  }
  int Fchmod(int fd, mode_t mode) override {
    const int error = Fault(kFchmod);
    return error > 0 ? -error : Io::Fchmod(fd, mode);
  }
  int Fchown(int fd, uid_t user, gid_t group) override {
    const int error = Fault(kFchown);
    return error > 0 ? -error : Io::Fchown(fd, user, group);
  }
  int Fstatfs(int fd, struct statfs* out) override {
    const int error = Fault(kFstatfs);
    return error > 0 ? -error : Io::Fstatfs(fd, out);
  }

 private:
  // The error to inject into this call; 0 for none.
  int Fault(IoOp op) {
    if ((mask_ & op) == 0) return 0;
    const int64_t call = ++calls_;
    const int64_t since = call - countdown_;
    if (since < 0 || (since > 0 && !forever_)) return 0;
    if (error_ == EINTR && since % 2 != 0) return 0;
    ++fired_;
    return error_;
  }

  std::atomic<uint32_t> mask_{0};
  std::atomic<int> error_{EIO};
  std::atomic<int64_t> countdown_{1};
  std::atomic<bool> forever_{false};
  std::atomic<int64_t> calls_{0}, fired_{0};
  std::atomic<uint64_t> bytes_read_{0};
};

// Descriptors that this process has open.
inline int OpenDescriptors() {
  DIR* dir = opendir("/proc/self/fd");
  if (dir == nullptr) return -1;
  int count = -3;  // ".", ".." and the one of opendir
  while (readdir(dir) != nullptr) ++count;
  closedir(dir);
  return count;
}

}  // namespace autoscheme
