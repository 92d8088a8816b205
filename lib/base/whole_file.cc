// Whole files at once: reading one into a string, replacing one so that nobody ever sees half of it.
#include <fcntl.h>

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "base/temp_name.h"

namespace autoscheme {
namespace {

// "a/b" gives {"a", "b"}, "b" gives {".", "b"}.
std::pair<std::string, std::string> SplitPath(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

absl::Status CheckFileName(const std::string& path) {
  const std::string name = SplitPath(path).second;
  if (name.empty() || name == "." || name == ".." || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("cannot write ", Quoted(path), ": not a file name"));
  }
  return absl::OkStatus();
}

// A new file beside the one it shall replace. Unlinked on destruction unless it has been renamed.
class TempFile {
 public:
  TempFile(Io& io, const std::string& path) : io_(io), target_(path) {}
  ~TempFile() {
    if (fd_ >= 0) io_.Close(fd_);
    // Once more after a failure: a passing fault must not leave a file behind.
    if (exists_ && io_.Unlink(name_.c_str()) < 0) io_.Unlink(name_.c_str());
  }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;

  absl::Status Create() {
    const auto [dir, base] = SplitPath(target_);
    name_ = TempName(dir, base.substr(0, 100));
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    const int fd = RetryInterrupted([&] { return io_.Open(name_.c_str(), flags, 0666); });
    if (fd < 0) return Failed(-fd, "cannot create a file beside it");
    fd_ = fd;
    exists_ = true;
    return absl::OkStatus();
  }

  absl::Status Write(absl::string_view contents) {
    size_t done = 0;
    while (done < contents.size()) {
      ssize_t n = RetryInterrupted(
          [&] { return io_.Pwrite(fd_, contents.data() + done, contents.size() - done, static_cast<off_t>(done)); });
      if (n == 0) n = -EIO;
      if (n < 0) return Failed(static_cast<int>(-n), absl::StrCat(done, " of ", contents.size(), " bytes written"));
      done += static_cast<size_t>(n);
    }
    return absl::OkStatus();
  }

  // A file whose fsync has failed is given up: the kernel may have dropped the pages, so a second fsync proves nothing.
  absl::Status SyncAndClose() {
    const int synced = RetryInterrupted([&] { return io_.Fsync(fd_); });
    if (synced < 0) return Failed(-synced, "fsync failed");
    const int closed = io_.Close(std::exchange(fd_, -1));
    // On Linux an interrupted close has closed, and the contents are on disk already.
    if (closed < 0 && closed != -EINTR) return Failed(-closed, "close failed");
    return absl::OkStatus();
  }

  absl::Status Rename() {
    const int renamed = RetryInterrupted([&] { return io_.Rename(name_.c_str(), target_.c_str()); });
    if (renamed < 0) return Failed(-renamed, "cannot rename the new file over it");
    exists_ = false;
    return absl::OkStatus();
  }

 private:
  absl::Status Failed(int error, absl::string_view how) const {
    return ErrnoStatus(error, absl::StrCat("cannot write ", Quoted(target_), ", ", how));
  }

  Io& io_;
  const std::string target_;
  std::string name_;
  int fd_ = -1;
  bool exists_ = false;
};

absl::Status SyncFolder(Io& io, const std::string& path) {
  const std::string dir = SplitPath(path).first;
  const int fd = RetryInterrupted([&] { return io.Open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0); });
  int result = fd;
  if (fd >= 0) {
    result = RetryInterrupted([&] { return io.Fsync(fd); });
    io.Close(fd);
  }
  // Some file systems cannot sync a folder, and a folder may be writable without being readable.
  if (result >= 0 || result == -EINVAL || result == -EOPNOTSUPP || (fd < 0 && result == -EACCES)) {
    return absl::OkStatus();
  }
  return ErrnoStatus(-result, absl::StrCat("wrote ", Quoted(path), ", but cannot make its folder durable"));
}

}  // namespace

absl::StatusOr<std::string> ReadFileToString(Io& io, const std::string& path, uint64_t max_bytes) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const File file, File::OpenRead(io, path));
  if (file.size() > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Quoted(path), " has ", file.size(), " bytes; at most ", max_bytes, " are accepted"));
  }
  std::string contents(file.size(), '\0');
  AUTOSCHEME_RETURN_IF_ERROR(
      file.ReadAt(0, absl::MakeSpan(reinterpret_cast<std::byte*>(contents.data()), contents.size())));
  return contents;
}

absl::Status WriteFileAtomically(Io& io, const std::string& path, absl::string_view contents) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckFileName(path));
  AUTOSCHEME_RETURN_IF_ERROR(CheckFileSizeLimit(contents.size()));
  {
    TempFile temp(io, path);
    AUTOSCHEME_RETURN_IF_ERROR(temp.Create());
    AUTOSCHEME_RETURN_IF_ERROR(temp.Write(contents));
    AUTOSCHEME_RETURN_IF_ERROR(temp.SyncAndClose());
    AUTOSCHEME_RETURN_IF_ERROR(temp.Rename());
  }
  return SyncFolder(io, path);
}

absl::Status CheckWritable(Io& io, const std::string& path) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckFileName(path));
  struct stat st;
  const int result = RetryInterrupted([&] { return io.Stat(path.c_str(), &st); });
  if (result == 0 && S_ISDIR(st.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat("cannot write ", Quoted(path), ": it is a folder"));
  }
  if (result < 0 && result != -ENOENT) return ErrnoStatus(-result, absl::StrCat("cannot write ", Quoted(path)));
  TempFile temp(io, path);
  return temp.Create();
}

}  // namespace autoscheme
