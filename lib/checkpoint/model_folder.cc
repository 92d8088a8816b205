#include "checkpoint/model_folder.h"

#include <fnmatch.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "checkpoint/file_kind.h"
#include "checkpoint/hub_cache.h"

namespace autoscheme {
namespace {

// Patterns as in a shell.
constexpr char kShards[] = "*-[0-9][0-9][0-9][0-9][0-9]-of-[0-9]*.safetensors";
constexpr char kUnfinished[] = "*.incomplete *.part *.partial *.crdownload *.aria2";

// What a file is and what to do about it, by the first patterns that its name matches.
const struct Kind {
  const char* patterns;
  const char* text;  // empty: no weights
} kKinds[] = {
    {"model.safetensors training_args.bin optimizer.* scheduler.* scaler.* rng_state*", ""},
    {"adapter_config.json adapter_model*",
     "an adapter (LoRA): merge it into its base model (merge_and_unload of peft, then save_pretrained) and give that "
     "folder"},
    {"*.gguf *.ggml ggml-model*.bin",
     "a format of llama.cpp (GGUF): give the Hugging Face folder that it was converted from"},
    {"consolidated*.pth", "Meta's original format: convert it with transformers (convert_llama_weights_to_hf.py)"},
    {"consolidated*.safetensors",
     "Mistral's original format: convert it with transformers (convert_mistral_weights_to_hf.py)"},
    {"*.bin *.bin.index.json *.pt *.pth *.ckpt *.pkl",
     "a format that can run code and is never opened: convert it to safetensors (save_pretrained of transformers)"},
    {"*.h5 *.msgpack *.onnx *.ot *.npz", "weights of another framework: convert them to safetensors"},
    {kShards, ""},
    {"*.safetensors", "weights under another name, as of a variant: to use it rename it to model.safetensors"},
};

bool Matches(const std::string& name, const char* patterns) {
  const std::vector<std::string> each = absl::StrSplit(patterns, ' ');
  return std::any_of(each.begin(), each.end(),
                     [&](const std::string& pattern) { return fnmatch(pattern.c_str(), name.c_str(), 0) == 0; });
}

bool IsLfsPointer(Io& io, const std::string& path) {
  const absl::StatusOr<File> file = File::OpenRead(io, path);
  const absl::StatusOr<FileKind> kind = file.ok() ? RecognizeFile(*file) : file.status();
  return kind.ok() && kind->sort == FileKind::kLfsPointer;
}

}  // namespace

std::vector<std::string> NamesIn(Io& io, const std::string& folder) {
  std::vector<std::string> names;
  if (io.List(folder.c_str(), &names) < 0) names.clear();
  std::sort(names.begin(), names.end());
  return names;
}

ModelFolder::ModelFolder(Io& io, const std::string& path)
    : io_(io), path_(path), is_snapshot_(fnmatch("*/snapshots/*", path.c_str(), 0) == 0), names_(NamesIn(io, path)) {}

std::string ModelFolder::Path(const std::string& name) const {
  std::string path = absl::StrCat(path_, "/", name);
  if (!is_snapshot_) return path;
  const absl::StatusOr<std::string> text = ReadFileToString(io_, path, 512);
  if (!text.ok() || !absl::StartsWith(*text, "../../blobs/")) return path;
  const absl::string_view blob = absl::StripAsciiWhitespace(absl::string_view(*text).substr(12));
  return IsPlainFileName(blob) ? absl::StrCat(path_, "/../../blobs/", blob) : path;
}

absl::StatusOr<bool> ModelFolder::Exists(const std::string& name) const {
  struct stat st;
  const std::string path = Path(name);
  const int result = RetryInterrupted([&] { return io_.Stat(path.c_str(), &st); });
  if (result == -ENOENT) return false;
  if (result < 0) return ErrnoStatus(-result, absl::StrCat("cannot open ", Quoted(path)));
  return true;
}

std::string ModelFolder::LinkNote(const std::string& name) const {
  const std::string here = absl::StrCat(path_, "/", name), path = Path(name);
  std::string target;
  if (io_.Readlink(here.c_str(), &target) < 0) target = path == here ? "" : path.substr(path_.size() + 1);
  return target.empty() ? "" : absl::StrCat(", a link to ", Quoted(target));
}

std::vector<std::string> ModelFolder::Files(const char* patterns, const char* but) const {
  std::vector<std::string> files;
  absl::c_copy_if(names_, std::back_inserter(files),
                  [&](const std::string& name) { return Matches(name, patterns) && !Matches(name, but); });
  return files;
}

std::vector<std::string> ModelFolder::ShardFiles() const { return Files(kShards, "adapter_* consolidated*"); }

absl::StatusOr<std::vector<std::string>> ModelFolder::ShardSet() const {
  std::map<std::string, uint64_t> present;  // files by their name without its number: "model-*-of-00003.safetensors"
  for (std::string name : ShardFiles()) ++present[name.replace(name.rfind("-of-") - 5, 5, "*")];
  std::string set;
  uint64_t shards = 0;
  bool complete = false;
  for (const auto& [name, files] : present) {
    const uint64_t count = std::strtoull(name.c_str() + name.rfind("-of-") + 4, nullptr, 10);
    if (count == 0 || count > 99999 || (files != count && !set.empty())) continue;
    if (files == count && complete) {
      return absl::InvalidArgumentError(absl::StrCat(Quoted(path_), " holds several sets of shards and no index: ",
                                                     Quoted(set), " and ", Quoted(name), "; move all but one away"));
    }
    set = name;
    shards = count;
    complete = files == count;
  }
  std::vector<std::string> files;
  for (uint64_t i = 1; i <= shards; ++i) {
    files.push_back(set);
    files.back().replace(set.rfind("*-of-"), 1, absl::StrCat(absl::Dec(i, absl::kZeroPad5)));
  }
  return files;
}

absl::Status ModelFolder::Describe(const absl::Status& error) const {
  std::string text(error.message());
  std::map<const Kind*, std::vector<std::string>> found;
  std::vector<std::string> pointers, unfinished, models;
  for (const std::string& name : names_) {
    const std::string path = Path(name), link = LinkNote(name);
    if (absl::c_linear_search(NamesIn(io_, path), "config.json")) models.push_back(name);
    const auto kind = std::find_if(std::begin(kKinds), std::end(kKinds),
                                   [&](const Kind& each) { return Matches(name, each.patterns); });
    struct stat st;
    if (io_.Stat(path.c_str(), &st) < 0) {
      absl::StrAppend(&text, "; it holds ", Quoted(name), link, ", which is not there: download the model again");
    } else if (Matches(name, kUnfinished)) {
      unfinished.push_back(name);
    } else if (kind != std::end(kKinds) && *kind->text != '\0' && !S_ISDIR(st.st_mode)) {
      (st.st_size < 1024 && IsLfsPointer(io_, path) ? pointers : found[kind]).push_back(name);
    }
  }
  // Where huggingface_hub keeps what it has not finished.
  for (const std::string& name :
       NamesIn(io_, path_ + (is_snapshot_ ? "/../../blobs" : "/.cache/huggingface/download"))) {
    if (Matches(name, kUnfinished)) unfinished.push_back(name);
  }
  const auto say = [&](const std::vector<std::string>& names, absl::string_view what) {
    if (!names.empty()) absl::StrAppend(&text, "; it holds ", FirstNames(names), ", ", what);
  };
  say(models, "where a config.json lies: give the path of that folder");
  say(unfinished, "an unfinished download: download the model again");
  say(pointers, absl::StrCat("Git LFS pointers: ", Remedy(FileKind::kLfsPointer)));
  for (const auto& [kind, names] : found) say(names, kind->text);
  return absl::Status(found.empty() ? error.code() : absl::StatusCode::kUnimplemented, text);
}

}  // namespace autoscheme
