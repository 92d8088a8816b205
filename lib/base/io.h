// Every file operation of the library goes through Io, so that tests can make any of them fail.
#pragma once

#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"
#include "autoscheme/quoted.h"

namespace autoscheme {

// The system calls, with the kernel's convention: a negative errno instead of -1. Thread-safe.
// The default implementation calls the operating system; a test overrides what it wants to break.
class Io {
 public:
  virtual ~Io() = default;
  virtual int Open(const char* path, int flags, mode_t mode);
  virtual int Close(int fd);
  virtual int Fstat(int fd, struct stat* out);
  virtual int Stat(const char* path, struct stat* out);
  virtual ssize_t Pread(int fd, void* data, size_t size, off_t offset);
  virtual ssize_t Pwrite(int fd, const void* data, size_t size, off_t offset);
  // For what has no offsets: waits also where the descriptor does not block, and a reader that is gone is -EPIPE
  // without a SIGPIPE for the process.
  virtual ssize_t Write(int fd, const void* data, size_t size);
  virtual int Fsync(int fd);
  virtual int Allocate(int fd, off_t size);                 // posix_fallocate; -EOPNOTSUPP where the file system cannot
  virtual int DropCache(int fd, off_t offset, off_t size);  // best effort; errors are ignored by callers
  virtual int WillNeed(int fd, off_t offset, off_t size);   // the same: starts reading into the page cache
  virtual int Rename(const char* from, const char* to);
  virtual int Unlink(const char* path);
  virtual int List(const char* folder, std::vector<std::string>* names);  // all but "." and "..", in any order
  virtual int Readlink(const char* path, std::string* out);               // -EINVAL if it is no symbolic link
  virtual int Access(const char* path, int mode);                         // for the effective user
  virtual int Fchmod(int fd, mode_t mode);
  virtual int Fchown(int fd, uid_t user, gid_t group);
  virtual int DescriptorFlags(int fd);           // F_GETFL
  virtual bool HasAccessList(const char* path);  // a POSIX ACL that says more than the mode does
  virtual bool IsMountPoint(const char* path);   // false where the kernel does not say
  virtual int Fstatfs(int fd, struct statfs* out);
  // What offset, size and address of a read must be multiples of when the file is opened with O_DIRECT; 4096 where the
  // kernel does not say. 0: the file cannot be read so.
  virtual int DirectAlignment(int fd);

  static Io& Posix();  // never destroyed
};

inline Io& IoOf(const Context& context) { return context.io != nullptr ? *context.io : Io::Posix(); }

// An open file. Reads and writes are exact: short ones and EINTR are continued. Movable; closes on destruction.
// Messages name the path, the offset and errno's text. Const methods are thread-safe.
class File {
 public:
  File() = default;
  File(File&& o) noexcept { *this = std::move(o); }
  File& operator=(File&& o) noexcept;
  ~File();

  // A regular file for reading, O_CLOEXEC, never blocking on a FIFO. NOT_FOUND, PERMISSION_DENIED,
  // INVALID_ARGUMENT (not a regular file). `files_needed`: how many the caller will hold open at once, for the message
  // where this process may not have so many; 0: not known.
  static absl::StatusOr<File> OpenRead(Io& io, const std::string& path, uint64_t files_needed = 0);
  // A new private file of `size` bytes in `dir`, mode 0600, unlinked before this returns, so that no way of dying
  // leaves it behind. Readable and writable. RESOURCE_EXHAUSTED with the bytes needed when the disk is full or the
  // process may not write so large a file.
  static absl::StatusOr<File> CreateSpill(Io& io, const std::string& dir, uint64_t size);

  // The same file once more, to be read past the page cache: every read's offset, size and address must be a multiple
  // of kDirectAlignment. An error where the file system cannot, or where the path now leads to another file.
  absl::StatusOr<File> OpenDirect() const;
  static constexpr uint64_t kDirectAlignment = 4096;

  // Exactly out.size() bytes at `offset`. DATA_LOSS when the file ends before; UNAVAILABLE for EIO and the like.
  absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const;
  absl::Status WriteAt(uint64_t offset, absl::Span<const std::byte> data) const;
  // Forgets the range's pages in the page cache. Never fails.
  void DropCache(uint64_t offset, uint64_t size) const;
  // Has the system read the range into the page cache meanwhile, for a ReadAt that follows. Never fails.
  void WillNeed(uint64_t offset, uint64_t size) const;
  // Whether the file lies in memory, as on tmpfs, instead of on a disk.
  bool IsInMemory() const;
  // OK if size and modification time are as they were at open; else DATA_LOSS "changed while it was read".
  absl::Status CheckUnchanged() const;

  uint64_t size() const { return size_; }  // at open
  const std::string& path() const { return path_; }
  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }  // borrowed, for a ReadQueue

 private:
  Io* io_ = nullptr;
  int fd_ = -1;
  uint64_t size_ = 0;
  int64_t mtime_ns_ = 0;
  std::string path_;
};

// The whole file as a string. RESOURCE_EXHAUSTED when it is larger than max_bytes.
absl::StatusOr<std::string> ReadFileToString(Io& io, const std::string& path, uint64_t max_bytes);

// RESOURCE_EXHAUSTED when this process may not write a file of `bytes` bytes (RLIMIT_FSIZE): to be asked before
// writing, since the kernel answers a write beyond the limit with a signal that kills.
absl::Status CheckFileSizeLimit(uint64_t bytes);

// The status of a failed system call: "<what>: <errno's text>", with the remedy where the text alone does not tell it.
// ENOENT gives NOT_FOUND, EACCES PERMISSION_DENIED, a full disk, memory or descriptor table RESOURCE_EXHAUSTED, a path
// that cannot name a file INVALID_ARGUMENT, EIO and the rest UNAVAILABLE. `error` is positive; `files_needed` as of
// File::OpenRead.
absl::Status ErrnoStatus(int error, absl::string_view what, uint64_t files_needed = 0);

// "; the working folder of this process has been deleted: ..." if it has, else "": for messages that something was not
// found under a path that may be relative.
std::string WorkingFolderNote();

// Runs `call` (a lambda around one Io function) again for as long as a signal interrupts it.
template <typename Call>
auto RetryInterrupted(Call&& call) {
  auto result = call();
  while (result == -EINTR) result = call();
  return result;
}

// The first `most` of many names, each Quoted: "\"a\", \"b\", \"c\", ...".
std::string FirstNames(absl::Span<const std::string> names, size_t most = 5);

}  // namespace autoscheme
