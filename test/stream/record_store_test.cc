#include "stream/record_store.h"

#include <linux/magic.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "stream/stream_model.h"

namespace autoscheme {
namespace {

std::vector<std::byte> Record(int64_t index, size_t bytes) {
  std::vector<std::byte> record(bytes);
  for (size_t i = 0; i < bytes; ++i) record[i] = ExpectedByte(absl::StrCat("record ", index), i);
  return record;
}

std::unique_ptr<RecordStore> MakeStore(const Context& context, const RecordStore::Options& options) {
  auto store = RecordStore::Create(context, options);
  INFO(store.status());
  REQUIRE(store.ok());
  return *std::move(store);
}

RecordStore::Options SpillOptions(const std::string& dir, int64_t count, uint64_t record_bytes) {
  RecordStore::Options options;
  options.count = count;
  options.record_bytes = record_bytes;
  options.in_ram = false;
  options.work_dir = dir;
  return options;
}

// Notes what it is asked to read ahead, and refuses.
class NotingIo : public Io {
 public:
  int WillNeed(int, off_t offset, off_t size) override {
    hints.emplace_back(offset, size);
    return -EIO;
  }
  std::vector<std::pair<off_t, off_t>> hints;
};

TEST_CASE("a hint names the record's bytes on disk, and its failure harms nothing") {
  const TempDir dir;
  NotingIo io;
  Context context;
  context.io = &io;
  const auto store = MakeStore(context, SpillOptions(dir.path(), 3, 5000));
  const std::vector<std::byte> record = Record(1, 4999);
  REQUIRE(store->Put(1, record).ok());
  for (const int64_t index : {-1, 0, 1, 3}) store->WillGet(index);  // only 1 was put
  CHECK(io.hints == std::vector<std::pair<off_t, off_t>>{{8192, 4999}});
  std::vector<std::byte> back(4999);
  REQUIRE(store->Get(1, absl::MakeSpan(back)).ok());
  CHECK(back == record);

  RecordStore::Options in_ram = SpillOptions(dir.path(), 3, 5000);
  in_ram.in_ram = true;
  const auto memory = MakeStore(context, in_ram);
  REQUIRE(memory->Put(0, record).ok());
  memory->WillGet(0);
  CHECK(io.hints.size() == 1);
}

TEST_CASE("block inputs written forward are read backward, from RAM and from disk") {
  const TempDir dir;
  for (bool in_ram : {true, false}) {
    CAPTURE(in_ram);
    RecordStore::Options options = SpillOptions(dir.path(), 20, 10007);
    options.in_ram = in_ram;
    const auto store = MakeStore({}, options);
    const uint64_t held = store->ram_bytes();
    if (in_ram) CHECK(held >= 20 * 10007);
    if (in_ram) CHECK(held < 20 * (10007 + 64) + 4096);  // whole pages
    if (!in_ram) CHECK(held == 0);
    uint64_t written = 0;
    for (int i = 0; i < 20; ++i) {
      const std::vector<std::byte> record = Record(i, 10007 - i);  // a last batch is smaller
      REQUIRE(store->Put(i, record).ok());
      written += record.size();
    }
    CHECK(store->bytes_written() == written);
    for (int round = 0; round < 2; ++round) {
      for (int i = 19; i >= 0; --i) {
        std::vector<std::byte> out(10007 - i);
        REQUIRE(store->Get(i, absl::MakeSpan(out)).ok());
        CHECK(out == Record(i, 10007 - i));
      }
    }
    CHECK(std::filesystem::is_empty(dir.path()));  // the spill file has no name
  }
}

TEST_CASE("a record can be replaced, also by a shorter or an empty one") {
  const TempDir dir;
  for (bool in_ram : {true, false}) {
    RecordStore::Options options = SpillOptions(dir.path(), 2, 100);
    options.in_ram = in_ram;
    const auto store = MakeStore({}, options);
    REQUIRE(store->Put(1, Record(1, 100)).ok());
    REQUIRE(store->Put(1, Record(7, 60)).ok());
    std::vector<std::byte> out(60);
    REQUIRE(store->Get(1, absl::MakeSpan(out)).ok());
    CHECK(out == Record(7, 60));
    REQUIRE(store->Put(1, {}).ok());
    CHECK(store->Get(1, {}).ok());
  }
}

TEST_CASE("wrong indexes, sizes and unwritten records are errors with the numbers") {
  const TempDir dir;
  for (bool in_ram : {true, false}) {
    RecordStore::Options options = SpillOptions(dir.path(), 3, 100);
    options.in_ram = in_ram;
    const auto store = MakeStore({}, options);
    std::vector<std::byte> out(50);
    CHECK(absl::IsInvalidArgument(store->Put(3, Record(0, 10))));
    CHECK(absl::IsInvalidArgument(store->Put(-1, Record(0, 10))));
    CHECK(absl::IsInvalidArgument(store->Put(0, Record(0, 101))));
    CHECK(absl::IsInvalidArgument(store->Get(3, absl::MakeSpan(out))));
    CHECK(absl::IsFailedPrecondition(store->Get(0, absl::MakeSpan(out))));
    REQUIRE(store->Put(0, Record(0, 51)).ok());
    const absl::Status status = store->Get(0, absl::MakeSpan(out));
    CHECK(absl::IsInvalidArgument(status));
    CHECK(absl::StrContains(status.message(), "51"));
    CHECK(absl::StrContains(status.message(), "50"));
  }
}

TEST_CASE("sizes beyond any machine are refused") {
  RecordStore::Options options;
  options.count = 10;
  for (uint64_t huge : {UINT64_MAX, UINT64_MAX / 10, uint64_t{1} << 60}) {
    options.record_bytes = huge;
    for (bool in_ram : {true, false}) {
      options.in_ram = in_ram;
      CHECK(absl::IsResourceExhausted(RecordStore::Create({}, options).status()));
    }
  }
  options.count = -1;
  CHECK(absl::IsInvalidArgument(RecordStore::Create({}, options).status()));
}

TEST_CASE("a store of nothing is fine") {
  const TempDir dir;
  for (bool in_ram : {true, false}) {
    RecordStore::Options options = SpillOptions(dir.path(), 0, 100);
    options.in_ram = in_ram;
    CHECK(MakeStore({}, options)->bytes_written() == 0);
  }
}

TEST_CASE("a full disk and a missing folder are found when the store is made") {
  const TempDir dir;
  WatchedIo io;
  Context context;
  context.io = &io;
  io.before_allocate = [](int) { return -ENOSPC; };
  const absl::Status full = RecordStore::Create(context, SpillOptions(dir.path(), 5, 8192)).status();
  CHECK(absl::IsResourceExhausted(full));
  CHECK(absl::StrContains(full.message(), "40960"));
  CHECK(absl::StrContains(full.message(), dir.path()));
  CHECK(std::filesystem::is_empty(dir.path()));
  const std::string missing = dir.path() + "/missing";
  const absl::Status absent = RecordStore::Create({}, SpillOptions(missing, 5, 8192)).status();
  CHECK(absl::IsNotFound(absent));
  CHECK(absl::StrContains(absent.message(), missing));
  CHECK(absl::StrContains(absent.message(), "(option work_dir)"));
  CHECK(absl::StrContains(absent.message(), "it was to hold 5 block inputs of 8192 bytes"));
}

TEST_CASE("spilled bytes that come back changed are DATA_LOSS") {
  const TempDir dir;
  WatchedIo io;
  Context context;
  context.io = &io;
  const auto store = MakeStore(context, SpillOptions(dir.path(), 4, 5000));
  for (int i = 0; i < 4; ++i) REQUIRE(store->Put(i, Record(i, 5000)).ok());
  std::vector<std::byte> out(5000);

  SECTION("one flipped bit") {
    for (size_t byte : {0, 31, 32, 4991, 4999}) {
      io.after_read = [=](int, void* data, size_t) { static_cast<unsigned char*>(data)[byte] ^= 4; };
      const absl::Status status = store->Get(2, absl::MakeSpan(out));
      CHECK(absl::IsDataLoss(status));
      CHECK(absl::StrContains(status.message(), "record 2"));
    }
  }
  SECTION("another record's bytes") {
    const std::vector<std::byte> other = Record(1, 5000);
    io.after_read = [&](int, void* data, size_t size) { std::memcpy(data, other.data(), size); };
    CHECK(absl::IsDataLoss(store->Get(2, absl::MakeSpan(out))));
    CHECK(store->Get(1, absl::MakeSpan(out)).ok());
  }
  io.after_read = nullptr;
  CHECK(store->Get(2, absl::MakeSpan(out)).ok());
  CHECK(out == Record(2, 5000));
}

TEST_CASE("a failed write or read of the spill file is an error, and the same call then works") {
  const TempDir dir;
  WatchedIo io;
  Context context;
  context.io = &io;
  for (int error : {EIO, ENOSPC, EDQUOT}) {
    const auto store = MakeStore(context, SpillOptions(dir.path(), 3, 6000));
    std::vector<std::byte> out(6000);
    for (int i = 0; i < 3; ++i) {
      io.before_write = [=](int) { return -error; };
      const absl::Status status = store->Put(i, Record(i, 6000));
      CHECK(status.code() == (error == EIO ? absl::StatusCode::kUnavailable : absl::StatusCode::kResourceExhausted));
      CHECK(absl::StrContains(status.message(), "6000"));
      CHECK(absl::IsFailedPrecondition(store->Get(i, absl::MakeSpan(out))));
      io.before_write = nullptr;
      CHECK(store->Put(i, Record(i, 6000)).ok());
      io.before_read = [](int) { return -EIO; };
      CHECK(absl::IsUnavailable(store->Get(i, absl::MakeSpan(out))));
      io.before_read = nullptr;
      CHECK(store->Get(i, absl::MakeSpan(out)).ok());
      CHECK(out == Record(i, 6000));
    }
  }
}

TEST_CASE("short and interrupted transfers change nothing") {
  const TempDir dir;
  WatchedIo io;
  Context context;
  context.io = &io;
  io.max_transfer = 7;
  io.before_write = io.before_read = [](int call) { return call % 3 == 0 ? -EINTR : 0; };
  const auto store = MakeStore(context, SpillOptions(dir.path(), 3, 500));
  for (int i = 0; i < 3; ++i) REQUIRE(store->Put(i, Record(i, 500)).ok());
  for (int i = 0; i < 3; ++i) {
    std::vector<std::byte> out(500);
    REQUIRE(store->Get(i, absl::MakeSpan(out)).ok());
    CHECK(out == Record(i, 500));
  }
}

TEST_CASE("spilled bytes leave the page cache, written and read") {
  const TempDir dir;
  WatchedIo io;
  Context context;
  context.io = &io;
  const auto store = MakeStore(context, SpillOptions(dir.path(), 3, 8192));
  for (int i = 0; i < 3; ++i) REQUIRE(store->Put(i, Record(i, 8192)).ok());
  const std::vector<WatchedIo::Access> expected = {{0, 8192}, {8192, 8192}, {16384, 8192}};
  CHECK(io.drop_log() == expected);
  io.Clear();
  std::vector<std::byte> out(8192);
  for (int i = 0; i < 3; ++i) REQUIRE(store->Get(i, absl::MakeSpan(out)).ok());
  CHECK(io.drop_log() == expected);
}

TEST_CASE("a spill folder that vanishes harms no store that is open, and is named by the next") {
  const TempDir dir;
  const std::string folder = dir.path() + "/work";
  std::filesystem::create_directory(folder);
  const auto store = MakeStore({}, SpillOptions(folder, 3, 5000));
  REQUIRE(store->Put(0, Record(0, 5000)).ok());
  std::filesystem::remove_all(folder);
  REQUIRE(store->Put(1, Record(1, 5000)).ok());
  std::vector<std::byte> out(5000);
  for (int i : {0, 1}) {
    REQUIRE(store->Get(i, absl::MakeSpan(out)).ok());
    CHECK(out == Record(i, 5000));
  }
  const absl::Status gone = RecordStore::Create({}, SpillOptions(folder, 3, 5000)).status();
  CHECK(absl::IsNotFound(gone));
  CHECK(absl::StrContains(gone.message(), folder));
}

TEST_CASE("a spill folder in memory is warned of, one on a disk is not") {
  const TempDir dir;
  struct TypedIo : Io {
    long type = 0;
    int Fstatfs(int fd, struct statfs* out) override {
      const int result = Io::Fstatfs(fd, out);
      out->f_type = type;
      return result;
    }
  } io;
  std::vector<std::string> warnings;
  Context context;
  context.io = &io;
  context.log = [&](LogLevel, absl::string_view text) { warnings.emplace_back(text); };
  io.type = EXT4_SUPER_MAGIC;
  MakeStore(context, SpillOptions(dir.path(), 3, 5000));
  CHECK(warnings.empty());
  for (const long type : {long{TMPFS_MAGIC}, long{RAMFS_MAGIC}}) {
    warnings.clear();
    io.type = type;
    MakeStore(context, SpillOptions(dir.path(), 3, 5000));
    REQUIRE(warnings.size() == 1);
    CHECK(absl::StrContains(warnings[0], dir.path()));
    CHECK(absl::StrContains(warnings[0], "24576 bytes"));
  }
}

}  // namespace
}  // namespace autoscheme
