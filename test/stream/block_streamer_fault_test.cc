// Faults, cancels and early ends of a stream: never a hang, never a partial block, and the next stream is fine.
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <random>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "autoscheme/block_streamer.h"
#include "stream/stream_model.h"

namespace autoscheme {
namespace {

using Clock = std::chrono::steady_clock;
using Step = BlockStreamer::Step;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::unique_ptr<BlockStreamer> MakeStreamer(const Context& context, const Checkpoint& checkpoint,
                                            std::vector<Step> order, int slots = 2) {
  BlockStreamer::Options options;
  options.slots = slots;
  auto streamer = BlockStreamer::Create(context, checkpoint, std::move(order), options);
  INFO(streamer.status());
  REQUIRE(streamer.ok());
  return *std::move(streamer);
}

TEST_CASE("a shard that ends early is DATA_LOSS with tensor, shard and offset, blocks before it arrive") {
  const StreamModel model({{{"blocks.0.w", {5000}}, {"blocks.1.w", {5000}}, {"blocks.1.x", {5000}}}});
  for (int slots : {1, 2}) {
    const auto checkpoint = model.Open();
    const TensorInfo& x = *checkpoint->Find("blocks.1.x");
    struct stat before;
    REQUIRE(stat(model.ShardPath(0).c_str(), &before) == 0);
    REQUIRE(truncate(model.ShardPath(0).c_str(), x.offset + 100) == 0);
    const auto streamer = MakeStreamer({}, *checkpoint, {{checkpoint->Find("blocks.1.w"), &x}}, slots);
    const absl::Status status = streamer->Next().status();
    CHECK(absl::IsDataLoss(status));
    CHECK(absl::StrContains(status.message(), "\"blocks.1.x\""));
    CHECK(absl::StrContains(status.message(), "model.safetensors"));
    CHECK(absl::StrContains(status.message(), absl::StrCat("offset ", x.offset)));
    CHECK(absl::StrContains(status.message(), absl::StrCat(x.offset + 100)));
    CHECK(streamer->Next().status() == status);
    REQUIRE(truncate(model.ShardPath(0).c_str(), before.st_size) == 0);
  }
}

TEST_CASE("a shard that shrinks while it is streamed is DATA_LOSS, and blocks delivered before were whole") {
  const StreamModel model = StreamModel::Blocks(6);
  const auto checkpoint = model.Open();
  const std::vector<Step> blocks = BlockSteps(*checkpoint);
  const auto streamer = MakeStreamer({}, *checkpoint, ForwardAndBack(blocks), 1);
  for (int step = 0; step < 3; ++step) {
    const auto view = streamer->Next();
    REQUIRE(view.ok());
    for (size_t i = 0; i < view->tensors.size(); ++i) CHECK(HasExpectedBytes(view->tensors[i], view->ranges[i]));
  }
  REQUIRE(truncate(model.ShardPath(0).c_str(), 3000) == 0);
  const absl::Status status = streamer->Next().status();
  CHECK(absl::IsDataLoss(status));
  CHECK(absl::StrContains(status.message(), "step 3"));
  CHECK(absl::StrContains(status.message(), "\"blocks.3."));
  CHECK(streamer->Next().status() == status);
}

TEST_CASE("a shard that is written to while it is streamed is DATA_LOSS") {
  const StreamModel model = StreamModel::Blocks(3);
  const auto checkpoint = model.Open();
  const auto streamer = MakeStreamer({}, *checkpoint, BlockSteps(*checkpoint), 1);
  REQUIRE(streamer->Next().ok());
  const struct timespec times[2] = {{1, 0}, {1, 0}};
  REQUIRE(utimensat(AT_FDCWD, model.ShardPath(1).c_str(), times, 0) == 0);
  const absl::Status status = streamer->Next().status();
  CHECK(absl::IsDataLoss(status));
  CHECK(absl::StrContains(status.message(), "changed"));
  CHECK(absl::StrContains(status.message(), "\"blocks.1."));
}

TEST_CASE("an error at any read ends the stream with that error, and a new stream works") {
  const StreamModel model = StreamModel::Blocks(4);
  WatchedIo io;
  Context context;
  context.io = &io;
  const auto checkpoint = model.Open(context);
  const std::vector<Step> order = ForwardAndBack(BlockSteps(*checkpoint));
  io.Clear();
  CHECK(absl::IsOutOfRange(Drain(*MakeStreamer(context, *checkpoint, order))));
  const int reads = io.reads();
  REQUIRE(reads == 16);  // two pieces per block

  for (bool forever : {false, true}) {
    for (int slots : {1, 2, 3}) {
      for (int k = 0; k < reads; ++k) {
        CAPTURE(forever, slots, k);
        io.before_read = [=](int call) { return call == k || (forever && call > k) ? -EIO : 0; };
        io.Clear();
        int steps = 0;
        {
          const auto streamer = MakeStreamer(context, *checkpoint, order, slots);
          const absl::Status status = Drain(*streamer, &steps);
          REQUIRE(absl::IsUnavailable(status));
          REQUIRE(absl::StrContains(status.message(), "tensor \"blocks."));
          REQUIRE(absl::StrContains(status.message(), absl::StrCat("step ", steps, ",")));
          REQUIRE(streamer->Next().status() == status);
        }
        REQUIRE(steps <= k);
        io.before_read = nullptr;
      }
    }
  }
  CHECK(absl::IsOutOfRange(Drain(*MakeStreamer(context, *checkpoint, order))));
}

TEST_CASE("interrupted and short reads change nothing") {
  const StreamModel model = StreamModel::Blocks(2, 6);
  WatchedIo io;
  Context context;
  context.io = &io;
  const auto checkpoint = model.Open(context);
  io.max_transfer = 1;
  io.before_read = [](int call) { return call % 2 == 0 ? -EINTR : 0; };
  const auto streamer = MakeStreamer(context, *checkpoint, ForwardAndBack(BlockSteps(*checkpoint)));
  int steps = 0;
  CHECK(absl::IsOutOfRange(Drain(*streamer, &steps)));
  CHECK(steps == 4);
  CHECK(streamer->stats().bytes_read == streamer->planned_bytes());
}

TEST_CASE("a cancel before or between steps is CANCELLED, and stays so when the token is reset") {
  const StreamModel model = StreamModel::Blocks(4);
  const auto checkpoint = model.Open();
  CancelToken cancel;
  Context context;
  context.cancel = &cancel;
  const std::vector<Step> blocks = BlockSteps(*checkpoint);
  for (int slots : {1, 2}) {
    for (int after = 0; after <= 4; ++after) {
      const auto streamer = MakeStreamer(context, *checkpoint, blocks, slots);
      for (int step = 0; step < after; ++step) REQUIRE(streamer->Next().ok());
      cancel.Cancel();
      CHECK(absl::IsCancelled(streamer->Next().status()));
      cancel.Reset();
      CHECK(absl::IsCancelled(streamer->Next().status()));
    }
  }
  CHECK(absl::IsOutOfRange(Drain(*MakeStreamer(context, *checkpoint, blocks))));
}

TEST_CASE("a cancel from another thread at any time never hangs, and a fresh stream works") {
  const StreamModel model = StreamModel::Blocks(6);
  WatchedIo io;
  io.before_read = [](int) {
    std::this_thread::sleep_for(std::chrono::microseconds(50));  // so that a run is long enough to be cut anywhere
    return 0;
  };
  CancelToken cancel;
  Context context;
  context.io = &io;
  context.cancel = &cancel;
  const auto checkpoint = model.Open(context);
  const std::vector<Step> order = ForwardAndBack(BlockSteps(*checkpoint));
  const auto run = [&](int slots) {
    const auto streamer = MakeStreamer(context, *checkpoint, order, slots);
    absl::Status status;
    while (status.ok()) status = streamer->Next().status();
    return status;
  };
  Clock::time_point start = Clock::now();
  for (int i = 0; i < 5; ++i) REQUIRE(absl::IsOutOfRange(run(2)));
  const auto longest_us = static_cast<int>(SecondsSince(start) / 5 * 1.2e6) + 1;

  std::mt19937 random(20240601);
  int cancelled = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto delay = std::chrono::microseconds(random() % longest_us);
    std::thread other([&] {
      std::this_thread::sleep_for(delay);
      cancel.Cancel();
    });
    const absl::Status status = run(1 + i % 3);
    other.join();
    cancel.Reset();
    REQUIRE((absl::IsCancelled(status) || absl::IsOutOfRange(status)));
    cancelled += absl::IsCancelled(status);
    if (i % 100 == 0) REQUIRE(absl::IsOutOfRange(Drain(*MakeStreamer(context, *checkpoint, order))));
  }
  CHECK(cancelled > 100);
  CHECK(absl::IsOutOfRange(Drain(*MakeStreamer(context, *checkpoint, order))));
}

// Reads that stall until they are let go, as on a network file system.
struct Stall {
  std::mutex mutex;
  std::condition_variable changed;
  bool stalled = false, open = false;

  int Wait() {
    std::unique_lock<std::mutex> lock(mutex);
    stalled = true;
    changed.notify_all();
    changed.wait(lock, [&] { return open; });
    return 0;
  }
  void AwaitStalled() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return stalled; });
  }
  void LetGo() {
    std::lock_guard<std::mutex> lock(mutex);
    open = true;
    changed.notify_all();
  }
};

TEST_CASE("a cancel is seen while the disk stalls") {
  const StreamModel model = StreamModel::Blocks(3);
  WatchedIo io;
  CancelToken cancel;
  Context context;
  context.io = &io;
  context.cancel = &cancel;
  const auto checkpoint = model.Open(context);
  Stall stall;
  io.before_read = [&](int) { return stall.Wait(); };
  const auto streamer = MakeStreamer(context, *checkpoint, BlockSteps(*checkpoint));
  std::thread other([&] {
    stall.AwaitStalled();
    cancel.Cancel();
  });
  const absl::Status status = streamer->Next().status();  // returns although the read has not
  CHECK(absl::IsCancelled(status));
  other.join();
  stall.LetGo();
}

TEST_CASE("the destructor waits for one read at most, however much is left") {
  const StreamModel model({{{"w", {20, 1 << 20}}}});
  WatchedIo io;
  Context context;
  context.io = &io;
  const auto checkpoint = model.Open(context);
  io.Clear();
  Stall stall;
  io.before_read = [&](int) { return stall.Wait(); };
  auto streamer = MakeStreamer(context, *checkpoint, {{checkpoint->Find("w")}, {checkpoint->Find("w")}});
  stall.AwaitStalled();
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // by now the destructor has asked the reader to stop
    stall.LetGo();
  });
  streamer.reset();
  other.join();
  CHECK(io.reads() == 1);
}

TEST_CASE("a streamer can be dropped at any step without being drained") {
  const StreamModel model = StreamModel::Blocks(5);
  const auto checkpoint = model.Open();
  const std::vector<Step> order = ForwardAndBack(BlockSteps(*checkpoint));
  for (int slots : {1, 2, 4}) {
    for (int steps = 0; steps <= 10; ++steps) {
      const auto streamer = MakeStreamer({}, *checkpoint, order, slots);
      for (int step = 0; step < steps; ++step) CHECK(streamer->Next().ok());
    }
  }
}

#ifdef __GLIBC__
TEST_CASE("without a thread to read ahead, steps are read when they are asked for") {
  const StreamModel model = StreamModel::Blocks(3);
  std::string warning;
  Context context;
  const auto checkpoint = model.Open();
  context.log = [&](LogLevel, absl::string_view text) { warning = std::string(text); };
  // A default stack that no address space holds: pthread_create fails with EAGAIN.
  pthread_attr_t usual, huge;
  REQUIRE(pthread_getattr_default_np(&usual) == 0);
  REQUIRE(pthread_attr_init(&huge) == 0);
  REQUIRE(pthread_attr_setstacksize(&huge, size_t{1} << 60) == 0);
  REQUIRE(pthread_setattr_default_np(&huge) == 0);
  auto streamer = BlockStreamer::Create(context, *checkpoint, ForwardAndBack(BlockSteps(*checkpoint)), {});
  REQUIRE(pthread_setattr_default_np(&usual) == 0);
  pthread_attr_destroy(&usual);
  pthread_attr_destroy(&huge);

  REQUIRE(streamer.ok());
  CHECK(absl::StrContains(warning, "no thread"));
  int steps = 0;
  CHECK(absl::IsOutOfRange(Drain(**streamer, &steps)));
  CHECK(steps == 6);
  CHECK((*streamer)->stats().bytes_read == (*streamer)->planned_bytes());
}
#endif

}  // namespace
}  // namespace autoscheme
