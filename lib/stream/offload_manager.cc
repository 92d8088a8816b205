#include "autoscheme/offload_manager.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checked.h"
#include "base/count.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "stream/pages.h"
#include "stream/spill_space.h"

namespace autoscheme {
namespace {

struct Entry {
  TensorInfo info;  // clean mode: as the checkpoint has it
  uint64_t id = 0;  // order of registration
  bool resident = true;
  SpillSpace::Place place;  // offload mode, while released
  uint64_t checksum = 0;
};

absl::Status Annotate(const absl::Status& status, absl::string_view text) {
  return absl::Status(status.code(), absl::StrCat(text, ": ", status.message()));
}

std::string Describe(const TensorInfo& info) {
  return absl::StrCat(DtypeName(info.dtype), " [", absl::StrJoin(info.shape, ", "), "]");
}

// Bytes that shape and dtype ask for; nothing when a dimension is negative, the product overflows or ends in mid-byte.
std::optional<uint64_t> BytesOf(const TensorInfo& info) {
  std::optional<uint64_t> bits = DtypeBits(info.dtype);
  for (int64_t dim : info.shape) {
    if (dim < 0) return std::nullopt;
    bits = CheckedMul(*bits, static_cast<uint64_t>(dim));
    if (!bits) return std::nullopt;
  }
  return *bits % 8 == 0 ? std::optional<uint64_t>(*bits / 8) : std::nullopt;
}

// A host's callback may throw; the ledger must stay right all the same.
template <typename Callback>
absl::Status CallHost(absl::string_view verb, const std::string& name, Callback callback) {
  absl::Status status;
  try {
    status = callback();
  } catch (const std::exception& e) {
    status = absl::UnknownError(e.what());
  } catch (...) {
    status = absl::UnknownError("an exception of unknown type");
  }
  if (status.ok()) return status;
  return Annotate(status, absl::StrCat("the host could not ", verb, " tensor ", Quoted(name)));
}

}  // namespace

struct OffloadManager::Rep {
  Rep(const Context& c, const Checkpoint* ckpt, HostTensorCallbacks h, const Options& options)
      : context(c),
        checkpoint(ckpt),
        host(std::move(h)),
        mode(options.mode),
        spill(c, options.work_dir, "released tensors") {}

  // The named tensors (all if empty) that are resident or not as asked for, once each. Adds to `missing` the
  // names that were never registered.
  std::vector<Entry*> Select(absl::Span<const std::string> names, bool resident, std::vector<std::string>* missing);
  absl::Status CheckCheckpoint(absl::Span<Entry* const> wanted) const;
  absl::Status Save(absl::Span<Entry* const> wanted);
  absl::Status Free(absl::Span<Entry* const> wanted);
  absl::Status Restore(Entry& entry, Pages& buffer);
  void ForgetPlace(Entry& entry);

  const Context context;
  const Checkpoint* const checkpoint;
  const HostTensorCallbacks host;
  const OffloadMode mode;
  SpillSpace spill;
  std::vector<std::unique_ptr<Entry>> entries;  // in the order of registration
  absl::flat_hash_map<std::string, Entry*> by_name;
};

namespace {

absl::StatusOr<absl::Span<std::byte>> Room(Pages& buffer, const TensorInfo& info) {
  if (buffer.size() < info.bytes || buffer.data() == nullptr) {
    buffer = Pages();
    AUTOSCHEME_ASSIGN_OR_RETURN(buffer, Pages::Allocate(info.bytes, absl::StrCat("tensor ", Quoted(info.name))));
  }
  return absl::MakeSpan(buffer.data(), info.bytes);
}

absl::Status UnknownNames(const std::vector<std::string>& missing) {
  if (missing.empty()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("tensor ", Quoted(missing[0]), " was never handed to the offload manager (",
                                          Count(missing.size(), "such name"), ")"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<OffloadManager>> OffloadManager::Create(const Context& context,
                                                                       const Checkpoint* checkpoint,
                                                                       HostTensorCallbacks host,
                                                                       const Options& options) {
  if (options.mode != OffloadMode::kClean && options.mode != OffloadMode::kOffload) {
    return absl::InvalidArgumentError(absl::StrCat("unknown offload mode ", static_cast<int32_t>(options.mode)));
  }
  if (options.mode == OffloadMode::kClean && checkpoint == nullptr) {
    return absl::InvalidArgumentError("clean mode reads tensors again from a checkpoint, and none was given");
  }
  if (options.mode == OffloadMode::kClean) AUTOSCHEME_RETURN_IF_ERROR(checkpoint->CheckHasWeights());
  if (!host.release || !host.restore || (options.mode == OffloadMode::kOffload && !host.save)) {
    return absl::InvalidArgumentError(
        "the host must give the callbacks release and restore, and in offload mode save as well");
  }
  return std::unique_ptr<OffloadManager>(
      new OffloadManager(std::make_unique<Rep>(context, checkpoint, std::move(host), options)));
}

OffloadManager::OffloadManager(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}

OffloadManager::~OffloadManager() {
  try {
    if (absl::Status status = Reload(); !status.ok()) rep_->context.Warn(status.message());
  } catch (...) {
  }
}

absl::Status OffloadManager::Manage(TensorInfo info) {
  if (rep_->by_name.contains(info.name)) {
    return absl::AlreadyExistsError(absl::StrCat("tensor ", Quoted(info.name), " is managed already"));
  }
  if (rep_->mode == OffloadMode::kClean) {
    const TensorInfo* stored = rep_->checkpoint->Find(info.name);
    if (stored == nullptr) {
      return absl::NotFoundError(absl::StrCat("tensor ", Quoted(info.name),
                                              " is not in the checkpoint, so that it could not be read again; offload "
                                              "mode can keep it"));
    }
    if (stored->dtype != info.dtype || stored->shape != info.shape) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(info.name), " is ", Describe(*stored),
                                                     " in the checkpoint, ", Describe(info), " at the host"));
    }
    info = *stored;
  } else if (const std::optional<uint64_t> bytes = BytesOf(info); bytes != info.bytes) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(info.name), " of ", Describe(info), " has ",
                                                   bytes ? absl::StrCat(*bytes) : "no valid number of", " bytes, not ",
                                                   info.bytes));
  }
  auto entry = std::make_unique<Entry>();
  entry->info = std::move(info);
  entry->id = rep_->entries.size();
  rep_->by_name.emplace(entry->info.name, entry.get());
  rep_->entries.push_back(std::move(entry));
  return absl::OkStatus();
}

absl::Status OffloadManager::Release(absl::Span<const std::string> names) {
  std::vector<std::string> missing;
  const std::vector<Entry*> wanted = rep_->Select(names, /*resident=*/true, &missing);
  AUTOSCHEME_RETURN_IF_ERROR(UnknownNames(missing));
  AUTOSCHEME_RETURN_IF_ERROR(rep_->mode == OffloadMode::kClean ? rep_->CheckCheckpoint(wanted) : rep_->Save(wanted));
  return rep_->Free(wanted);
}

absl::Status OffloadManager::Reload(absl::Span<const std::string> names) {
  std::vector<std::string> missing;
  const std::vector<Entry*> wanted = rep_->Select(names, /*resident=*/false, &missing);
  absl::Status first;
  int failures = 0;
  Pages buffer;
  for (Entry* entry : wanted) {
    absl::Status status = rep_->Restore(*entry, buffer);
    if (status.ok()) continue;
    ++failures;
    first.Update(status);
  }
  if (failures > 0) {
    return Annotate(first, absl::StrCat(failures, " of ", wanted.size(), " released tensors could not be restored"));
  }
  return UnknownNames(missing);
}

bool OffloadManager::resident(const std::string& name) const {
  const auto found = rep_->by_name.find(name);
  return found != rep_->by_name.end() && found->second->resident;
}

uint64_t OffloadManager::resident_bytes() const {
  uint64_t bytes = 0;
  for (const auto& entry : rep_->entries) bytes += entry->resident ? entry->info.bytes : 0;
  return bytes;
}

uint64_t OffloadManager::released_bytes() const {
  uint64_t bytes = 0;
  for (const auto& entry : rep_->entries) bytes += entry->resident ? 0 : entry->info.bytes;
  return bytes;
}

std::vector<Entry*> OffloadManager::Rep::Select(absl::Span<const std::string> names, bool resident,
                                                std::vector<std::string>* missing) {
  std::vector<Entry*> selected;
  for (const std::string& name : names) {
    if (const auto found = by_name.find(name); found == by_name.end()) {
      missing->push_back(name);
    } else if (found->second->resident == resident) {
      selected.push_back(found->second);
    }
  }
  if (names.empty()) {
    for (const auto& entry : entries) {
      if (entry->resident == resident) selected.push_back(entry.get());
    }
  }
  absl::flat_hash_set<const Entry*> seen;
  selected.erase(
      std::remove_if(selected.begin(), selected.end(), [&](const Entry* entry) { return !seen.insert(entry).second; }),
      selected.end());
  return selected;
}

absl::Status OffloadManager::Rep::CheckCheckpoint(absl::Span<Entry* const> wanted) const {
  AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
  std::vector<bool> checked(checkpoint->shards().size(), false);
  for (const Entry* entry : wanted) {
    if (checked[entry->info.shard]) continue;
    checked[entry->info.shard] = true;
    if (absl::Status status = checkpoint->shards()[entry->info.shard].file.CheckUnchanged(); !status.ok()) {
      return Annotate(status, absl::StrCat("tensor ", Quoted(entry->info.name), " cannot be released"));
    }
  }
  return absl::OkStatus();
}

// All on disk, or none of them keeps a place there.
absl::Status OffloadManager::Rep::Save(absl::Span<Entry* const> wanted) {
  std::vector<uint64_t> sizes;
  for (const Entry* entry : wanted) sizes.push_back(entry->info.bytes);
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::vector<SpillSpace::Place> places, spill.Take(sizes));
  for (size_t i = 0; i < wanted.size(); ++i) wanted[i]->place = places[i];

  const auto save_one = [&](Entry& entry, Pages& buffer) -> absl::Status {
    AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
    AUTOSCHEME_ASSIGN_OR_RETURN(const absl::Span<std::byte> bytes, Room(buffer, entry.info));
    AUTOSCHEME_RETURN_IF_ERROR(CallHost("save", entry.info.name, [&] { return host.save(entry.info.name, bytes); }));
    if (bytes.empty()) return absl::OkStatus();
    AUTOSCHEME_ASSIGN_OR_RETURN(entry.checksum, spill.file(entry.place).Write(entry.id, entry.place.offset, bytes));
    return absl::OkStatus();
  };
  Pages buffer;
  for (Entry* entry : wanted) {
    absl::Status status = save_one(*entry, buffer);
    if (status.ok()) continue;
    for (Entry* other : wanted) ForgetPlace(*other);
    return status;
  }
  return absl::OkStatus();
}

absl::Status OffloadManager::Rep::Free(absl::Span<Entry* const> wanted) {
  for (size_t i = 0; i < wanted.size(); ++i) {
    const std::string& name = wanted[i]->info.name;
    absl::Status status = CallHost("release", name, [&] { return host.release(name); });
    if (status.ok()) {
      wanted[i]->resident = false;
      continue;
    }
    for (size_t kept = i; kept < wanted.size(); ++kept) ForgetPlace(*wanted[kept]);
    Pages buffer;
    for (size_t freed = i; freed-- > 0;) {
      absl::Status back = Restore(*wanted[freed], buffer);
      if (!back.ok()) status = absl::Status(status.code(), absl::StrCat(status.message(), "; then ", back.message()));
    }
    return status;
  }
  return absl::OkStatus();
}

absl::Status OffloadManager::Rep::Restore(Entry& entry, Pages& buffer) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const absl::Span<std::byte> bytes, Room(buffer, entry.info));
  if (mode == OffloadMode::kClean) {
    AUTOSCHEME_RETURN_IF_ERROR(checkpoint->Read(entry.info, 0, bytes));
    if (absl::Status status = checkpoint->shards()[entry.info.shard].file.CheckUnchanged(); !status.ok()) {
      return Annotate(status, absl::StrCat("tensor ", Quoted(entry.info.name)));
    }
  } else if (!bytes.empty()) {
    absl::Status status = spill.file(entry.place).Read(entry.id, entry.place.offset, entry.checksum, bytes);
    if (!status.ok()) return Annotate(status, absl::StrCat("tensor ", Quoted(entry.info.name)));
  }
  AUTOSCHEME_RETURN_IF_ERROR(
      CallHost("restore", entry.info.name, [&] { return host.restore(entry.info.name, bytes); }));
  entry.resident = true;
  ForgetPlace(entry);
  return absl::OkStatus();
}

void OffloadManager::Rep::ForgetPlace(Entry& entry) {
  spill.Return(entry.place);
  entry.place = {};
}

OffloadManager::Scope::Scope(OffloadManager& manager, std::vector<std::string> names) : manager_(manager) {
  std::vector<std::string> unknown;
  for (const Entry* entry : manager.rep_->Select(names, /*resident=*/true, &unknown))
    names_.push_back(entry->info.name);
  active_ = !names_.empty();
  status_ = manager.Release(names);
}

OffloadManager::Scope::~Scope() {
  try {
    if (absl::Status status = Reload(); !status.ok()) manager_.rep_->context.Warn(status.message());
  } catch (...) {
  }
}

absl::Status OffloadManager::Scope::Reload() {
  if (!active_) return absl::OkStatus();
  absl::Status status = manager_.Reload(names_);
  active_ = !status.ok();
  return status;
}

}  // namespace autoscheme
