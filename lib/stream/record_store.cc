#include "stream/record_store.h"

#include <atomic>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checked.h"
#include "base/count.h"
#include "base/status_macros.h"
#include "stream/pages.h"
#include "stream/spill_file.h"

namespace autoscheme {
namespace {

constexpr uint64_t kNotPut = std::numeric_limits<uint64_t>::max();

struct Record {
  uint64_t bytes = kNotPut;
  uint64_t checksum = 0;  // only of a spilled record
};

}  // namespace

struct RecordStore::Rep {
  uint64_t record_bytes = 0;
  uint64_t stride = 0;  // from one record to the next
  bool in_ram = true;
  Pages slab;
  SpillFile spill;
  std::vector<Record> records;
  std::atomic<uint64_t> bytes_written{0};
};

absl::StatusOr<std::unique_ptr<RecordStore>> RecordStore::Create(const Context& context, const Options& options) {
  if (options.count < 0 || options.count > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat("a store of ", options.count, " block inputs cannot be made"));
  }
  const uint64_t alignment = options.in_ram ? 64 : SpillFile::kAlignment;
  const uint64_t count = static_cast<uint64_t>(options.count);
  const auto padded = CheckedAdd(options.record_bytes, alignment - 1);
  const auto total = padded ? CheckedMul(*padded / alignment * alignment, count) : std::nullopt;
  if (!total || *total > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return absl::ResourceExhaustedError(
        absl::StrCat(count, " block inputs of ", options.record_bytes, " bytes are more than can be addressed"));
  }
  const std::string what = absl::StrCat(Count(count, "block input"), " of ", Count(options.record_bytes, "byte"));
  auto rep = std::make_unique<Rep>();
  rep->record_bytes = options.record_bytes;
  rep->stride = *padded / alignment * alignment;
  rep->in_ram = options.in_ram;
  if (*total > 0 && options.in_ram) {
    AUTOSCHEME_ASSIGN_OR_RETURN(rep->slab, Pages::Allocate(*total, what));
  } else if (*total > 0) {
    AUTOSCHEME_ASSIGN_OR_RETURN(rep->spill, SpillFile::Create(context, options.work_dir, *total, what));
  }
  rep->records.resize(count);
  return std::unique_ptr<RecordStore>(new RecordStore(std::move(rep)));
}

RecordStore::RecordStore(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
RecordStore::~RecordStore() = default;

absl::Status RecordStore::Put(int64_t index, absl::Span<const std::byte> bytes) {
  if (index < 0 || static_cast<size_t>(index) >= rep_->records.size() || bytes.size() > rep_->record_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("block input ", index, " of ", bytes.size(),
                                                   " bytes does not fit a store of ", rep_->records.size(),
                                                   " records of ", rep_->record_bytes, " bytes"));
  }
  Record& record = rep_->records[index];
  record.bytes = kNotPut;
  if (!bytes.empty() && rep_->in_ram) {
    std::memcpy(rep_->slab.data() + index * rep_->stride, bytes.data(), bytes.size());
  } else if (!bytes.empty()) {
    AUTOSCHEME_ASSIGN_OR_RETURN(record.checksum, rep_->spill.Write(index, index * rep_->stride, bytes));
  }
  record.bytes = bytes.size();
  rep_->bytes_written += bytes.size();
  return absl::OkStatus();
}

absl::Status RecordStore::Get(int64_t index, absl::Span<std::byte> out) {
  if (index < 0 || static_cast<size_t>(index) >= rep_->records.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("block input ", index, " is not one of ", Count(rep_->records.size(), "record")));
  }
  const Record& record = rep_->records[index];
  if (record.bytes == kNotPut) {
    return absl::FailedPreconditionError(absl::StrCat("block input ", index, " is read before it was written"));
  }
  if (record.bytes != out.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("block input ", index, " holds ", Count(record.bytes, "byte"), ", not ", out.size()));
  }
  if (out.empty()) return absl::OkStatus();
  if (!rep_->in_ram) return rep_->spill.Read(index, index * rep_->stride, record.checksum, out);
  std::memcpy(out.data(), rep_->slab.data() + index * rep_->stride, out.size());
  return absl::OkStatus();
}

void RecordStore::WillGet(int64_t index) const {
  if (rep_->in_ram || index < 0 || static_cast<size_t>(index) >= rep_->records.size()) return;
  const Record& record = rep_->records[index];
  if (record.bytes != kNotPut) rep_->spill.WillRead(index * rep_->stride, record.bytes);
}

uint64_t RecordStore::bytes_written() const { return rep_->bytes_written; }

uint64_t RecordStore::ram_bytes() const { return rep_->slab.size(); }

}  // namespace autoscheme
