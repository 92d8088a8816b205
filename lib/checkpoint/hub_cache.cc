#include "checkpoint/hub_cache.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

bool IsRepoId(absl::string_view model);
std::string CacheFolder();
absl::StatusOr<bool> IsFolder(Io& io, const std::string& path);

}  // namespace

absl::StatusOr<std::string> ResolveModelFolder(Io& io, const std::string& model) {
  if (model.empty() || model.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("the model ", Quoted(model), " is neither a folder nor a repo id"));
  }
  struct stat st;
  const int result = RetryInterrupted([&] { return io.Stat(model.c_str(), &st); });
  if (result == 0) {
    if (S_ISDIR(st.st_mode)) return model;
    return absl::InvalidArgumentError(
        absl::StrCat("the model ", Quoted(model), " is a file; pass the folder that holds config.json"));
  }
  if (result != -ENOENT || !IsRepoId(model)) {
    return ErrnoStatus(-result, absl::StrCat("cannot open the model folder ", Quoted(model)));
  }

  const std::string cache = CacheFolder();
  if (cache.empty()) {
    return absl::NotFoundError(absl::StrCat("the model ", Quoted(model),
                                            " is not a folder, and no Hugging Face cache is known: set HF_HOME",
                                            WorkingFolderNote()));
  }
  const std::string repo = absl::StrCat(cache, "/models--", absl::StrReplaceAll(model, {{"/", "--"}}));
  const std::string ref = absl::StrCat(repo, "/refs/main");
  const absl::StatusOr<std::string> text = ReadFileToString(io, ref, 4096);
  if (!text.ok()) {
    if (!absl::IsNotFound(text.status())) return text.status();
    return absl::NotFoundError(absl::StrCat("the model ", Quoted(model), " is neither a folder nor in the cache: no ",
                                            Quoted(ref), "; download it first (nothing is fetched from the network)",
                                            WorkingFolderNote()));
  }
  const std::string commit(absl::StripAsciiWhitespace(*text));
  if (!IsPlainFileName(commit)) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(ref), " names the unsafe snapshot ", Quoted(commit)));
  }
  const std::string snapshot = absl::StrCat(repo, "/snapshots/", commit);
  AUTOSCHEME_ASSIGN_OR_RETURN(const bool found, IsFolder(io, snapshot));
  if (!found) {
    return absl::NotFoundError(absl::StrCat("the cache names a snapshot of ", Quoted(model),
                                            " that is not there: ", Quoted(snapshot), "; download the model again"));
  }
  return snapshot;
}

bool IsPlainFileName(absl::string_view name) {
  if (name.empty() || name.size() > 255 || name == "." || name == "..") return false;
  return std::none_of(name.begin(), name.end(),
                      [](unsigned char c) { return c == '/' || c == '\\' || c == ':' || c < 0x20 || c == 0x7f; });
}

namespace {

// "name" or "org/name", letters, digits and "-_." only, so that nothing can climb out of the cache.
bool IsRepoId(absl::string_view model) {
  if (model.size() > 96 || std::count(model.begin(), model.end(), '/') > 1 || absl::StrContains(model, "..") ||
      absl::StrContains(model, "--")) {
    return false;
  }
  if (!absl::ascii_isalnum(model.front()) || model.back() == '/') return false;
  return std::all_of(model.begin(), model.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.' || c == '/';
  });
}

std::string CacheFolder() {
  const struct {
    const char* variable;
    const char* suffix;
  } places[] = {{"HF_HUB_CACHE", ""},
                {"HUGGINGFACE_HUB_CACHE", ""},
                {"HF_HOME", "/hub"},
                {"XDG_CACHE_HOME", "/huggingface/hub"},
                {"HOME", "/.cache/huggingface/hub"}};
  for (const auto& place : places) {
    const char* value = std::getenv(place.variable);
    if (value != nullptr && *value != '\0') return absl::StrCat(value, place.suffix);
  }
  return "";
}

absl::StatusOr<bool> IsFolder(Io& io, const std::string& path) {
  struct stat st;
  const int result = RetryInterrupted([&] { return io.Stat(path.c_str(), &st); });
  if (result == -ENOENT || result == -ENOTDIR) return false;
  if (result < 0) return ErrnoStatus(-result, absl::StrCat("cannot open the folder ", Quoted(path)));
  return S_ISDIR(st.st_mode);
}

}  // namespace
}  // namespace autoscheme
