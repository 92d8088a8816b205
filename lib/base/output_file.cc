#include "base/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "autoscheme/output.h"
#include "base/status_macros.h"
#include "base/temp_name.h"

namespace autoscheme {
namespace {

// Where a path leads.
struct Place {
  enum class Kind {
    kFile,        // a regular file, or nothing yet: is replaced
    kStream,      // a character device or a pipe: is written to
    kDescriptor,  // one that this process has open: is written to
  };
  Kind kind = Kind::kFile;
  std::string given;
  std::string path;  // kFile: without links in its last part. kStream: as given
  int fd = -1;       // kDescriptor
  bool exists = false;
  struct stat st = {};  // if it exists

  std::string Name() const {
    return path == given ? Quoted(given) : absl::StrCat(Quoted(given), " (a link to ", Quoted(path), ")");
  }
  absl::Status Failed(int error, absl::string_view how) const {
    return ErrnoStatus(error, absl::StrCat("cannot write ", Name(), how.empty() ? "" : ", ", how));
  }
  absl::Status Refused(absl::string_view why) const {
    return absl::InvalidArgumentError(absl::StrCat("cannot write ", Name(), ": ", why));
  }
};

// "a/b" gives {"a", "b"}, "b" gives {".", "b"}.
std::pair<std::string, std::string> SplitPath(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

bool SameFile(const struct stat& a, const struct stat& b) { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

// 0 or a negative errno.
int Stat(Io& io, const std::string& path, struct stat* out) {
  return RetryInterrupted([&] { return io.Stat(path.c_str(), out); });
}

// Whether both folders are there and the same one.
bool SameFolder(Io& io, const std::string& a, const std::string& b) {
  struct stat one, other;
  return Stat(io, a, &one) == 0 && Stat(io, b, &other) == 0 && SameFile(one, other);
}

// The number of this process's descriptor that the path is a name of; -1 if it is none.
int OwnDescriptor(Io& io, const std::string& folder, const std::string& name) {
  int fd = -1;
  if (!std::all_of(name.begin(), name.end(), absl::ascii_isdigit) || !absl::SimpleAtoi(name, &fd)) return -1;
  return SameFolder(io, folder, "/proc/self/fd") ? fd : -1;
}

// Follows the links of place.path until it names a file, nothing yet, or a descriptor.
absl::Status FollowLinks(Io& io, Place& place) {
  constexpr int kMostLinks = 40;  // as the kernel
  for (int links = 0; links <= kMostLinks; ++links) {
    const auto [folder, name] = SplitPath(place.path);
    if (name.empty() || name == "." || name == "..") return place.Refused("not a file name");
    if (place.fd = OwnDescriptor(io, folder, name); place.fd >= 0) {
      place.kind = Place::Kind::kDescriptor;
      return absl::OkStatus();
    }
    std::string target;
    const int result = RetryInterrupted([&] { return io.Readlink(place.path.c_str(), &target); });
    if (result == -EINVAL || result == -ENOENT) return absl::OkStatus();
    if (result < 0) return place.Failed(-result, "");
    place.path = !target.empty() && target[0] == '/' ? target : absl::StrCat(folder, "/", target);
  }
  return place.Failed(ELOOP, "");
}

// A regular file that is there must be ours to write and of a kind that rename can replace.
absl::Status CheckReplaceable(Io& io, const Place& place) {
  struct stat st;
  const int result = Stat(io, place.path, &st);
  if (result < 0 && result != -ENOENT) return place.Failed(-result, "");
  if (result < 0 || !SameFile(st, place.st)) return place.Refused("the file that it leads to has lost its name");
  const int access = RetryInterrupted([&] { return io.Access(place.path.c_str(), W_OK); });
  if (access < 0) return place.Failed(-access, "the file is protected from being written");
  if (io.IsMountPoint(place.path.c_str())) {
    return place.Refused(
        "it is a mount point, which cannot be replaced as a whole; mount its folder instead, or write to a pipe");
  }
  return absl::OkStatus();
}

absl::StatusOr<Place> FindPlace(Io& io, const std::string& path) {
  Place place;
  place.given = place.path = path;
  if (path.empty() || path.find('\0') != std::string::npos) return place.Refused("not a file name");
  // The kernel follows the links first: it refuses those that another user may have planted (fs.protected_symlinks).
  const int result = Stat(io, path, &place.st);
  if (result < 0 && result != -ENOENT) return place.Failed(-result, "");
  place.exists = result == 0;
  const mode_t mode = place.exists ? place.st.st_mode : S_IFREG;
  if (S_ISDIR(mode)) return place.Refused("it is a folder");
  if (S_ISBLK(mode)) return place.Refused("it is a disk (a block device), whose contents would be lost");
  AUTOSCHEME_RETURN_IF_ERROR(FollowLinks(io, place));

  if (place.kind == Place::Kind::kDescriptor) {
    const int flags = io.DescriptorFlags(place.fd);
    if (flags < 0) return place.Failed(-flags, absl::StrCat("descriptor ", place.fd));
    if ((flags & O_ACCMODE) == O_RDONLY)
      return place.Failed(EACCES, absl::StrCat("descriptor ", place.fd, " is open for reading only"));
  } else if (!S_ISREG(mode)) {
    place.kind = Place::Kind::kStream;
    place.path = path;
    if (S_ISSOCK(mode)) return place.Refused("it is a socket");
    const int access = RetryInterrupted([&] { return io.Access(path.c_str(), W_OK); });
    if (access < 0) return place.Failed(-access, "");
  } else if (place.exists) {
    AUTOSCHEME_RETURN_IF_ERROR(CheckReplaceable(io, place));
  }
  return place;
}

// Whether a mode or an owner was set, or cannot be by this process or on this file system; false for a failing disk.
bool SetOrRefused(int result) {
  switch (-result) {
    case 0:
    case EPERM:
    case EACCES:
    case EINVAL:
    case EOPNOTSUPP:
    case ENOSYS: return true;
    default: return false;
  }
}

// A new file beside the one it shall replace. Unlinked on destruction unless it has been renamed.
class TempFile {
 public:
  TempFile(Io& io, const Place& target) : io_(io), target_(target) {}
  ~TempFile() {
    if (fd_ >= 0) io_.Close(fd_);
    // Once more after a failure: a passing fault must not leave a file behind.
    if (exists_ && io_.Unlink(name_.c_str()) < 0) io_.Unlink(name_.c_str());
  }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;

  static constexpr size_t kMostStemBytes = 100;
  const std::string& name() const { return name_; }

  absl::Status Create() {
    const auto [folder, base] = SplitPath(target_.path);
    name_ = TempName(folder, base.substr(0, kMostStemBytes));
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    // What replaces a file that others may not read is never readable for them, not even for a moment.
    const mode_t mode = target_.exists ? 0600 : 0666;
    const int fd = RetryInterrupted([&] { return io_.Open(name_.c_str(), flags, mode); });
    if (fd < 0) return target_.Failed(-fd, absl::StrCat("its folder ", Quoted(folder), " takes no new file"));
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
      if (n < 0)
        return target_.Failed(static_cast<int>(-n), absl::StrCat(done, " of ", contents.size(), " bytes written"));
      done += static_cast<size_t>(n);
    }
    return absl::OkStatus();
  }

  // Takes over mode and owner of the file that is replaced, as far as the system and the file system let us.
  absl::Status KeepModeAndOwner() {
    if (!target_.exists) return absl::OkStatus();
    mode_t mode = target_.st.st_mode & 0777;
    const auto chown = [&](uid_t user) {
      return RetryInterrupted([&] { return io_.Fchown(fd_, user, target_.st.st_gid); });
    };
    int owned = chown(target_.st.st_uid);
    if (owned == -EPERM) owned = chown(static_cast<uid_t>(-1));
    // Another group gets no more than everybody has, and so does the group of a file with an access list: where there
    // is one, the mode's middle bits are the most that anybody on the list has.
    if (owned < 0 || io_.HasAccessList(target_.path.c_str()))
      mode &= ~static_cast<mode_t>(S_IRWXG) | (mode & S_IRWXO) << 3;
    const int moded = RetryInterrupted([&] { return io_.Fchmod(fd_, mode); });
    const int error = SetOrRefused(owned) ? moded : owned;
    if (SetOrRefused(error)) return absl::OkStatus();
    return target_.Failed(-error, "its mode and owner cannot be kept");
  }

  // A file whose fsync has failed is given up: the kernel may have dropped the pages, so a second fsync proves nothing.
  absl::Status SyncAndClose(size_t size) {
    const int synced = RetryInterrupted([&] { return io_.Fsync(fd_); });
    if (synced < 0) return target_.Failed(-synced, absl::StrCat("fsync of its ", size, " bytes failed"));
    const int closed = io_.Close(std::exchange(fd_, -1));
    // On Linux an interrupted close has closed, and the contents are on disk already.
    if (closed < 0 && closed != -EINTR)
      return target_.Failed(-closed, absl::StrCat("close after ", size, " bytes failed"));
    return absl::OkStatus();
  }

  absl::Status Rename() {
    const int renamed = RetryInterrupted([&] { return io_.Rename(name_.c_str(), target_.path.c_str()); });
    if (renamed < 0) return target_.Failed(-renamed, "cannot rename the new file over it");
    exists_ = false;
    return absl::OkStatus();
  }

 private:
  Io& io_;
  const Place& target_;
  std::string name_;
  int fd_ = -1;
  bool exists_ = false;
};

absl::Status SyncFolder(Io& io, const Place& place) {
  const std::string folder = SplitPath(place.path).first;
  const int fd = RetryInterrupted([&] { return io.Open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0); });
  int result = fd;
  if (fd >= 0) {
    result = RetryInterrupted([&] { return io.Fsync(fd); });
    io.Close(fd);
  }
  // Some file systems cannot sync a folder, and a folder may be writable without being readable.
  if (result >= 0 || result == -EINVAL || result == -EOPNOTSUPP || (fd < 0 && result == -EACCES)) {
    return absl::OkStatus();
  }
  return ErrnoStatus(-result, absl::StrCat("wrote ", place.Name(), ", but cannot make its folder durable"));
}

absl::Status Replace(Io& io, const Place& place, absl::string_view contents) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckFileSizeLimit(contents.size()));
  {
    TempFile temp(io, place);
    AUTOSCHEME_RETURN_IF_ERROR(temp.Create());
    AUTOSCHEME_RETURN_IF_ERROR(temp.Write(contents));
    AUTOSCHEME_RETURN_IF_ERROR(temp.KeepModeAndOwner());
    AUTOSCHEME_RETURN_IF_ERROR(temp.SyncAndClose(contents.size()));
    AUTOSCHEME_RETURN_IF_ERROR(temp.Rename());
  }
  return SyncFolder(io, place);
}

absl::Status WriteAll(Io& io, int fd, const Place& place, absl::string_view contents) {
  size_t done = 0;
  while (done < contents.size()) {
    ssize_t n = RetryInterrupted([&] { return io.Write(fd, contents.data() + done, contents.size() - done); });
    if (n == 0) n = -EIO;
    if (n < 0) return place.Failed(static_cast<int>(-n), absl::StrCat(done, " of ", contents.size(), " bytes written"));
    done += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status WriteStream(Io& io, const Place& place, absl::string_view contents) {
  const int fd = RetryInterrupted([&] { return io.Open(place.path.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC, 0); });
  if (fd < 0) return place.Failed(-fd, "cannot open it");
  absl::Status status = WriteAll(io, fd, place, contents);
  const int closed = io.Close(fd);
  if (status.ok() && closed < 0 && closed != -EINTR) status = place.Failed(-closed, "close failed");
  return status;
}

// Whether the file system takes two names of one folder, which nothing has yet, for one, as some do with upper and
// lower case: a file with a name made from the first is looked for under the name made in the same way from the second.
bool NamesAreOne(Io& io, const Place& a, const Place& b) {
  const auto [folder, name] = SplitPath(a.path);
  const std::string other = SplitPath(b.path).second;
  if (name == other) return true;
  if (name.size() > TempFile::kMostStemBytes || other.size() > TempFile::kMostStemBytes) return false;
  TempFile trial(io, a);
  if (!trial.Create().ok()) return false;
  const size_t folder_end = trial.name().rfind('/') + 2;  // behind the dot
  const std::string found_as =
      absl::StrCat(trial.name().substr(0, folder_end), other, trial.name().substr(folder_end + name.size()));
  struct stat st;
  return Stat(io, found_as, &st) == 0;
}

bool AreOne(Io& io, const Place& a, const Place& b) {
  if (a.exists != b.exists) return false;
  if (a.exists) return SameFile(a.st, b.st);
  return SameFolder(io, SplitPath(a.path).first, SplitPath(b.path).first) && NamesAreOne(io, a, b);
}

}  // namespace

absl::Status WriteOutput(Io& io, const std::string& path, absl::string_view contents) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const Place place, FindPlace(io, path));
  switch (place.kind) {
    case Place::Kind::kDescriptor: return WriteAll(io, place.fd, place, contents);
    case Place::Kind::kStream: return WriteStream(io, place, contents);
    case Place::Kind::kFile: break;
  }
  return Replace(io, place, contents);
}

namespace {

// Whether readers of the model folder that a place lies in would take the result for a part of the model: as weights
// instead of its shards, say. A file of weights that is there is one wherever it lies.
bool WouldBeRead(Io& io, const Place& place) {
  if (place.kind != Place::Kind::kFile) return false;
  const auto [folder, name] = SplitPath(place.path);
  const auto is_of_weights = [](const std::string& file) {
    return absl::EndsWith(file, ".safetensors") || absl::EndsWith(file, ".safetensors.index.json");
  };
  const bool is_config = name == "config.json" || name == "adapter_config.json";
  if (!is_config && !is_of_weights(name)) return false;
  std::vector<std::string> beside;
  if (io.List(folder.c_str(), &beside) < 0) return place.exists;
  return absl::c_any_of(beside, [&](const std::string& file) {
    return file == "config.json" || (is_of_weights(file) && (is_config || file == name));
  });
}

}  // namespace

absl::Status CheckOutputs(const Context& context, const std::vector<std::string>& outputs,
                          const std::vector<std::string>& inputs) {
  Io& io = IoOf(context);
  std::vector<Place> places;
  for (const std::string& output : outputs) {
    AUTOSCHEME_ASSIGN_OR_RETURN(Place place, FindPlace(io, output));
    for (const std::string& input : inputs) {
      struct stat st;
      if (place.exists && Stat(io, input, &st) == 0 && SameFile(st, place.st)) {
        return place.Refused(absl::StrCat("it would overwrite the input ", Quoted(input)));
      }
    }
    for (const Place& other : places) {
      if (AreOne(io, other, place)) {
        return place.Refused(absl::StrCat("it is the same file as the other result ", Quoted(other.given),
                                          ", which it would overwrite"));
      }
    }
    if (WouldBeRead(io, place)) {
      return place.Refused("its folder is a model's, of which it would be read as a part; give it another name");
    }
    places.push_back(std::move(place));
  }
  for (const Place& place : places) {
    if (place.kind == Place::Kind::kFile) AUTOSCHEME_RETURN_IF_ERROR(TempFile(io, place).Create());
  }
  return absl::OkStatus();
}

}  // namespace autoscheme
