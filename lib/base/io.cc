#include "base/io.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <filesystem>
#include <limits>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/count.h"
#include "base/temp_name.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMaxOffset = std::numeric_limits<int64_t>::max();

int64_t MtimeNs(const struct stat& st) { return int64_t{st.st_mtim.tv_sec} * 1000000000 + st.st_mtim.tv_nsec; }

int NegativeErrno(int result) { return result < 0 ? -errno : result; }

// Takes the disk space of `size` bytes now, so that a full disk shows before hours of work. 0 or a negative errno.
int Reserve(Io& io, int fd, uint64_t size) {
  if (size == 0) return 0;
  const int result = RetryInterrupted([&] { return io.Allocate(fd, static_cast<off_t>(size)); });
  if (result != -EOPNOTSUPP) return result;
  struct statfs disk;
  if (io.Fstatfs(fd, &disk) == 0 && disk.f_bsize > 0 && size / static_cast<uint64_t>(disk.f_bsize) >= disk.f_bavail) {
    return -ENOSPC;
  }
  const char zero = 0;  // a file system that cannot reserve at least gets the size
  const ssize_t written = RetryInterrupted([&] { return io.Pwrite(fd, &zero, 1, static_cast<off_t>(size - 1)); });
  return written < 0 ? static_cast<int>(written) : 0;
}

// What a person can do about errors that the system's text leaves unexplained.
std::string Remedy(int error, uint64_t files_needed) {
  if (error == ENOENT) return WorkingFolderNote();
  if (error == ENFILE) return "; the whole system has no room for more: close other programs, or raise fs.file-max";
  if (error != EMFILE) return "";
  std::string text;
  if (struct rlimit limit; getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    absl::StrAppend(&text, "; this process may have ", static_cast<uint64_t>(limit.rlim_cur),
                    " open at once (RLIMIT_NOFILE)");
    if (files_needed > 0) absl::StrAppend(&text, " and needs up to ", files_needed);
  }
  return absl::StrCat(text, ": raise the limit with ulimit -n");
}

}  // namespace

absl::StatusOr<File> File::OpenRead(Io& io, const std::string& path, uint64_t files_needed) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("cannot open ", Quoted(path), ": not a file name"));
  }
  // O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever. It has no effect on a regular file.
  const int fd = RetryInterrupted([&] { return io.Open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0); });
  if (fd < 0) return ErrnoStatus(-fd, absl::StrCat("cannot open ", Quoted(path)), files_needed);
  File file;
  file.io_ = &io;
  file.fd_ = fd;
  file.path_ = path;

  struct stat st;
  const int result = RetryInterrupted([&] { return io.Fstat(fd, &st); });
  if (result < 0) return ErrnoStatus(-result, absl::StrCat("cannot read the size of ", Quoted(path)));
  if (!S_ISREG(st.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(path), S_ISDIR(st.st_mode)
                                                                     ? " is a folder, not a file"
                                                                     : " is not a regular file (a pipe or a device?)"));
  }
  file.size_ = static_cast<uint64_t>(st.st_size);
  file.mtime_ns_ = MtimeNs(st);
  return file;
}

absl::StatusOr<File> File::OpenDirect() const {
  if (fd_ < 0) return absl::FailedPreconditionError("a file that is not open cannot be opened once more");
  const auto failed = [&](int error) {
    return ErrnoStatus(error, absl::StrCat("cannot open ", Quoted(path_), " with O_DIRECT"));
  };
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT;
  const int fd = RetryInterrupted([&] { return io_->Open(path_.c_str(), flags, 0); });
  if (fd < 0) return failed(-fd);
  File direct;
  direct.io_ = io_;
  direct.fd_ = fd;
  direct.path_ = path_;
  direct.size_ = size_;
  direct.mtime_ns_ = mtime_ns_;
  struct stat here, there;
  int result = RetryInterrupted([&] { return io_->Fstat(fd_, &here); });
  if (result == 0) result = RetryInterrupted([&] { return io_->Fstat(fd, &there); });
  if (result < 0) return failed(-result);
  if (here.st_dev != there.st_dev || here.st_ino != there.st_ino) {
    return absl::DataLossError(absl::StrCat(Quoted(path_), " is no longer the file that was opened"));
  }
  const int alignment = io_->DirectAlignment(fd);
  if (alignment < 0) return failed(-alignment);
  if (alignment == 0 || kDirectAlignment % static_cast<uint64_t>(alignment) != 0) return failed(EOPNOTSUPP);
  return direct;
}

absl::StatusOr<File> File::CreateSpill(Io& io, const std::string& dir, uint64_t size) {
  if (size > kMaxOffset) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a spill file of ", Count(size, "byte"), " is larger than files can be"));
  }
  if (absl::Status status = CheckFileSizeLimit(size); !status.ok()) return status;
  const std::string path = TempName(dir, "autoscheme-spill");
  const auto failed = [&](int error) {
    return ErrnoStatus(error, absl::StrCat("cannot create a spill file of ", Count(size, "byte"), " in the folder ",
                                           Quoted(dir), " (option work_dir)"));
  };
  // The random name, O_EXCL and O_NOFOLLOW keep another user of the folder from planting a link there.
  const int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  const int fd = RetryInterrupted([&] { return io.Open(path.c_str(), flags, 0600); });
  if (fd < 0) return failed(-fd);
  File file;
  file.io_ = &io;
  file.fd_ = fd;
  file.path_ = path;
  file.size_ = size;
  const int unlinked = RetryInterrupted([&] { return io.Unlink(path.c_str()); });
  if (unlinked < 0) {
    io.Unlink(path.c_str());
    return failed(-unlinked);
  }
  const int reserved = Reserve(io, fd, size);
  if (reserved < 0) return failed(-reserved);
  return file;
}

absl::Status File::ReadAt(uint64_t offset, absl::Span<std::byte> out) const {
  if (fd_ < 0) return absl::FailedPreconditionError("read from a file that is not open");
  if (offset > kMaxOffset || out.size() > kMaxOffset - offset) {
    return absl::DataLossError(absl::StrCat(Quoted(path_), ": a read of ", Count(out.size(), "byte"), " at offset ",
                                            offset, " is beyond the end of any file"));
  }
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = RetryInterrupted(
        [&] { return io_->Pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done)); });
    if (n < 0) {
      return ErrnoStatus(static_cast<int>(-n), absl::StrCat("cannot read ", Count(out.size() - done, "byte"),
                                                            " at offset ", offset + done, " of ", Quoted(path_)));
    }
    if (n == 0) {
      return absl::DataLossError(absl::StrCat(Quoted(path_), " ends at byte ", offset + done, ", where ",
                                              Count(out.size() - done, "more byte"),
                                              out.size() - done == 1 ? " was" : " were", " expected (it had ",
                                              Count(size_, "byte"), " when it was opened)"));
    }
    done += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status File::WriteAt(uint64_t offset, absl::Span<const std::byte> data) const {
  if (fd_ < 0) return absl::FailedPreconditionError("write to a file that is not open");
  if (offset > kMaxOffset || data.size() > kMaxOffset - offset) {
    return absl::InvalidArgumentError(
        absl::StrCat("a write of ", Count(data.size(), "byte"), " at offset ", offset, " is larger than files can be"));
  }
  size_t done = 0;
  while (done < data.size()) {
    ssize_t n = RetryInterrupted(
        [&] { return io_->Pwrite(fd_, data.data() + done, data.size() - done, static_cast<off_t>(offset + done)); });
    if (n == 0) n = -EIO;
    if (n < 0) {
      return ErrnoStatus(static_cast<int>(-n), absl::StrCat("cannot write ", Count(data.size() - done, "byte"),
                                                            " at offset ", offset + done, " of ", Quoted(path_)));
    }
    done += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

void File::DropCache(uint64_t offset, uint64_t size) const {
  if (fd_ < 0 || offset > kMaxOffset || size > kMaxOffset) return;
  io_->DropCache(fd_, static_cast<off_t>(offset), static_cast<off_t>(size));
}

void File::WillNeed(uint64_t offset, uint64_t size) const {
  if (fd_ < 0 || offset > kMaxOffset || size > kMaxOffset) return;
  io_->WillNeed(fd_, static_cast<off_t>(offset), static_cast<off_t>(size));
}

bool File::IsInMemory() const {
  struct statfs system;
  if (fd_ < 0 || io_->Fstatfs(fd_, &system) < 0) return false;
  return system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC;
}

absl::Status File::CheckUnchanged() const {
  if (fd_ < 0) return absl::FailedPreconditionError("check of a file that is not open");
  struct stat st;
  const int result = RetryInterrupted([&] { return io_->Fstat(fd_, &st); });
  if (result < 0) return ErrnoStatus(-result, absl::StrCat("cannot read the size of ", Quoted(path_)));
  if (static_cast<uint64_t>(st.st_size) != size_) {
    return absl::DataLossError(absl::StrCat(Quoted(path_), " changed while it was read: ", Count(size_, "byte"),
                                            " when opened, ", st.st_size, " now"));
  }
  if (MtimeNs(st) != mtime_ns_) {
    return absl::DataLossError(absl::StrCat(Quoted(path_), " changed while it was read: modified at ", mtime_ns_,
                                            " ns when opened, ", MtimeNs(st), " ns now"));
  }
  return absl::OkStatus();
}

File& File::operator=(File&& o) noexcept {
  if (this != &o) {
    if (fd_ >= 0) io_->Close(fd_);
    io_ = std::exchange(o.io_, nullptr);
    fd_ = std::exchange(o.fd_, -1);
    size_ = std::exchange(o.size_, 0);
    mtime_ns_ = std::exchange(o.mtime_ns_, 0);
    path_ = std::move(o.path_);
  }
  return *this;
}

File::~File() {
  if (fd_ >= 0) io_->Close(fd_);
}

absl::Status CheckFileSizeLimit(uint64_t bytes) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("a file of ", Count(bytes, "byte"), " is needed, but this process may write ", "files of ",
                   static_cast<uint64_t>(limit.rlim_cur), " bytes at most: raise RLIMIT_FSIZE (ulimit -f)"));
}

std::string WorkingFolderNote() {
  char path[PATH_MAX];
  if (getcwd(path, sizeof(path)) != nullptr || errno != ENOENT) return "";
  return "; the working folder of this process has been deleted: go to one that exists, or give absolute paths";
}

absl::Status ErrnoStatus(int error, absl::string_view what, uint64_t files_needed) {
  const std::string message =
      absl::StrCat(what, ": ", std::generic_category().message(error), Remedy(error, files_needed));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP: return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS: return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE:
    case ENOMEM: return absl::ResourceExhaustedError(message);
    case EISDIR:
    case ENAMETOOLONG:
    case EINVAL: return absl::InvalidArgumentError(message);
    default: return absl::UnavailableError(message);
  }
}

std::string TempName(const std::string& dir, absl::string_view stem) {
  uint64_t random[2] = {};
  // Never blocks once the machine is up; were it to fail, O_EXCL still refuses a name that exists.
  if (getrandom(random, sizeof(random), GRND_NONBLOCK) != sizeof(random)) {
    struct timespec now = {};
    clock_gettime(CLOCK_MONOTONIC, &now);
    random[0] = static_cast<uint64_t>(getpid());
    random[1] = static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
  }
  return absl::StrCat(dir.empty() ? "." : dir, "/.", stem, ".", absl::Hex(random[0], absl::kZeroPad16),
                      absl::Hex(random[1], absl::kZeroPad16), ".tmp");
}

int Io::Open(const char* path, int flags, mode_t mode) { return NegativeErrno(::open(path, flags, mode)); }
int Io::Close(int fd) { return NegativeErrno(::close(fd)); }
int Io::Fstat(int fd, struct stat* out) { return NegativeErrno(::fstat(fd, out)); }
int Io::Stat(const char* path, struct stat* out) { return NegativeErrno(::stat(path, out)); }
int Io::Fsync(int fd) { return NegativeErrno(::fsync(fd)); }
int Io::Rename(const char* from, const char* to) { return NegativeErrno(::rename(from, to)); }
int Io::Unlink(const char* path) { return NegativeErrno(::unlink(path)); }
int Io::Access(const char* path, int mode) { return NegativeErrno(::faccessat(AT_FDCWD, path, mode, AT_EACCESS)); }
int Io::Fchmod(int fd, mode_t mode) { return NegativeErrno(::fchmod(fd, mode)); }
int Io::Fchown(int fd, uid_t user, gid_t group) { return NegativeErrno(::fchown(fd, user, group)); }
int Io::DescriptorFlags(int fd) { return NegativeErrno(::fcntl(fd, F_GETFL)); }
int Io::Fstatfs(int fd, struct statfs* out) { return NegativeErrno(::fstatfs(fd, out)); }
int Io::Allocate(int fd, off_t size) { return -::posix_fallocate(fd, 0, size); }
int Io::DropCache(int fd, off_t offset, off_t size) { return -::posix_fadvise(fd, offset, size, POSIX_FADV_DONTNEED); }
int Io::WillNeed(int fd, off_t offset, off_t size) { return -::posix_fadvise(fd, offset, size, POSIX_FADV_WILLNEED); }

ssize_t Io::Pread(int fd, void* data, size_t size, off_t offset) {
  const ssize_t n = ::pread(fd, data, size, offset);
  return n < 0 ? -errno : n;
}

ssize_t Io::Pwrite(int fd, const void* data, size_t size, off_t offset) {
  const ssize_t n = ::pwrite(fd, data, size, offset);
  return n < 0 ? -errno : n;
}

// SIGPIPE is held back for this thread while it writes, and taken out of the queue if the write was what raised it.
ssize_t Io::Write(int fd, const void* data, size_t size) {
  sigset_t broken_pipe, pending, before;
  sigemptyset(&broken_pipe);
  sigaddset(&broken_pipe, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &broken_pipe, &before);
  ssize_t n = ::write(fd, data, size);
  while (n < 0 && errno == EAGAIN) {
    struct pollfd writable = {fd, POLLOUT, 0};
    ::poll(&writable, 1, -1);
    n = ::write(fd, data, size);
  }
  if (n < 0) n = -errno;
  if (n == -EPIPE && sigismember(&pending, SIGPIPE) == 0) {
    const struct timespec at_once = {};
    while (sigtimedwait(&broken_pipe, nullptr, &at_once) < 0 && errno == EINTR) continue;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return n;
}

int Io::List(const char* folder, std::vector<std::string>* names) {
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    names->push_back(at->path().filename().string());
  }
  return -error.value();
}

int Io::Readlink(const char* path, std::string* out) {
  out->resize(PATH_MAX);
  const ssize_t n = ::readlink(path, out->data(), out->size());
  const int error = n < 0 ? -errno : 0;
  out->resize(n < 0 ? 0 : static_cast<size_t>(n));
  return error;
}

bool Io::HasAccessList(const char* path) { return getxattr(path, "system.posix_acl_access", nullptr, 0) > 0; }

bool Io::IsMountPoint(const char* path) {
#ifdef STATX_ATTR_MOUNT_ROOT
  struct statx st = {};
  return ::statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, &st) == 0 && (st.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
#else
  (void)path;
  return false;
#endif
}

int Io::DirectAlignment(int fd) {
#ifdef STATX_DIOALIGN
  struct statx st = {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && (st.stx_mask & STATX_DIOALIGN) != 0) {
    return static_cast<int>(std::max(st.stx_dio_mem_align, st.stx_dio_offset_align));
  }
#endif
  (void)fd;
  return File::kDirectAlignment;
}

Io& Io::Posix() {
  static Io& io = *new Io;
  return io;
}

}  // namespace autoscheme
