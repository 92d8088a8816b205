#include "output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace cli {
namespace {

// The folders that spill files go to, best first.
std::vector<std::string> WorkFolders(const std::string& work_dir) {
  std::vector<std::string> folders;
  const char* tmpdir = std::getenv("TMPDIR");
  for (const std::string& folder : {work_dir, std::string(tmpdir == nullptr ? "" : tmpdir), std::string("/tmp")}) {
    if (!folder.empty() && std::find(folders.begin(), folders.end(), folder) == folders.end())
      folders.push_back(folder);
  }
  return folders;
}

// Saves to a new file of the folder, which nobody else can read, and sets its path. Nothing is left of it on failure.
absl::Status SaveInFolder(const std::string& folder, absl::string_view what, const Delivery::Save& save,
                          std::string* path) {
  constexpr absl::string_view kEnding = ".json";
  *path = absl::StrCat(folder, "/autoscheme-", what, "-XXXXXX", kEnding);
  const int fd = mkostemps(path->data(), static_cast<int>(kEnding.size()), O_CLOEXEC);
  if (fd < 0)
    return absl::UnavailableError(absl::StrCat("cannot create a file in ", folder, ": ", std::strerror(errno)));
  close(fd);
  absl::Status saved = save(*path);
  if (!saved.ok()) unlink(path->c_str());
  return saved;
}

}  // namespace

std::string OutputPath(const Flags& flags, absl::string_view flag) {
  const std::string& value = flags.Get(flag);
  return value == "-" ? "/dev/stdout" : value;
}

absl::Status CheckOutputs(autoscheme_context* context, const std::vector<std::string>& outputs,
                          const std::vector<std::string>& inputs) {
  const auto pointers = [](const std::vector<std::string>& paths) {
    std::vector<const char*> all;
    for (const std::string& path : paths) {
      if (!path.empty()) all.push_back(path.c_str());
    }
    return all;
  };
  const std::vector<const char*> to = pointers(outputs), from = pointers(inputs);
  return Call([&](autoscheme_error** error) {
    return autoscheme_check_outputs(context, to.data(), static_cast<int64_t>(to.size()), from.data(),
                                    static_cast<int64_t>(from.size()), error);
  });
}

bool AnyIsStdout(const std::vector<std::string>& outputs) {
  struct stat standard;
  if (fstat(STDOUT_FILENO, &standard) != 0) return false;
  return std::any_of(outputs.begin(), outputs.end(), [&](const std::string& output) {
    struct stat other;
    return stat(output.c_str(), &other) == 0 && other.st_dev == standard.st_dev && other.st_ino == standard.st_ino;
  });
}

void Delivery::Deliver(absl::string_view what, const std::string& place, const Save& save) {
  if (!place.empty()) {
    const absl::Status saved = save(place);
    if (saved.ok()) return places_.push_back(absl::StrCat("the ", what, " in ", place));
    Fail(saved);
  }
  absl::Status saved;
  for (const std::string& folder : WorkFolders(work_dir_)) {
    std::string path;
    saved = SaveInFolder(folder, what, save, &path);
    if (saved.ok()) return places_.push_back(absl::StrCat("the ", what, " in ", path));
  }
  Fail(absl::Status(saved.code(), absl::StrCat("the ", what, " could not be saved anywhere: ", saved.message())));
}

void Delivery::Fail(const absl::Status& status) {
  if (first_failure_.ok()) first_failure_ = status;
  const std::string message(status.message());
  if (std::find(failures_.begin(), failures_.end(), message) == failures_.end()) failures_.push_back(message);
}

absl::Status Delivery::status() const {
  if (first_failure_.ok()) return absl::OkStatus();
  const std::string find = places_.empty() ? "" : absl::StrCat("; find ", absl::StrJoin(places_, " and "));
  return absl::Status(first_failure_.code(), absl::StrCat(absl::StrJoin(failures_, "; "), find));
}

}  // namespace cli
