// Every I/O engine: the same bytes, the planned bytes, and the way from one that fails to the next.
#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <random>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "autoscheme/block_streamer.h"
#include "base/io.h"
#include "stream/pages.h"
#include "stream/stream_model.h"
#include "support/fault_io.h"

namespace autoscheme {
namespace {

using RangeStep = BlockStreamer::RangeStep;
using Step = BlockStreamer::Step;

constexpr IoEngine kEngines[] = {IoEngine::kDirect, IoEngine::kBuffered};

std::unique_ptr<BlockStreamer> MakeStreamer(const Context& context, const Checkpoint& checkpoint,
                                            std::vector<RangeStep> order, IoEngine engine, int slots = 2) {
  BlockStreamer::Options options;
  options.slots = slots;
  options.io_engine = engine;
  auto streamer = BlockStreamer::CreateFromRanges(context, checkpoint, std::move(order), options);
  INFO(streamer.status());
  REQUIRE(streamer.ok());
  return *std::move(streamer);
}

std::vector<RangeStep> Ranges(const std::vector<Step>& order) {
  std::vector<RangeStep> ranges;
  for (const Step& step : order) {
    ranges.emplace_back();
    for (const TensorInfo* info : step) ranges.back().push_back(WholeTensor(*info));
  }
  return ranges;
}

// The engines that this kernel and the file system of the temporary folder have.
std::vector<IoEngine> EnginesHere() {
  static const std::vector<IoEngine> engines = [] {
    const StreamModel model({{{"w", {100000}}}});
    const auto checkpoint = model.Open();
    std::vector<IoEngine> here;
    for (const IoEngine engine : kEngines) {
      std::string why;
      Context context;
      context.log = [&](LogLevel, absl::string_view text) { why = std::string(text); };
      const auto streamer = MakeStreamer(context, *checkpoint, {{WholeTensor(*checkpoint->Find("w"))}}, engine, 1);
      REQUIRE(absl::IsOutOfRange(Drain(*streamer)));
      if (streamer->stats().engine == engine) {
        here.push_back(engine);
      } else {
        WARN("engine " << IoEngineName(engine) << " is skipped: " << why);
      }
    }
    return here;
  }();
  return engines;
}

// Shards of tensors of all sizes and types; U8 tensors of odd lengths put what follows at odd offsets.
StreamModel RandomModel(std::mt19937& random) {
  std::vector<std::vector<TensorSpec>> shards(1 + random() % 3);
  const Dtype dtypes[] = {Dtype::kU8, Dtype::kBF16, Dtype::kF32};
  for (size_t s = 0; s < shards.size(); ++s) {
    for (int i = 0, n = 3 + static_cast<int>(random() % 12); i < n; ++i) {
      const int64_t rows = 1 + static_cast<int64_t>(random() % (i % 4 == 0 ? 1000 : 20));
      const int64_t cols = 1 + static_cast<int64_t>(random() % (i % 5 == 0 ? 400 : 9));
      shards[s].push_back({absl::StrCat("s", s, ".t", i), {rows, cols}, dtypes[random() % 3]});
    }
  }
  return StreamModel(shards);
}

std::vector<RangeStep> RandomOrder(std::mt19937& random, const Checkpoint& checkpoint) {
  std::vector<RangeStep> order(2 + random() % 5);
  for (RangeStep& step : order) {
    for (const TensorInfo& info : checkpoint.tensors()) {
      if (random() % 3 == 0) continue;
      TensorRange range = WholeTensor(info);
      if (random() % 3 == 0) {
        range.first_row = static_cast<int64_t>(random() % range.rows);
        range.rows = 1 + static_cast<int64_t>(random() % (range.rows - range.first_row));
      }
      step.push_back(range);
    }
  }
  return order;
}

TEST_CASE("every engine brings the same bytes of any model, as many as were planned") {
  std::mt19937 random(11);
  const std::vector<IoEngine> engines = EnginesHere();
  for (int round = 0; round < 20; ++round) {
    const StreamModel model = RandomModel(random);
    const auto checkpoint = model.Open();
    const std::vector<RangeStep> order = RandomOrder(random, *checkpoint);
    uint64_t planned = 0;
    for (const IoEngine engine : engines) {
      for (int slots : {1, 2, 3}) {
        CAPTURE(round, IoEngineName(engine), slots);
        const auto streamer = MakeStreamer({}, *checkpoint, order, engine, slots);
        int steps = 0;
        CHECK(absl::IsOutOfRange(Drain(*streamer, &steps)));  // looks at every byte
        CHECK(steps == static_cast<int>(order.size()));
        CHECK(streamer->stats().bytes_read == streamer->planned_bytes());
        CHECK(streamer->stats().engine == engine);
        if (planned == 0) planned = streamer->planned_bytes();
        CHECK(streamer->planned_bytes() == planned);
      }
    }
  }
}

TEST_CASE("every engine reads tensors of many reads up to the file's last byte, and aligned as in the file") {
  const StreamModel model({{{"odd", {3}}, {"large", {2100, 5003}}, {"gap", {9}}, {"last", {5 << 20}}},
                           {{"rows", {3000, 777}, Dtype::kBF16}, {"tail", {1}}}});
  const auto checkpoint = model.Open();
  const TensorInfo &large = *checkpoint->Find("large"), &last = *checkpoint->Find("last");
  const TensorInfo &rows = *checkpoint->Find("rows"), &tail = *checkpoint->Find("tail");
  const std::vector<RangeStep> order = {{WholeTensor(large), WholeTensor(last), WholeTensor(tail)},
                                        {{&rows, 17, 1300}, WholeTensor(tail)},
                                        {{&rows, 1317, 1683}, {&large, 2099, 1}}};
  for (const IoEngine engine : EnginesHere()) {
    CAPTURE(IoEngineName(engine));
    const auto streamer = MakeStreamer({}, *checkpoint, order, engine);
    for (size_t step = 0; step < order.size(); ++step) {
      const auto view = streamer->Next();
      REQUIRE(view.ok());
      for (size_t i = 0; i < view->tensors.size(); ++i) {
        CHECK(HasExpectedBytes(view->tensors[i], view->ranges[i]));
        if (view->tensors[i].info == &rows) CHECK(reinterpret_cast<uintptr_t>(view->tensors[i].data) % 2 == 0);
      }
    }
    CHECK(streamer->stats().bytes_read == streamer->planned_bytes());
  }
}

TEST_CASE("a file whose header is of odd length is read with aligned tensors, whatever the engine") {
  const StreamModel model({{{"w", {50, 40}, Dtype::kF32}, {"v", {30}, Dtype::kF32}}});
  // One more blank in the header, as other writers leave it.
  std::string bytes = Slurp(model.ShardPath(0));
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  bytes.insert(8 + header, " ");
  ++header;
  std::memcpy(bytes.data(), &header, 8);
  std::ofstream(model.ShardPath(0), std::ios::binary) << bytes;
  const auto checkpoint = model.Open();
  const TensorInfo& w = *checkpoint->Find("w");
  const bool odd = w.offset % 4 != 0;
  for (const IoEngine engine : EnginesHere()) {
    const auto streamer =
        MakeStreamer({}, *checkpoint, {{WholeTensor(w), WholeTensor(*checkpoint->Find("v"))}}, engine);
    const auto view = streamer->Next();
    REQUIRE(view.ok());
    for (const TensorView& tensor : view->tensors) {
      CHECK(HasExpectedBytes(tensor, WholeTensor(*tensor.info)));
      CHECK(reinterpret_cast<uintptr_t>(tensor.data) % 4 == 0);
    }
  }
  CHECK(odd);
}

// A file system without O_DIRECT: it says so when a file is opened, or only when it is asked for the alignment.
struct NoDirectIo : Io {
  int at_open = EINVAL;  // 0: not there
  int alignment = 0;
  int Open(const char* path, int flags, mode_t mode) override {
    return at_open != 0 && (flags & O_DIRECT) != 0 ? -at_open : Io::Open(path, flags, mode);
  }
  int DirectAlignment(int) override { return alignment; }
};

TEST_CASE("without O_DIRECT files are read through the page cache, with one warning for the checkpoint") {
  const StreamModel model = StreamModel::Blocks(3);
  const auto read_twice = [&](NoDirectIo& io) {
    std::vector<std::string> warnings;
    Context context;
    context.io = &io;
    context.log = [&](LogLevel, absl::string_view text) { warnings.emplace_back(text); };
    const auto checkpoint = model.Open(context);
    const int descriptors = OpenDescriptors();
    for (int run = 0; run < 2; ++run) {
      const auto streamer = MakeStreamer(context, *checkpoint, Ranges(BlockSteps(*checkpoint)), IoEngine::kDirect);
      CHECK(absl::IsOutOfRange(Drain(*streamer)));
      CHECK(streamer->stats().engine == IoEngine::kBuffered);
      CHECK(streamer->stats().bytes_read == streamer->planned_bytes());
    }
    CHECK(OpenDescriptors() == descriptors);
    REQUIRE(warnings.size() == 1);
    CHECK(absl::StrContains(warnings[0], "the I/O engine direct does not work"));
    CHECK(absl::StrContains(warnings[0], "buffered is used"));
    CHECK(absl::StrContains(warnings[0], model.directory()));
  };
  for (const int error : {EPERM, ENOSYS, EINVAL, EOPNOTSUPP, ENOMEM}) {
    NoDirectIo io;
    io.at_open = error;
    read_twice(io);
  }
  for (const int alignment : {0, 65536}) {  // coarser than the slots are laid out for
    NoDirectIo io;
    io.at_open = 0, io.alignment = alignment;
    read_twice(io);
  }
}

TEST_CASE("a path that leads to another file by now is not read by the direct engine") {
  const StreamModel model = StreamModel::Blocks(2);
  const auto checkpoint = model.Open();
  const std::string path = model.ShardPath(0);
  const std::string bytes = Slurp(path);
  REQUIRE(rename(path.c_str(), (path + ".old").c_str()) == 0);
  std::ofstream(path, std::ios::binary) << std::string(bytes.size(), 'x');
  for (const IoEngine engine : EnginesHere()) {
    CHECK(absl::IsOutOfRange(Drain(*MakeStreamer({}, *checkpoint, Ranges(BlockSteps(*checkpoint)), engine))));
  }
}

TEST_CASE("EINVAL and EPERM at any read move a stream to the buffered engine, and the bytes are right") {
  // The tensors are of bytes, so that none is misaligned and all can be read directly.
  const StreamModel model({{{"blocks.0.a", {9000}}, {"blocks.1.a", {1200000}}, {"gap", {70000}}, {"blocks.1.b", {11}}},
                           {{"blocks.0.b", {8000}}, {"blocks.2.a", {6000}}}});
  for (const IoEngine engine : EnginesHere()) {
    if (engine == IoEngine::kBuffered) continue;
    for (const int error : {EINVAL, EPERM, EOPNOTSUPP, ENOSYS}) {
      for (int64_t k = 1; k < 100; ++k) {
        CAPTURE(IoEngineName(engine), error, k);
        FaultIo io;
        int warnings = 0;
        Context context;
        context.io = &io;
        context.log = [&](LogLevel, absl::string_view) { ++warnings; };
        const auto checkpoint = model.Open(context);
        io.Arm(kPread, error, k, false);
        const auto streamer = MakeStreamer(context, *checkpoint, Ranges(BlockSteps(*checkpoint)), engine);
        const absl::Status status = Drain(*streamer);
        CAPTURE(status.ToString());
        REQUIRE(absl::IsOutOfRange(status));
        REQUIRE(streamer->stats().bytes_read == streamer->planned_bytes());
        if (io.fired() == 0) break;
        REQUIRE(warnings == 1);
        REQUIRE(streamer->stats().engine > engine);
      }
    }
  }
}

TEST_CASE(
    "an error at any read is UNAVAILABLE with tensor, shard and offset, leaks nothing, and the next run is right") {
  const StreamModel model({{{"blocks.0.a", {9000}}, {"blocks.1.a", {1200000}}, {"gap", {70000}}, {"blocks.1.b", {11}}},
                           {{"blocks.0.b", {8000}}, {"blocks.2.a", {6000}}}});
  for (const IoEngine engine : EnginesHere()) {
    for (int slots : {1, 2}) {
      FaultIo io;
      Context context;
      context.io = &io;
      const auto checkpoint = model.Open(context);
      const std::vector<RangeStep> order = Ranges(ForwardAndBack(BlockSteps(*checkpoint)));
      const int descriptors = OpenDescriptors();
      int failures = 0;
      for (int64_t k = 1; k < 1000; ++k) {
        CAPTURE(IoEngineName(engine), slots, k);
        io.Arm(kPread, EIO, k, k % 2 == 0);
        {
          const auto streamer = MakeStreamer(context, *checkpoint, order, engine, slots);
          const absl::Status status = Drain(*streamer);
          if (io.fired() == 0) break;
          REQUIRE(absl::IsUnavailable(status));
          REQUIRE(absl::StrContains(status.message(), "tensor \"blocks."));
          REQUIRE(absl::StrContains(status.message(), "of shard \"model-"));
          REQUIRE(absl::StrContains(status.message(), "at offset "));
          REQUIRE(streamer->Next().status() == status);
          REQUIRE(streamer->stats().engine == engine);  // a bad disk is no reason to change the engine
        }
        REQUIRE(OpenDescriptors() == descriptors);
        io.Disarm();
        REQUIRE(absl::IsOutOfRange(Drain(*MakeStreamer(context, *checkpoint, order, engine, slots))));
        ++failures;
      }
      CHECK(failures >= 10);
    }
  }
}

TEST_CASE("short and interrupted reads change nothing, whatever the engine") {
  const StreamModel model = StreamModel::Blocks(2, 600);
  for (const IoEngine engine : EnginesHere()) {
    WatchedIo io;
    Context context;
    context.io = &io;
    const auto checkpoint = model.Open(context);
    io.max_transfer = 4096;
    io.before_read = [](int call) { return call % 3 == 0 ? -EINTR : 0; };
    const auto streamer = MakeStreamer(context, *checkpoint, Ranges(ForwardAndBack(BlockSteps(*checkpoint))), engine);
    CHECK(absl::IsOutOfRange(Drain(*streamer)));
    CHECK(streamer->stats().bytes_read == streamer->planned_bytes());
    CHECK(streamer->stats().engine == engine);
  }
}

TEST_CASE("a shard that ends early is DATA_LOSS with tensor and byte, whatever the engine") {
  for (const IoEngine engine : EnginesHere()) {
    const StreamModel model({{{"blocks.0.w", {5000}}, {"blocks.1.w", {5000}}, {"blocks.1.x", {3 << 20}}}});
    const auto checkpoint = model.Open();
    const TensorInfo& x = *checkpoint->Find("blocks.1.x");
    REQUIRE(truncate(model.ShardPath(0).c_str(), x.offset + 2000001) == 0);
    const auto streamer = MakeStreamer({}, *checkpoint, Ranges(BlockSteps(*checkpoint)), engine, 1);
    const absl::Status first = streamer->Next().status();
    CHECK(absl::IsDataLoss(first));  // the size has changed, although its own bytes are there
    const auto alone = MakeStreamer({}, *checkpoint, {{WholeTensor(x)}}, engine, 2);
    const absl::Status status = alone->Next().status();
    CHECK(absl::IsDataLoss(status));
    CHECK(absl::StrContains(status.message(), "\"blocks.1.x\""));
    CHECK(absl::StrContains(status.message(), absl::StrCat("ends at byte ", x.offset + 2000001)));
  }
}

TEST_CASE("a slow disk gives the right bytes, and the time that was waited is told") {
  const StreamModel model = StreamModel::Blocks(3);
  for (const IoEngine engine : EnginesHere()) {
    for (int slots : {1, 2}) {
      WatchedIo io;
      Context context;
      context.io = &io;
      const auto checkpoint = model.Open(context);
      io.before_read = [](int) {
        std::this_thread::sleep_for(std::chrono::milliseconds(3));
        return 0;
      };
      const auto streamer = MakeStreamer(context, *checkpoint, Ranges(BlockSteps(*checkpoint)), engine, slots);
      CHECK(absl::IsOutOfRange(Drain(*streamer)));
      CHECK(streamer->stats().stall_s >= 0.003);  // the first step at least is waited for
      CHECK(streamer->stats().read_s >= 0.003);
    }
  }
}

TEST_CASE("a cancel at any time ends every engine's reads, and a fresh stream works") {
  const StreamModel model({{{"blocks.0.a", {3 << 20}}, {"blocks.1.a", {3 << 20}}, {"blocks.2.a", {3 << 20}}}});
  std::mt19937 random(5);
  for (const IoEngine engine : EnginesHere()) {
    WatchedIo io;
    CancelToken cancel;
    Context context;
    context.io = &io;
    context.cancel = &cancel;
    const auto checkpoint = model.Open(context);
    const std::vector<RangeStep> order = Ranges(ForwardAndBack(BlockSteps(*checkpoint)));
    io.before_read = [](int) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      return 0;
    };
    int cancelled = 0;
    for (int i = 0; i < 100; ++i) {
      const auto delay = std::chrono::microseconds(random() % 3000);
      std::thread other([&] {
        std::this_thread::sleep_for(delay);
        cancel.Cancel();
      });
      absl::Status status;
      {
        const auto streamer = MakeStreamer(context, *checkpoint, order, engine, 1 + i % 3);
        while (status.ok()) status = streamer->Next().status();
      }
      other.join();
      cancel.Reset();
      REQUIRE((absl::IsCancelled(status) || absl::IsOutOfRange(status)));
      cancelled += absl::IsCancelled(status);
    }
    CHECK(cancelled > 10);
    CHECK(absl::IsOutOfRange(Drain(*MakeStreamer(context, *checkpoint, order, engine))));
  }
}

TEST_CASE("the direct engine leaves the page cache alone") {
  const StreamModel model = StreamModel::Blocks(3);
  for (const IoEngine engine : EnginesHere()) {
    if (engine == IoEngine::kBuffered) continue;
    WatchedIo io;
    Context context;
    context.io = &io;
    const auto checkpoint = model.Open(context);
    io.Clear();
    CHECK(absl::IsOutOfRange(
        Drain(*MakeStreamer(context, *checkpoint, {{WholeTensor(*checkpoint->Find("blocks.0.b"))}}, engine))));
    CHECK(io.drop_log().empty());
    const auto reads = io.read_log();
    REQUIRE(reads.size() == 1);
    CHECK(reads[0].offset % 4096 == 0);
  }
}

TEST_CASE("auto reads little, and what the page cache is to keep, with the buffered engine, and all else direct") {
  const StreamModel model({{{"w", {8 << 20}}}});
  const auto checkpoint = model.Open();
  const bool has_direct = EnginesHere().size() == 2;
  for (const bool drop : {true, false}) {
    for (const int steps : {1, 63, 64}) {
      CAPTURE(drop, steps);
      BlockStreamer::Options options;
      options.slots = 1;
      options.drop_page_cache = drop;
      const std::vector<Step> order(steps, {checkpoint->Find("w")});
      const auto streamer = *BlockStreamer::Create({}, *checkpoint, order, options);
      REQUIRE(streamer->Next().ok());
      const bool direct = drop && steps == 64 && has_direct;  // from 512 MiB on
      CHECK(streamer->stats().engine == (direct ? IoEngine::kDirect : IoEngine::kBuffered));
    }
  }
}

TEST_CASE("auto warns of no engine that does not work") {
  const StreamModel model({{{"w", {8 << 20}}}});
  NoDirectIo io;
  int warnings = 0;
  Context context;
  context.io = &io;
  context.log = [&](LogLevel, absl::string_view) { ++warnings; };
  const auto checkpoint = model.Open(context);
  const std::vector<RangeStep> order(64, {WholeTensor(*checkpoint->Find("w"))});
  const auto streamer = MakeStreamer(context, *checkpoint, order, IoEngine::kAuto, 1);
  CHECK(streamer->stats().engine == IoEngine::kDirect);
  REQUIRE(streamer->Next().ok());
  CHECK(streamer->stats().engine == IoEngine::kBuffered);
  CHECK(warnings == 0);
}

TEST_CASE("engines are known by name, and a wrong name is told the right ones") {
  for (const IoEngine engine : {IoEngine::kAuto, IoEngine::kDirect, IoEngine::kBuffered}) {
    CHECK(*IoEngineFromName(IoEngineName(engine)) == engine);
  }
  for (const char* wrong : {"mmap", "uring"}) {
    const absl::Status status = IoEngineFromName(wrong).status();
    CHECK(absl::IsInvalidArgument(status));
    CHECK(absl::StrContains(status.message(), absl::StrCat("\"", wrong, "\"; known: auto, direct, buffered")));
  }
}

}  // namespace
}  // namespace autoscheme
