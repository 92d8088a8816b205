// Faults, cancels and early ends of an upload: one clear error, nothing left behind, and never a hang, which CTest's
// time limit would find.
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "stream/upload_rig.h"

namespace autoscheme {
namespace {

using Step = BlockStreamer::Step;

// A name whose ExpectedBytes are 40 finite numbers of BF16, unlike most.
std::string FiniteName(const std::string& prefix) {
  for (int i = 0;; ++i) {
    const std::string name = absl::StrCat(prefix, i);
    bool finite = true;
    for (int k = 0; k < 40; ++k) {
      const int word = static_cast<int>(ExpectedByte(name, 2 * k)) | static_cast<int>(ExpectedByte(name, 2 * k + 1))
                                                                         << 8;
      finite &= (word & 0x7F80) != 0x7F80;
    }
    if (finite) return name;
  }
}

// Three steps of some pieces each, then three that are looked through.
struct SweptModel {
  StreamModel model{{{{FiniteName("x"), {40}, Dtype::kBF16}, {"w", {30, 200}}, {FiniteName("y"), {40}, Dtype::kBF16}}}};
  std::unique_ptr<Checkpoint> checkpoint = model.Open();

  std::vector<UploadStep> Order() const {
    UploadStep all, looked_through;
    for (const TensorInfo& info : checkpoint->tensors()) {
      all.tensors.push_back(WholeTensor(info));
      if (info.dtype == Dtype::kBF16) looked_through.tensors.push_back(WholeTensor(info));
    }
    looked_through.find_non_finite = true;
    return {all, all, all, looked_through, looked_through, looked_through};
  }
};

// The stand-in's calls that give something back: what they fail with has nobody to tell.
bool GivesBack(StandInCall call) {
  return call == StandInCall::kRelease || call == StandInCall::kReleasePinned || call == StandInCall::kUnpin ||
         call == StandInCall::kDestroyEvent || call == StandInCall::kSynchronize;
}

// One run of the sweep: creates a ring and drains it while a call fails. Returns whether it came to that call.
bool RunWithFault(const Checkpoint& checkpoint, const std::vector<UploadStep>& order, int devices, StandInCall call,
                  int64_t k, DeviceResult result) {
  UploadRig rig(AsynchronousStandIn(devices));
  rig.stand_in.Fail(call, k, result);
  UploadRing::Options options;
  options.piece_bytes = 4096, options.host_slots = 2;
  absl::Status status;
  {
    auto ring = UploadRing::Create({}, checkpoint, rig.devices(), order, options);
    status = ring.ok() ? Drain(**ring, rig) : ring.status();
    if (ring.ok() && !absl::IsOutOfRange(status)) {
      // The error is the ring's, or that of a copy of Drain, after which the ring goes on.
      const absl::Status again = (*ring)->Next().status();
      const bool drains = absl::StrContains(status.message(), "a test");
      if (!drains) CHECK(again == status);
    }
  }
  if (!rig.stand_in.failed() || GivesBack(call)) {
    if (result != DeviceResult::kBroken) CHECK(absl::IsOutOfRange(status));
    return rig.stand_in.failed();
  }
  CHECK(!absl::IsOutOfRange(status));
  CHECK((result == DeviceResult::kOutOfMemory ? absl::IsResourceExhausted(status) : absl::IsInternal(status)));
  CHECK(absl::StrContains(status.message(), "device stand-in:"));
  // Once the device is broken, any thread's call may be the first to tell.
  CHECK(absl::StrContains(status.message(), result == DeviceResult::kBroken
                                                ? "cannot use the device any more"
                                                : absl::StrCat("the stand-in's ", StandInCallName(call), " fails")));
  return true;
}

TEST_CASE("every call of the table may fail at any time: one clear error, nothing left, no hang") {
  const SweptModel swept;
  int fired = 0;
  for (const auto& [devices, result] : {std::pair(1, DeviceResult::kFailed), std::pair(1, DeviceResult::kBroken),
                                        std::pair(2, DeviceResult::kOutOfMemory)}) {
    for (int call = static_cast<int>(StandInCall::kAllocate); call < static_cast<int>(StandInCall::kEnd); ++call) {
      for (int64_t k = 1;; ++k) {
        const auto failing = static_cast<StandInCall>(call);
        INFO(StandInCallName(failing) << " fails at call " << k << ", devices: " << devices);
        if (!RunWithFault(*swept.checkpoint, swept.Order(), devices, failing, k, result)) break;
        ++fired;
      }
    }
  }
  CHECK(fired > 300);
}

TEST_CASE("every read may fail: the ring says what the streamer says, and nothing is left") {
  const SweptModel swept;
  for (int k = 0;; ++k) {
    CAPTURE(k);
    const UploadRig rig(AsynchronousStandIn(2));
    WatchedIo io;
    io.before_read = [=](int call) { return call == k ? -EIO : 0; };
    Context context;
    context.io = &io;
    UploadRing::Options options;
    options.piece_bytes = 4096;
    const auto ring = MakeRing(rig, *swept.checkpoint, swept.Order(), options, context);
    const absl::Status status = Drain(*ring, rig);
    if (absl::IsOutOfRange(status)) {
      CHECK(k == io.reads());
      break;
    }
    REQUIRE(absl::IsUnavailable(status));
    CHECK(absl::StrContains(status.message(), "tensor \""));
    CHECK(ring->Next().status() == status);
  }
}

TEST_CASE("a shard that ends early is DATA_LOSS with its tensor, and the steps before it arrive") {
  const StreamModel model({{{"v", {5000}}, {"w", {50, 1000}}}});
  const auto checkpoint = model.Open();
  const TensorInfo& w = *checkpoint->Find("w");
  REQUIRE(truncate(model.ShardPath(0).c_str(), w.offset + 30000) == 0);
  const UploadRig rig;
  UploadRing::Options options;
  options.piece_bytes = 4096;
  const auto ring =
      MakeRing(rig, *checkpoint, {{{WholeTensor(*checkpoint->Find("v"))}}, {{{&w, 0, 20}}}, {{{&w, 10, 40}}}}, options);
  int steps = 0;
  const absl::Status status = Drain(*ring, rig, &steps);
  // A shard of another size than it was opened with is not trusted at all.
  CHECK(steps == 0);
  CHECK(absl::IsDataLoss(status));
  CHECK(absl::StrContains(status.message(), "model.safetensors"));
  CHECK(ring->Next().status() == status);
}

TEST_CASE("options out of range, no device, a null tensor and a device without room are refused by name") {
  const StreamModel model({{{"w", {5000}}}});
  const auto checkpoint = model.Open();
  const std::vector<UploadStep> order = {{{WholeTensor(*checkpoint->Find("w"))}},
                                         {{WholeTensor(*checkpoint->Find("w"))}}};
  CHECK(UploadRing::SlotBytes(order[0]).value() == 5120);
  CHECK(UploadRing::SlotBytes({order[0].tensors, true}).value() == 5376);
  StandInOptions small = AsynchronousStandIn();
  small.memory_bytes = 2 * 5120;
  const UploadRig rig(small);
  const auto create = [&](const std::vector<UploadStep>& steps, int device_slots, int host_slots,
                          uint64_t piece_bytes) {
    UploadRing::Options options;
    options.device_slots = device_slots, options.host_slots = host_slots, options.piece_bytes = piece_bytes;
    return UploadRing::Create({}, *checkpoint, rig.devices(), steps, options).status();
  };
  CHECK(create(order, 2, 2, 4096).ok());
  CHECK(absl::StrContains(create(order, 0, 2, 4096).message(), "at least 1 slot on each device, not 0"));
  CHECK(absl::IsInvalidArgument(create(order, 2, 0, 4096)));
  CHECK(absl::StrContains(create(order, 2, 2, 5000).message(), "pieces of 5000 bytes"));
  CHECK(absl::StrContains(create({order[0], {{TensorRange()}}}, 2, 2, 4096).message(), "step 1: a tensor"));
  std::vector<UploadStep> larger = order;
  larger[1].find_non_finite = false, larger.push_back(order[0]);
  const absl::Status no_room = create(larger, 3, 2, 4096);
  CHECK(absl::IsResourceExhausted(no_room));
  CHECK(absl::StrContains(no_room.message(), "allocating 5120 bytes of its memory for slot 3 of 3 for weights"));
  CHECK(absl::StrContains(UploadRing::Create({}, *checkpoint, {}, order, {}).status().message(), "at least 1 device"));
}

TEST_CASE("a cancelled upload ends in CANCELLED at once and for good") {
  const StreamModel model = StreamModel::Blocks(4, 10);
  const auto checkpoint = model.Open();
  CancelToken cancel;
  Context context;
  context.cancel = &cancel;
  for (int after = 0; after <= 4; ++after) {
    const UploadRig rig;
    const auto ring = MakeRing(rig, *checkpoint, UploadSteps(BlockSteps(*checkpoint)), {}, context);
    for (int step = 0; step < after; ++step) REQUIRE(ring->Next().ok());
    cancel.Cancel();
    CHECK(absl::IsCancelled(ring->Next().status()));
    cancel.Reset();
    CHECK(absl::IsCancelled(ring->Next().status()));
    CHECK(absl::IsCancelled(ring->Done()));
  }
}

// Work that a device does not get done before it is let go.
class Gate {
 public:
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    reached_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void AwaitReached() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return reached_; });
  }
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false, open_ = false;
};

TEST_CASE("a cancel is seen while a device is busy, and while the disk stalls") {
  const StreamModel model = StreamModel::Blocks(4, 10);
  for (const bool disk : {false, true}) {
    const UploadRig rig;
    Gate gate;
    WatchedIo io;
    CancelToken cancel;
    Context context;
    context.io = &io, context.cancel = &cancel;
    const auto checkpoint = model.Open(context);
    if (disk) {
      io.before_read = [&](int) { return gate.Wait(), 0; };
    } else {
      StandIn::Give(rig.opened[0]->handle(), DeviceStream::kCompute, [&] { gate.Wait(); });
    }
    const auto ring = MakeRing(rig, *checkpoint, UploadSteps(BlockSteps(*checkpoint)), {}, context);
    const auto other = std::async(std::launch::async, [&] {
      gate.AwaitReached();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // by now Next() waits
      cancel.Cancel();
    });
    absl::Status status;
    while (status.ok()) status = ring->Next().status();  // ends although the device or the disk does not
    CHECK(absl::IsCancelled(status));
    other.wait();
    gate.Open();
  }
}

TEST_CASE("a cancel from another thread at any time never hangs") {
  const StreamModel model = StreamModel::Blocks(4, 60);
  const auto checkpoint = model.Open();
  CancelToken cancel;
  Context context;
  context.cancel = &cancel;
  StandInOptions slow = AsynchronousStandIn(2);
  slow.copy_delay = std::chrono::microseconds(50);
  const UploadRig rig(slow);
  std::mt19937 random(20240601);
  int cancelled = 0;
  for (int i = 0; i < 300; ++i) {
    const auto other = std::async(std::launch::async, [&, delay = random() % 6000] {
      std::this_thread::sleep_for(std::chrono::microseconds(delay));
      cancel.Cancel();
    });
    UploadRing::Options options;
    options.piece_bytes = 4096, options.device_slots = 1 + i % 3, options.host_slots = 1 + i % 4;
    {
      const auto ring =
          MakeRing(rig, *checkpoint, UploadSteps(ForwardAndBack(BlockSteps(*checkpoint))), options, context);
      const absl::Status status = Drain(*ring, rig);
      REQUIRE((absl::IsCancelled(status) || absl::IsOutOfRange(status)));
      cancelled += absl::IsCancelled(status);
    }
    other.wait();
    cancel.Reset();
  }
  CHECK(cancelled > 10);
}

TEST_CASE("a ring can be dropped or stopped at any step, and waits for the work that is still under way") {
  const StreamModel model = StreamModel::Blocks(4, 30);
  const auto checkpoint = model.Open();
  StandInOptions slow = AsynchronousStandIn(2);
  slow.copy_delay = std::chrono::microseconds(500);
  for (int steps = 0; steps <= 4; ++steps) {
    for (const bool stop : {false, true}) {
      for (int failing = 0; failing <= 4; ++failing) {  // a wait of Stop() that fails once; 0: none
        UploadRig rig(slow);
        std::vector<DeviceMemory> memory;
        const auto ring = MakeRing(rig, *checkpoint, UploadSteps(BlockSteps(*checkpoint)));
        for (int step = 0; step < steps; ++step) {
          const auto there = ring->Next();
          REQUIRE(there.ok());
          for (size_t d = 0; d < 2; ++d) {
            const Device& device = *rig.opened[d];
            memory.push_back(DeviceMemory::Allocate(device, DeviceMemory::Kind::kPinned, 64, "a test").value());
            REQUIRE(device.api().copy_down(device.handle(), DeviceStream::kCompute, memory.back().data(),
                                           there->tensors[d][0].data, 64) == DeviceResult::kOk);
          }
        }
        rig.stand_in.Fail(StandInCall::kSynchronize, failing, DeviceResult::kFailed);
        if (!stop) continue;
        ring->Stop();
        ring->Stop();
        CHECK(absl::IsCancelled(ring->Next().status()));
        CHECK(rig.stand_in.used_bytes(0) == 0);
      }
    }
  }
}

#ifdef __GLIBC__
// While it lives, no thread can be started: a default stack that no address space holds.
class NoThreads {
 public:
  NoThreads() {
    pthread_attr_t huge;
    REQUIRE(pthread_getattr_default_np(&usual_) == 0);
    REQUIRE(pthread_attr_init(&huge) == 0);
    REQUIRE(pthread_attr_setstacksize(&huge, size_t{1} << 60) == 0);
    REQUIRE(pthread_setattr_default_np(&huge) == 0);
    pthread_attr_destroy(&huge);
  }
  ~NoThreads() {
    pthread_setattr_default_np(&usual_);
    pthread_attr_destroy(&usual_);
  }

 private:
  pthread_attr_t usual_;
};

TEST_CASE("without a thread to give, steps go up when they are asked for") {
  const StreamModel model = StreamModel::Blocks(3);
  const auto checkpoint = model.Open();
  std::string warnings;
  Context context;
  context.log = [&](LogLevel, absl::string_view text) { absl::StrAppend(&warnings, text, "\n"); };
  const UploadRig rig(AsynchronousStandIn(2));
  std::unique_ptr<UploadRing> ring;
  UploadRing::Options options;
  options.piece_bytes = 4096;
  {
    const NoThreads none;
    ring = MakeRing(rig, *checkpoint, UploadSteps(ForwardAndBack(BlockSteps(*checkpoint))), options, context);
  }
  CHECK(absl::StrContains(warnings, "no thread for uploading ahead"));
  int steps = 0;
  CHECK(absl::IsOutOfRange(Drain(*ring, rig, &steps)));
  CHECK(steps == 6);
  CHECK(ring->stats().bytes_read == ring->planned_bytes());
}
#endif

TEST_CASE("a streamer pins each of its slots once, and unpins what it has pinned before it goes") {
  const StreamModel model = StreamModel::Blocks(3);
  const auto checkpoint = model.Open();
  std::vector<std::pair<std::byte*, size_t>> pinned;
  size_t refused = 0, calls = 0;  // the number of the call that is refused
  BlockStreamer::Options options;
  options.slots = 3;
  options.pin = [&](std::byte* data, size_t bytes) -> absl::Status {
    if (++calls == refused) return absl::ResourceExhaustedError("no more pages are pinned");
    std::fill(data, data + bytes, std::byte{1});
    pinned.emplace_back(data, bytes);
    return absl::OkStatus();
  };
  options.unpin = [&](std::byte* data) {
    const auto found = std::find_if(pinned.begin(), pinned.end(), [&](const auto& slot) { return slot.first == data; });
    REQUIRE(found != pinned.end());
    CHECK(found->first[found->second - 1] != std::byte{77});  // still there
    pinned.erase(found);
  };
  const std::vector<Step> order = ForwardAndBack(BlockSteps(*checkpoint));
  {
    const auto streamer = BlockStreamer::Create({}, *checkpoint, order, options);
    REQUIRE(streamer.ok());
    REQUIRE(pinned.size() == 3);
    for (const auto& [data, bytes] : pinned) CHECK(bytes * 3 == (*streamer)->stats().slot_bytes);
    CHECK(absl::IsOutOfRange(Drain(**streamer)));
    (*streamer)->Stop();
    CHECK(pinned.size() == 1);  // the last view's slot
  }
  CHECK(pinned.empty());
  for (refused = 1; refused <= 3; ++refused) {
    calls = 0;
    const auto streamer = BlockStreamer::Create({}, *checkpoint, order, options);
    CHECK(streamer.status() == absl::ResourceExhaustedError("no more pages are pinned"));
    CHECK(pinned.empty());
  }
}

}  // namespace
}  // namespace autoscheme
