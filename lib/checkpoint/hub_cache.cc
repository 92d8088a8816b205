#include "checkpoint/hub_cache.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "checkpoint/model_folder.h"

namespace autoscheme {
namespace {

bool IsRepoId(absl::string_view model);
std::string CacheFolder();
absl::StatusOr<mode_t> ModeOf(Io& io, const std::string& path);
std::vector<std::string> ReposIn(Io& io, const std::string& folder);
absl::StatusOr<std::string> Snapshot(Io& io, const std::string& repo, const std::string& model,
                                     const std::string& revision);

}  // namespace

absl::StatusOr<std::string> ResolveModelFolder(Io& io, const std::string& model) {
  if (model.empty() || model.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("the model ", Quoted(model), " is neither a folder nor a repo id"));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const mode_t mode, ModeOf(io, model));
  if (mode != 0 && !S_ISDIR(mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model ", Quoted(model),
                     " is a file; pass the folder that holds config.json, or config.json itself to "
                     "plan without weights"));
  }
  const size_t at = mode != 0 ? std::string::npos : model.rfind('@');
  const std::string name = model.substr(0, at), revision = at == std::string::npos ? "" : model.substr(at + 1);
  // A repository's folder in a cache may be named itself, or its folder of snapshots.
  const std::string folder(absl::StripSuffix(absl::StripSuffix(name, "/"), "/snapshots"));
  AUTOSCHEME_ASSIGN_OR_RETURN(const mode_t config, ModeOf(io, model + "/config.json"));
  AUTOSCHEME_ASSIGN_OR_RETURN(const mode_t snapshots, ModeOf(io, folder + "/snapshots"));
  if (config == 0 && S_ISDIR(snapshots)) return Snapshot(io, folder, folder, revision);
  if (mode != 0 && config == 0) {
    const std::vector<std::string> repos = ReposIn(io, folder);
    if (repos.size() == 1) return Snapshot(io, repos[0], repos[0], revision);
    if (repos.size() > 1) {
      return absl::InvalidArgumentError(absl::StrCat("the model ", Quoted(model), " is a Hugging Face cache of ",
                                                     repos.size(), " models: give one of ", FirstNames(repos)));
    }
  }
  if (mode != 0) return model;

  if (absl::StrContains(model, "://")) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model ", Quoted(model),
                     " is a URL, and nothing is fetched from the network: download it, and give its folder or, where "
                     "it lies in the Hugging Face cache, its name (org/name)"));
  }
  if (!IsRepoId(name)) return ErrnoStatus(ENOENT, absl::StrCat("cannot open the model folder ", Quoted(model)));
  const std::string cache = CacheFolder();
  if (cache.empty()) {
    return absl::NotFoundError(absl::StrCat("the model ", Quoted(model),
                                            " is not a folder, and no Hugging Face cache is known: set HF_HOME",
                                            WorkingFolderNote()));
  }
  const std::string repo = absl::StrCat(cache, "/models--", absl::StrReplaceAll(name, {{"/", "--"}}));
  AUTOSCHEME_ASSIGN_OR_RETURN(const mode_t cached, ModeOf(io, repo));
  if (S_ISDIR(cached)) return Snapshot(io, repo, name, revision);
  return absl::NotFoundError(absl::StrCat("the model ", Quoted(model), " is neither a folder nor in the cache: no ",
                                          Quoted(repo), "; download it first (nothing is fetched from the network)",
                                          WorkingFolderNote()));
}

bool IsPlainFileName(absl::string_view name) {
  if (name.empty() || name.size() > 255 || name == "." || name == "..") return false;
  return std::none_of(name.begin(), name.end(),
                      [](unsigned char c) { return c == '/' || c == '\\' || c == ':' || c < 0x20 || c == 0x7f; });
}

namespace {

// "name" or "org/name", letters, digits and "-_." only, so that nothing can climb out of the cache.
bool IsRepoId(absl::string_view model) {
  if (model.empty() || model.size() > 96 || std::count(model.begin(), model.end(), '/') > 1 ||
      absl::StrContains(model, "..") || absl::StrContains(model, "--")) {
    return false;
  }
  if (!absl::ascii_isalnum(model.front()) || model.back() == '/') return false;
  return std::all_of(model.begin(), model.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.' || c == '/';
  });
}

// As os.path.expanduser and expandvars of Python: a leading "~", $NAME and ${NAME}; those that are not set stay.
std::string Expanded(absl::string_view path) {
  std::string out;
  const char* const home = std::getenv("HOME");
  if (home != nullptr && (path == "~" || absl::StartsWith(path, "~/"))) {
    out = home;
    path.remove_prefix(1);
  }
  const auto in_name = [](char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  for (size_t dollar = path.find('$'); dollar != path.npos; dollar = path.find('$')) {
    absl::StrAppend(&out, path.substr(0, dollar));
    path.remove_prefix(dollar + 1);
    const bool braces = absl::StartsWith(path, "{");
    const size_t end = braces ? path.find('}') : static_cast<size_t>(absl::c_find_if_not(path, in_name) - path.begin());
    const std::string name(path.substr(braces, end - braces));
    const absl::string_view written = path.substr(0, end == path.npos ? end : end + braces);
    const char* const value = end == path.npos ? nullptr : std::getenv(name.c_str());
    absl::StrAppend(&out, value != nullptr ? value : absl::StrCat("$", written));
    path.remove_prefix(written.size());
  }
  return absl::StrCat(out, path);
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
    if (value != nullptr && *value != '\0') return absl::StrCat(Expanded(value), place.suffix);
  }
  return "";
}

// 0 for what is not there.
absl::StatusOr<mode_t> ModeOf(Io& io, const std::string& path) {
  struct stat st;
  const int result = RetryInterrupted([&] { return io.Stat(path.c_str(), &st); });
  if (result == -ENOENT || result == -ENOTDIR) return 0;
  if (result < 0) return ErrnoStatus(-result, absl::StrCat("cannot open ", Quoted(path)));
  return st.st_mode;
}

// Repositories of a cache that is `folder`, or its subfolder "hub" as in HF_HOME.
std::vector<std::string> ReposIn(Io& io, const std::string& folder) {
  std::vector<std::string> repos;
  for (const std::string& hub : {folder, absl::StrCat(folder, "/hub")}) {
    for (const std::string& name : NamesIn(io, hub)) {
      const std::string repo = absl::StrCat(hub, "/", name);
      const absl::StatusOr<mode_t> snapshots = ModeOf(io, repo + "/snapshots");
      if (absl::StartsWith(name, "models--") && snapshots.ok() && S_ISDIR(*snapshots)) repos.push_back(repo);
    }
  }
  return repos;
}

// `model`: what the user calls the repository, for messages.
absl::StatusOr<std::string> Snapshot(Io& io, const std::string& repo, const std::string& model,
                                     const std::string& revision) {
  const std::string ref = revision.empty() ? "main" : revision, path = absl::StrCat(repo, "/refs/", ref);
  if (!absl::c_all_of(absl::StrSplit(ref, '/'), IsPlainFileName)) {
    return absl::InvalidArgumentError(absl::StrCat("the model ", Quoted(model), " has no revision ", Quoted(revision)));
  }
  const absl::StatusOr<std::string> text = ReadFileToString(io, path, 4096);
  if (!text.ok() && !absl::IsNotFound(text.status()) && !absl::IsInvalidArgument(text.status())) return text.status();
  const std::string commit(text.ok() ? absl::StripAsciiWhitespace(*text) : ref);
  if (text.ok() && !IsPlainFileName(commit)) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(path), " names the unsafe snapshot ", Quoted(commit)));
  }
  const std::string snapshots = absl::StrCat(repo, "/snapshots/");
  AUTOSCHEME_ASSIGN_OR_RETURN(const mode_t found, ModeOf(io, snapshots + commit));
  if (S_ISDIR(found)) return snapshots + commit;

  std::vector<std::string> fitting, choices;
  for (const std::string& name : NamesIn(io, snapshots)) {
    choices.push_back(absl::StrCat(model, "@", name));
    if (!text.ok() && absl::StartsWith(name, revision)) fitting.push_back(name);
  }
  if (fitting.size() == 1) return snapshots + fitting[0];
  const bool several = fitting.size() > 1;
  const std::string why = several ? absl::StrCat("several snapshots that fit, and no ", Quoted(path), " that picks one")
                          : text.ok() ? absl::StrCat("lost what ", Quoted(path), " names, ", Quoted(snapshots + commit))
                                      : absl::StrCat("neither ", Quoted(path), " nor a snapshot that fits");
  return absl::Status(several ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kNotFound,
                      absl::StrCat("the cache has ", why, ", for the model ", Quoted(model), ": ",
                                   several ? "" : "download it first (nothing is fetched from the network)",
                                   several || choices.empty() ? "" : ", or ", choices.empty() ? "" : "give one of ",
                                   FirstNames(choices)));
}

}  // namespace
}  // namespace autoscheme
