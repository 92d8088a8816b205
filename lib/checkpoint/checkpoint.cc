#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checked.h"
#include "base/count.h"
#include "base/status_macros.h"
#include "checkpoint/file_kind.h"
#include "checkpoint/header_handler.h"
#include "checkpoint/hub_cache.h"
#include "checkpoint/model_folder.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/shard_index.h"

namespace autoscheme {
namespace {

absl::StatusOr<Json> ParseConfig(const std::string& text, const std::string& path) {
  AUTOSCHEME_ASSIGN_OR_RETURN(Json config, ParseJsonFile(text, path));
  if (!config.IsObject()) return absl::DataLossError(absl::StrCat(Quoted(path), " is not a JSON object"));
  return config;
}

// Sets `bytes` and `offset` of tensors that are sorted by name, which is their order in a file that safetensors writes:
// a header (its length in 8 bytes, and JSON that is padded to a multiple of 8), and one tensor after the other.
absl::Status LayOutAsWritten(std::vector<TensorInfo>& tensors) {
  constexpr uint64_t kMostBytes = uint64_t{1} << 48;  // no sum over tensors, and none times a few, overflows below it
  uint64_t end = 0;
  std::string header = R"({"__metadata__":{"format":"pt"})";
  for (TensorInfo& tensor : tensors) {
    std::optional<uint64_t> bytes = static_cast<uint64_t>(DtypeBits(tensor.dtype) / 8);
    for (const int64_t dim : tensor.shape) bytes = bytes ? CheckedMul(*bytes, static_cast<uint64_t>(dim)) : bytes;
    if (!bytes || *bytes > kMostBytes - end) {
      return absl::InvalidArgumentError(absl::StrCat("config.json asks for more than ", kMostBytes,
                                                     " bytes of weights: at tensor ", Quoted(tensor.name), ", [",
                                                     absl::StrJoin(tensor.shape, ", "), "]"));
    }
    tensor.offset = end, tensor.bytes = *bytes, end += *bytes;
    absl::StrAppend(&header, ",\"", tensor.name, "\":{\"dtype\":\"", DtypeName(tensor.dtype), "\",\"shape\":[",
                    absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[", tensor.offset, ",", end, "]}");
  }
  const uint64_t header_bytes = 8 + (header.size() + 1 + 7) / 8 * 8;
  for (TensorInfo& tensor : tensors) tensor.offset += header_bytes;
  return absl::OkStatus();
}

}  // namespace

// Fills a Checkpoint, step by step. Used once.
class CheckpointBuilder {
 public:
  explicit CheckpointBuilder(const Context& context)
      : context_(context), io_(IoOf(context)), checkpoint_(new Checkpoint) {}

  absl::StatusOr<std::unique_ptr<Checkpoint>> Build(const std::string& model) {
    AUTOSCHEME_ASSIGN_OR_RETURN(checkpoint_->directory_, ResolveModelFolder(io_, model));
    folder_.emplace(io_, checkpoint_->directory_);
    AUTOSCHEME_RETURN_IF_ERROR(ReadConfig());
    AUTOSCHEME_RETURN_IF_ERROR(OpenWeights());
    WarnOfAdapter();
    return std::move(checkpoint_);
  }

 private:
  absl::Status ReadConfig();
  absl::Status OpenWeights();
  absl::Status OpenSet();
  absl::Status OpenIndexed();
  absl::Status OpenShards(const ShardIndex& index);
  absl::Status CheckShardsExist(const ShardIndex& index) const;
  void WarnOfIgnoredIndex() const;
  // `count`: of the shards that stay open together.
  absl::Status AddShard(const std::string& name, size_t count);
  absl::Status SortTensors(const ShardIndex& index);
  void WarnOfDisagreement(const ShardIndex& index, const std::string& index_path) const;
  void WarnOfAdapter() const;

  const Context& context_;
  Io& io_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::optional<ModelFolder> folder_;  // checkpoint_->directory_
};

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const Context& context, const std::string& model) {
  return CheckpointBuilder(context).Build(model);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::FromConfig(std::string text, const std::string& path,
                                                                   const TensorsOf& tensors_of) {
  std::unique_ptr<Checkpoint> made(new Checkpoint);
  made->directory_ = path.empty() ? "config.json" : path;
  if (!path.empty()) made->files_ = {path};
  made->config_text_ = std::move(text);
  AUTOSCHEME_ASSIGN_OR_RETURN(made->config_, ParseConfig(made->config_text_, made->directory_));
  AUTOSCHEME_ASSIGN_OR_RETURN(made->tensors_, tensors_of(made->config_));
  std::sort(made->tensors_.begin(), made->tensors_.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  AUTOSCHEME_RETURN_IF_ERROR(LayOutAsWritten(made->tensors_));
  return made;
}

absl::Status Checkpoint::CheckHasWeights() const {
  if (has_weights()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      Quoted(directory_),
      " is a config.json without weights, from which a plan can be made and nothing read: give the folder that holds "
      "the weights beside it"));
}

const TensorInfo* Checkpoint::Find(absl::string_view name) const {
  const auto at = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const TensorInfo& tensor, absl::string_view key) { return tensor.name < key; });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

absl::Status Checkpoint::Read(const TensorInfo& tensor, uint64_t offset_in_tensor, absl::Span<std::byte> out) const {
  constexpr uint64_t kDropCacheBytes = uint64_t{1} << 20;
  AUTOSCHEME_RETURN_IF_ERROR(CheckHasWeights());
  if (tensor.shard < 0 || static_cast<size_t>(tensor.shard) >= shards_.size() || offset_in_tensor > tensor.bytes ||
      out.size() > tensor.bytes - offset_in_tensor) {
    return absl::InvalidArgumentError(absl::StrCat(
        "read of ", Count(out.size(), "byte"), " at byte ", offset_in_tensor, " of tensor ", Quoted(tensor.name),
        ", which has ", Count(tensor.bytes, "byte"), " in shard ", tensor.shard, " of ", shards_.size()));
  }
  const Shard& shard = shards_[static_cast<size_t>(tensor.shard)];
  const uint64_t offset = tensor.offset + offset_in_tensor;
  absl::Status status = shard.file.ReadAt(offset, out);
  if (status.ok()) status = shard.file.CheckUnchanged();
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("tensor ", Quoted(tensor.name), " in shard ", Quoted(shard.name),
                                                    " at offset ", offset, ": ", status.message()));
  }
  if (out.size() >= kDropCacheBytes) shard.file.DropCache(offset, out.size());
  bytes_read_.fetch_add(out.size(), std::memory_order_relaxed);
  return absl::OkStatus();
}

uint64_t Checkpoint::bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }

absl::Status CheckpointBuilder::ReadConfig() {
  const std::string path = folder_->Path("config.json");
  checkpoint_->files_.push_back(path);
  absl::StatusOr<std::string> text = ReadFileToString(io_, path, Checkpoint::kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) {
    const absl::Status told = folder_->Describe(text.status());
    if (told.message() != text.status().message()) return told;
    return absl::NotFoundError(absl::StrCat(
        told.message(), "; a model's folder has one beside its weights: copy it from where they came from"));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(checkpoint_->config_text_, std::move(text));
  AUTOSCHEME_ASSIGN_OR_RETURN(checkpoint_->config_, ParseConfig(checkpoint_->config_text_, path));
  return absl::OkStatus();
}

absl::Status CheckpointBuilder::OpenWeights() {
  AUTOSCHEME_ASSIGN_OR_RETURN(const bool single, folder_->Exists("model.safetensors"));
  AUTOSCHEME_ASSIGN_OR_RETURN(const bool index, folder_->Exists("model.safetensors.index.json"));
  checkpoint_->index_ignored_ = single && index;
  if (checkpoint_->index_ignored_) WarnOfIgnoredIndex();
  if (single) {
    AUTOSCHEME_RETURN_IF_ERROR(AddShard("model.safetensors", 1));
    return SortTensors({});
  }
  return index ? OpenIndexed() : OpenSet();
}

void CheckpointBuilder::WarnOfIgnoredIndex() const {
  std::string shards;
  if (const absl::StatusOr<ShardIndex> index = ReadShardIndex(io_, folder_->Path("model.safetensors.index.json"));
      index.ok()) {
    shards = absl::StrCat(" with its ", Count(index->shards.size(), "shard"), " (", FirstNames(index->shards), ")");
  }
  context_.Warn(
      absl::StrCat(Quoted(checkpoint_->directory_), " holds both model.safetensors and ",
                   "model.safetensors.index.json: the former is read, as transformers does, and the index is ignored",
                   shards, "; if the shards are the weights that you mean, move model.safetensors away"));
}

absl::Status CheckpointBuilder::OpenSet() {
  ShardIndex set;
  AUTOSCHEME_ASSIGN_OR_RETURN(set.shards, folder_->ShardSet());
  if (set.shards.empty()) {
    return folder_->Describe(absl::NotFoundError(
        absl::StrCat("no weights in ", Quoted(checkpoint_->directory_), ": there is no model.safetensors, ",
                     "no model.safetensors.index.json and no set of shards (", "to plan a run without them give ",
                     Quoted(folder_->Path("config.json")), " itself)")));
  }
  return OpenShards(set);
}

absl::Status CheckpointBuilder::OpenIndexed() {
  const std::string path = folder_->Path("model.safetensors.index.json");
  checkpoint_->files_.push_back(path);
  AUTOSCHEME_ASSIGN_OR_RETURN(const ShardIndex index, ReadShardIndex(io_, path));
  AUTOSCHEME_RETURN_IF_ERROR(OpenShards(index));
  WarnOfDisagreement(index, path);
  return absl::OkStatus();
}

absl::Status CheckpointBuilder::OpenShards(const ShardIndex& index) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckShardsExist(index));
  for (const std::string& name : index.shards) {
    AUTOSCHEME_RETURN_IF_ERROR(context_.CheckCancelled());
    AUTOSCHEME_RETURN_IF_ERROR(AddShard(name, index.shards.size()));
  }
  return SortTensors(index);
}

// All missing shards are named at once: a person who has to download them wants the whole list.
absl::Status CheckpointBuilder::CheckShardsExist(const ShardIndex& index) const {
  constexpr size_t kMaxListed = 200;
  std::vector<std::string> missing;
  size_t count = 0;
  for (const std::string& name : index.shards) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const bool exists, folder_->Exists(name));
    if (exists) continue;
    if (++count <= kMaxListed) missing.push_back(absl::StrCat(Quoted(name), folder_->LinkNote(name)));
  }
  if (count == 0) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat(count, " of ", Count(index.shards.size(), "shard"),
                                          count == 1 ? " is" : " are", " missing in ", Quoted(checkpoint_->directory_),
                                          " (an incomplete download?): ", absl::StrJoin(missing, ", "),
                                          count > kMaxListed ? ", ..." : ""));
}

absl::Status CheckpointBuilder::AddShard(const std::string& name, size_t count) {
  // Every shard stays open, and is opened once more where it is read past the page cache; a process has others besides.
  constexpr uint64_t kOtherFiles = 32;
  Shard shard;
  shard.name = name;
  checkpoint_->files_.push_back(folder_->Path(name));
  AUTOSCHEME_ASSIGN_OR_RETURN(shard.file, File::OpenRead(io_, checkpoint_->files_.back(), 2 * count + kOtherFiles));
  AUTOSCHEME_ASSIGN_OR_RETURN(SafetensorsHeader header, ReadSafetensorsHeader(shard.file));
  const int number = static_cast<int>(checkpoint_->shards_.size());
  std::vector<TensorInfo>& tensors = checkpoint_->tensors_;
  if (header.tensors.size() > HeaderHandler::kMaxTensors - tensors.size()) {
    return absl::ResourceExhaustedError(absl::StrCat(Quoted(checkpoint_->directory_), " holds more than ",
                                                     HeaderHandler::kMaxTensors, " tensors, which is the limit"));
  }
  for (TensorInfo& tensor : header.tensors) {
    tensor.shard = number;
    tensors.push_back(std::move(tensor));
  }
  checkpoint_->shards_.push_back(std::move(shard));
  return absl::OkStatus();
}

// By name. A tensor that lies in several shards is read from the one that the index places it in.
absl::Status CheckpointBuilder::SortTensors(const ShardIndex& index) {
  std::vector<TensorInfo>& tensors = checkpoint_->tensors_;
  const auto misplaced = [&](const TensorInfo& tensor) { return index.ShardOf(tensor.name) != tensor.shard; };
  std::sort(tensors.begin(), tensors.end(), [&](const TensorInfo& a, const TensorInfo& b) {
    if (a.name != b.name) return a.name < b.name;
    return std::make_pair(misplaced(a), a.shard) < std::make_pair(misplaced(b), b.shard);
  });
  const auto shard = [&](const TensorInfo& tensor) {
    return Quoted(checkpoint_->shards_[static_cast<size_t>(tensor.shard)].name);
  };
  std::vector<std::string> copied;
  size_t kept = 0;
  for (size_t i = 1; i < tensors.size(); ++i) {
    if (tensors[i].name != tensors[kept].name) {
      if (++kept != i) tensors[kept] = std::move(tensors[i]);
      continue;
    }
    if (misplaced(tensors[kept])) {
      return absl::DataLossError(absl::StrCat("tensor ", Quoted(tensors[i].name), " is in two shards of ",
                                              Quoted(checkpoint_->directory_), ", ", shard(tensors[kept]), " and ",
                                              shard(tensors[i]), ", and nothing says which of them counts"));
    }
    if (copied.empty() || copied.back() != tensors[i].name) copied.push_back(tensors[i].name);
  }
  tensors.erase(tensors.begin() + static_cast<int64_t>(std::min(kept + 1, tensors.size())), tensors.end());
  if (!copied.empty()) {
    context_.Warn(absl::StrCat(
        Count(copied.size(), "tensor"), " of ", Quoted(checkpoint_->directory_), copied.size() == 1 ? " lies" : " lie",
        " in more than one shard, read from the one that the index names: ", FirstNames(copied)));
  }
  return absl::OkStatus();
}

// The index only says which files to open: whether a tensor that it misses or misplaces is needed, the model knows.
void CheckpointBuilder::WarnOfDisagreement(const ShardIndex& index, const std::string& index_path) const {
  std::vector<std::string> unlisted, elsewhere, absent;
  for (const TensorInfo& tensor : checkpoint_->tensors_) {
    const int shard = index.ShardOf(tensor.name);
    if (shard != tensor.shard) (shard < 0 ? unlisted : elsewhere).push_back(tensor.name);
  }
  for (const auto& [name, shard] : index.shard_of) {
    if (checkpoint_->Find(name) == nullptr) absent.push_back(name);
  }
  std::sort(absent.begin(), absent.end());
  std::vector<std::string> unread = folder_->ShardFiles();
  const auto named = [&](const std::string& name) { return absl::c_binary_search(index.shards, name); };
  unread.erase(std::remove_if(unread.begin(), unread.end(), named), unread.end());
  const auto warn = [&](const std::vector<std::string>& names, absl::string_view says, absl::string_view noun,
                        absl::string_view what) {
    if (names.empty()) return;
    context_.Warn(absl::StrCat(Quoted(index_path), says, Count(names.size(), noun), what, ": ", FirstNames(names)));
  };
  warn(absent, " lists ", "tensor", " that no shard holds (a mixture of two downloads?)");
  warn(elsewhere, " misplaces ", "tensor", " that another shard holds, from which it is read");
  warn(unlisted, " does not list ", "tensor", " that the shards hold");
  warn(unread, " does not name ", "shard", " that the folder holds, not read therefore");
}

void CheckpointBuilder::WarnOfAdapter() const {
  const std::vector<std::string> files = folder_->AdapterFiles();
  if (files.empty()) return;
  context_.Warn(absl::StrCat(Quoted(checkpoint_->directory_), " holds an adapter (LoRA) beside the model (",
                             FirstNames(files), "), which is not applied: these are the numbers of the model without ",
                             "it; merge it first if they are to be those of both"));
}

}  // namespace autoscheme
