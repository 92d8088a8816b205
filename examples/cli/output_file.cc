#include "output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace cli {
namespace {

namespace fs = std::filesystem;

bool SameFile(const fs::path& a, const fs::path& b) {
  std::error_code none;
  return fs::equivalent(a, b, none);
}

absl::Status CheckWritable(const fs::path& path) {
  std::error_code none;
  if (fs::is_directory(path, none)) {
    return absl::InvalidArgumentError(absl::StrCat("cannot write ", path.string(), ": it is a folder"));
  }
  const fs::path trial = path.string() + absl::StrCat(".trial.", getpid());
  const int fd = open(trial.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::PermissionDeniedError(absl::StrCat("cannot write ", path.string(), ": ", std::strerror(errno)));
  }
  close(fd);
  unlink(trial.c_str());
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckOutput(const std::string& path, const std::vector<std::string>& inputs) {
  for (const std::string& input : inputs) {
    std::error_code none;
    bool same = SameFile(path, input);
    if (fs::is_directory(input, none)) {
      for (const auto& entry : fs::directory_iterator(input, none)) same = same || SameFile(path, entry.path());
    }
    if (same) return absl::InvalidArgumentError(absl::StrCat("result file ", path, " would overwrite an input"));
  }
  return CheckWritable(path);
}

}  // namespace cli
