#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/count.h"
#include "base/status_macros.h"
#include "checkpoint/file_kind.h"
#include "checkpoint/header_handler.h"
#include "checkpoint/hub_cache.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/shard_index.h"

namespace autoscheme {

// Fills a Checkpoint, step by step. Used once.
class CheckpointBuilder {
 public:
  explicit CheckpointBuilder(const Context& context)
      : context_(context), io_(IoOf(context)), checkpoint_(new Checkpoint) {}

  absl::StatusOr<std::unique_ptr<Checkpoint>> Build(const std::string& model) {
    AUTOSCHEME_ASSIGN_OR_RETURN(checkpoint_->directory_, ResolveModelFolder(io_, model));
    AUTOSCHEME_RETURN_IF_ERROR(ReadConfig());
    AUTOSCHEME_RETURN_IF_ERROR(OpenWeights());
    return std::move(checkpoint_);
  }

 private:
  absl::Status ReadConfig();
  absl::Status OpenWeights();
  absl::Status OpenSharded(const std::string& index_path);
  absl::Status CheckShardsExist(const ShardIndex& index) const;
  void WarnOfIgnoredIndex() const;
  // `count`: of the shards that stay open together.
  absl::Status AddShard(const std::string& name, size_t count);
  absl::Status SortTensors(const ShardIndex& index);
  void WarnOfDisagreement(const ShardIndex& index, const std::string& index_path) const;
  absl::Status NoWeights() const;
  // Whether there is such a file or folder. Errors other than its absence are returned.
  absl::StatusOr<bool> Exists(const std::string& name) const;
  std::string Path(absl::string_view name) const { return absl::StrCat(checkpoint_->directory_, "/", name); }

  const Context& context_;
  Io& io_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const Context& context, const std::string& model) {
  return CheckpointBuilder(context).Build(model);
}

const TensorInfo* Checkpoint::Find(absl::string_view name) const {
  const auto at = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const TensorInfo& tensor, absl::string_view key) { return tensor.name < key; });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

absl::Status Checkpoint::Read(const TensorInfo& tensor, uint64_t offset_in_tensor, absl::Span<std::byte> out) const {
  constexpr uint64_t kDropCacheBytes = uint64_t{1} << 20;
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
  constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;
  const std::string path = Path("config.json");
  checkpoint_->files_.push_back(path);
  AUTOSCHEME_ASSIGN_OR_RETURN(checkpoint_->config_text_, ReadFileToString(io_, path, kMaxConfigBytes));
  AUTOSCHEME_ASSIGN_OR_RETURN(checkpoint_->config_, ParseJsonFile(checkpoint_->config_text_, path));
  if (!checkpoint_->config_.IsObject()) {
    return absl::DataLossError(absl::StrCat(Quoted(path), " is not a JSON object"));
  }
  return absl::OkStatus();
}

absl::Status CheckpointBuilder::OpenWeights() {
  AUTOSCHEME_ASSIGN_OR_RETURN(const bool single, Exists("model.safetensors"));
  AUTOSCHEME_ASSIGN_OR_RETURN(const bool index, Exists("model.safetensors.index.json"));
  checkpoint_->index_ignored_ = single && index;
  if (checkpoint_->index_ignored_) WarnOfIgnoredIndex();
  if (single) {
    AUTOSCHEME_RETURN_IF_ERROR(AddShard("model.safetensors", 1));
    return SortTensors({});
  }
  return index ? OpenSharded(Path("model.safetensors.index.json")) : NoWeights();
}

void CheckpointBuilder::WarnOfIgnoredIndex() const {
  std::string shards;
  if (const absl::StatusOr<ShardIndex> index = ReadShardIndex(io_, Path("model.safetensors.index.json")); index.ok()) {
    shards = absl::StrCat(" with its ", Count(index->shards.size(), "shard"), " (", FirstNames(index->shards), ")");
  }
  context_.Warn(
      absl::StrCat(Quoted(checkpoint_->directory_), " holds both model.safetensors and ",
                   "model.safetensors.index.json: the former is read, as transformers does, and the index is ignored",
                   shards, "; if the shards are the weights that you mean, move model.safetensors away"));
}

absl::Status CheckpointBuilder::OpenSharded(const std::string& index_path) {
  checkpoint_->files_.push_back(index_path);
  AUTOSCHEME_ASSIGN_OR_RETURN(const ShardIndex index, ReadShardIndex(io_, index_path));
  AUTOSCHEME_RETURN_IF_ERROR(CheckShardsExist(index));
  for (const std::string& name : index.shards) {
    AUTOSCHEME_RETURN_IF_ERROR(context_.CheckCancelled());
    AUTOSCHEME_RETURN_IF_ERROR(AddShard(name, index.shards.size()));
  }
  AUTOSCHEME_RETURN_IF_ERROR(SortTensors(index));
  WarnOfDisagreement(index, index_path);
  return absl::OkStatus();
}

// All missing shards are named at once: a person who has to download them wants the whole list.
absl::Status CheckpointBuilder::CheckShardsExist(const ShardIndex& index) const {
  constexpr size_t kMaxListed = 200;
  std::vector<std::string> missing;
  size_t count = 0;
  for (const std::string& name : index.shards) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const bool exists, Exists(name));
    if (exists) continue;
    if (++count <= kMaxListed) missing.push_back(Quoted(name));
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
  checkpoint_->files_.push_back(Path(name));
  AUTOSCHEME_ASSIGN_OR_RETURN(shard.file, File::OpenRead(io_, Path(name), 2 * count + kOtherFiles));
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
  const auto warn = [&](const std::vector<std::string>& names, absl::string_view verb, absl::string_view what) {
    if (names.empty()) return;
    context_.Warn(absl::StrCat(Quoted(index_path), " ", verb, " ", Count(names.size(), "tensor"), " ", what, ": ",
                               FirstNames(names)));
  };
  warn(absent, "lists", "that no shard holds (a mixture of two downloads?)");
  warn(elsewhere, "misplaces", "that another shard holds, from which it is read");
  warn(unlisted, "does not list", "that the shards hold");
}

absl::Status CheckpointBuilder::NoWeights() const {
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth", "model.ckpt",
                           "consolidated.00.pth", "consolidated.pth", "tf_model.h5", "flax_model.msgpack"}) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const bool exists, Exists(name));
    if (!exists) continue;
    return absl::UnimplementedError(absl::StrCat(Quoted(checkpoint_->directory_), " holds ", name,
                                                 " but no safetensors; that format can run code and is never opened; "
                                                 "convert it to safetensors"));
  }
  return absl::NotFoundError(absl::StrCat("no weights in ", Quoted(checkpoint_->directory_),
                                          ": looked for model.safetensors and model.safetensors.index.json"));
}

absl::StatusOr<bool> CheckpointBuilder::Exists(const std::string& name) const {
  struct stat st;
  const std::string path = Path(name);
  const int result = RetryInterrupted([&] { return io_.Stat(path.c_str(), &st); });
  if (result == -ENOENT) return false;
  if (result < 0) return ErrnoStatus(-result, absl::StrCat("cannot open ", Quoted(path)));
  return true;
}

}  // namespace autoscheme
