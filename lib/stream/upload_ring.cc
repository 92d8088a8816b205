#include "stream/upload_ring.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/count.h"
#include "base/finite.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "stream/extents.h"
#include "stream/pages.h"
#include "stream/pieces.h"

namespace autoscheme {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kAlignment = 256;  // tensors in a slot start at multiples of it
// How often a thread that waits looks at the cancel token, which has no way to wake it.
constexpr auto kCancelPoll = std::chrono::milliseconds(10);

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

uint64_t BytesOf(const TensorRange& range) {
  const ByteRange bytes = FileBytes(range);
  return bytes.end - bytes.begin;
}

// Where a step lies in a slot.
struct Layout {
  std::vector<uint64_t> offsets;  // by tensor
  uint64_t found = 0;             // what looking through each tensor has found, a NonFinite each
  uint64_t bytes = 0;
};

absl::StatusOr<Layout> LayOut(const UploadStep& step) {
  AUTOSCHEME_RETURN_IF_ERROR(PlanStep(step.tensors).status());
  Layout layout;
  for (const TensorRange& range : step.tensors) {
    layout.offsets.push_back(layout.bytes);
    layout.bytes += RoundUp(BytesOf(range), kAlignment);
  }
  layout.found = layout.bytes;
  if (step.find_non_finite) layout.bytes += RoundUp(step.tensors.size() * sizeof(NonFinite), kAlignment);
  return layout;
}

std::optional<Number> NumberOf(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32: return Number::kF32;
    case Dtype::kBF16: return Number::kBF16;
    case Dtype::kF16: return Number::kF16;
    default: return std::nullopt;
  }
}

// One device, and what the ring has there.
struct Target {
  explicit Target(const Device* d) : device(d) {}

  absl::Status Make(size_t count, uint64_t slot_bytes) {
    AUTOSCHEME_ASSIGN_OR_RETURN(copied, DeviceEvent::Create(*device));
    for (size_t i = 0; i < count; ++i) {
      AUTOSCHEME_ASSIGN_OR_RETURN(DeviceMemory slot,
                                  DeviceMemory::Allocate(*device, DeviceMemory::Kind::kDevice, slot_bytes,
                                                         absl::StrCat("slot ", i + 1, " of ", count, " for weights")));
      AUTOSCHEME_ASSIGN_OR_RETURN(DeviceEvent up, DeviceEvent::Create(*device));
      AUTOSCHEME_ASSIGN_OR_RETURN(DeviceEvent done, DeviceEvent::Create(*device));
      slots.push_back(std::move(slot)), uploaded.push_back(std::move(up)), computed.push_back(std::move(done));
    }
    return absl::OkStatus();
  }

  const Device* device;
  DeviceEvent copied;  // the last piece that was given to kUp
  std::vector<DeviceMemory> slots;
  std::vector<DeviceEvent> uploaded, computed;  // what the last step of each slot is waited for by
};

}  // namespace

struct UploadRing::Rep {
  Rep(const Context& c, std::vector<UploadStep> o) : context(c), order(std::move(o)) {}
  ~Rep() { Stop(); }

  absl::Status Plan(const Options& options);
  absl::Status MakeTargets(const std::vector<const Device*>& devices);
  absl::Status MakeStreamer(const Checkpoint& checkpoint, const Options& options);
  void StartThread();
  void ThreadMain();

  // These give work to kUp.
  absl::Status Upload(int step);
  absl::Status UploadPiece(int step, const std::vector<PiecePart>& piece);
  absl::Status LookThrough(int step);
  absl::Status WaitForSlot(int step);

  absl::StatusOr<UploadedStep> Next();
  absl::Status Done();
  // Until the current step is on its way up. Its error is the step's, or CANCELLED.
  absl::Status WaitForStep();
  absl::Status Fail(absl::Status status);
  void Stop();
  StreamStats Stats() const;  // under the mutex

  const Context context;
  const std::vector<UploadStep> order;
  std::vector<Layout> layouts;  // by step
  ByteTensors byte_tensors;
  std::vector<std::vector<std::vector<PiecePart>>> pieces;  // by step
  std::vector<Target> targets;
  size_t slots = 0;  // on each device; step s lies in slot s % slots
  uint64_t planned_bytes = 0;
  DeviceMemory found;  // what LookThrough reads; pinned

  // These belong to the thread that calls Next.
  int step = -1;
  bool done = true;                            // the current step is
  std::vector<std::vector<TensorView>> views;  // what Next gave
  absl::Status failed;

  mutable std::mutex mutex;
  std::condition_variable slot_given_up;    // the ring's thread waits
  std::condition_variable step_on_its_way;  // Next waits
  bool stop = false;
  int given_up = 0;            // steps that are done
  int uploaded = 0;            // steps that are there, or will be when the event of their slot is
  absl::Status upload_status;  // why the upload ended early
  double stall_s = 0;
  std::optional<StreamStats> last_stats;  // once stopped

  std::unique_ptr<BlockStreamer> streamer;  // belongs to the thread that uploads, but for statistics
  std::thread thread;                       // not running: Next uploads
};

absl::StatusOr<std::unique_ptr<UploadRing>> UploadRing::Create(const Context& context, const Checkpoint& checkpoint,
                                                               std::vector<const Device*> devices,
                                                               std::vector<UploadStep> order, const Options& options) {
  if (devices.empty()) return absl::InvalidArgumentError("an upload needs at least 1 device");
  auto rep = std::make_unique<Rep>(context, std::move(order));
  AUTOSCHEME_RETURN_IF_ERROR(rep->Plan(options));
  AUTOSCHEME_RETURN_IF_ERROR(rep->MakeTargets(devices));
  AUTOSCHEME_RETURN_IF_ERROR(rep->MakeStreamer(checkpoint, options));
  if (!rep->order.empty()) rep->StartThread();
  return std::unique_ptr<UploadRing>(new UploadRing(std::move(rep)));
}

absl::StatusOr<uint64_t> UploadRing::SlotBytes(const UploadStep& step) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const Layout layout, LayOut(step));
  return layout.bytes;
}

UploadRing::UploadRing(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
UploadRing::~UploadRing() = default;

absl::StatusOr<UploadedStep> UploadRing::Next() { return rep_->Next(); }
absl::Status UploadRing::Done() { return rep_->Done(); }
void UploadRing::Stop() { rep_->Stop(); }
uint64_t UploadRing::planned_bytes() const { return rep_->planned_bytes; }

StreamStats UploadRing::stats() const {
  std::lock_guard<std::mutex> lock(rep_->mutex);
  return rep_->Stats();
}

StreamStats UploadRing::Rep::Stats() const {
  if (last_stats.has_value()) return *last_stats;
  StreamStats stats = streamer->stats();
  stats.stall_s = stall_s;
  return stats;
}

// Decides where each step lies on a device, and in which pieces it comes there.
absl::Status UploadRing::Rep::Plan(const Options& options) {
  if (options.device_slots < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("an upload needs at least 1 slot on each device, not ", options.device_slots));
  }
  if (options.piece_bytes == 0 || options.piece_bytes % kPageBytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("pieces of ", options.piece_bytes, " bytes cannot be uploaded: give a multiple of ", kPageBytes));
  }
  for (size_t s = 0; s < order.size(); ++s) {
    absl::StatusOr<Layout> layout = LayOut(order[s]);
    if (!layout.ok()) {
      return absl::Status(layout.status().code(), absl::StrCat("step ", s, ": ", layout.status().message()));
    }
    for (const TensorRange& range : order[s].tensors) {
      if (order[s].find_non_finite && !NumberOf(range.info->dtype).has_value()) return NotComputable(*range.info);
    }
    layouts.push_back(*std::move(layout));
    pieces.push_back(CutIntoPieces(order[s].tensors, options.piece_bytes, byte_tensors));
  }
  slots = std::min(static_cast<size_t>(options.device_slots), order.size());
  return absl::OkStatus();
}

absl::Status UploadRing::Rep::MakeTargets(const std::vector<const Device*>& devices) {
  uint64_t slot_bytes = 0;
  size_t most_looked_through = 0;
  for (size_t s = 0; s < order.size(); ++s) {
    slot_bytes = std::max(slot_bytes, layouts[s].bytes);
    if (order[s].find_non_finite) most_looked_through = std::max(most_looked_through, order[s].tensors.size());
  }
  for (const Device* device : devices) {
    targets.emplace_back(device);
    AUTOSCHEME_RETURN_IF_ERROR(targets.back().Make(slots, slot_bytes));
  }
  if (most_looked_through == 0) return absl::OkStatus();
  AUTOSCHEME_ASSIGN_OR_RETURN(
      found, DeviceMemory::Allocate(*devices[0], DeviceMemory::Kind::kPinned, most_looked_through * sizeof(NonFinite),
                                    "what looking through weights finds"));
  return absl::OkStatus();
}

absl::Status UploadRing::Rep::MakeStreamer(const Checkpoint& checkpoint, const Options& options) {
  std::vector<BlockStreamer::RangeStep> reads;
  for (const auto& step : pieces) {
    for (const std::vector<PiecePart>& piece : step) {
      BlockStreamer::RangeStep& read = reads.emplace_back();
      for (const PiecePart& part : piece) read.push_back(part.bytes);
    }
  }
  BlockStreamer::Options how;
  how.slots = options.host_slots;
  how.drop_page_cache = options.drop_page_cache;
  how.io_engine = options.io_engine;
  const Device* const device = targets[0].device;
  how.pin = [device](std::byte* data, size_t bytes) {
    return device->Check(device->api().pin(device->handle(), data, bytes),
                         absl::StrCat("pinning ", Count(bytes, "byte"), " of host memory"));
  };
  how.unpin = [device](std::byte* data) { device->api().unpin(device->handle(), data); };
  AUTOSCHEME_ASSIGN_OR_RETURN(streamer, BlockStreamer::CreateFromRanges(context, checkpoint, std::move(reads), how));
  planned_bytes = streamer->planned_bytes();
  return absl::OkStatus();
}

void UploadRing::Rep::StartThread() {
  try {
    thread = std::thread([this] { ThreadMain(); });
  } catch (const std::system_error& e) {
    context.Warn(absl::StrCat("no thread for uploading ahead (", e.what(), "): blocks go up when they are asked for"));
  }
}

void UploadRing::Rep::ThreadMain() {
  for (int s = 0; s < static_cast<int>(order.size()); ++s) {
    absl::Status status = Upload(s);
    const std::lock_guard<std::mutex> lock(mutex);
    if (status.ok()) {
      uploaded = s + 1;
    } else {
      upload_status = std::move(status);
    }
    step_on_its_way.notify_all();
    if (!upload_status.ok()) return;
  }
}

// Gives the devices all that brings the step up. What it waits for are pieces and, before a slot is overwritten, that
// the work on its last step has been given: the device itself waits until that is done.
absl::Status UploadRing::Rep::Upload(int s) {
  AUTOSCHEME_RETURN_IF_ERROR(WaitForSlot(s));
  const size_t slot = s % slots;
  for (Target& target : targets) {
    if (static_cast<size_t>(s) < slots) break;
    AUTOSCHEME_RETURN_IF_ERROR(target.computed[slot].WaitOn(DeviceStream::kUp));
  }
  for (const std::vector<PiecePart>& piece : pieces[s]) AUTOSCHEME_RETURN_IF_ERROR(UploadPiece(s, piece));
  for (Target& target : targets) AUTOSCHEME_RETURN_IF_ERROR(target.uploaded[slot].Record(DeviceStream::kUp));
  return order[s].find_non_finite ? LookThrough(s) : absl::OkStatus();
}

absl::Status UploadRing::Rep::UploadPiece(int s, const std::vector<PiecePart>& piece) {
  // The next piece is read over the one before.
  for (Target& target : targets) AUTOSCHEME_RETURN_IF_ERROR(target.copied.Wait());
  AUTOSCHEME_ASSIGN_OR_RETURN(const BlockView view, streamer->Next());
  for (Target& target : targets) {
    const Device& device = *target.device;
    std::byte* const slot = target.slots[s % slots].data();
    for (size_t i = 0; i < piece.size(); ++i) {
      std::byte* const to = slot + layouts[s].offsets[piece[i].tensor] + piece[i].offset;
      const uint64_t bytes = BytesOf(piece[i].bytes);
      AUTOSCHEME_RETURN_IF_ERROR(device.Check(
          device.api().copy_up(device.handle(), DeviceStream::kUp, to, view.tensors[i].data, bytes),
          absl::StrCat("copying ", Count(bytes, "byte"), " of tensor ", Quoted(piece[i].bytes.info->name), " up")));
    }
    AUTOSCHEME_RETURN_IF_ERROR(target.copied.Record(DeviceStream::kUp));
  }
  return absl::OkStatus();
}

// DATA_LOSS for the step's first tensor that holds NaN or infinite values. Waits until the step is there.
absl::Status UploadRing::Rep::LookThrough(int s) {
  const Target& target = targets[0];
  const Device& device = *target.device;
  const std::vector<TensorRange>& tensors = order[s].tensors;
  std::byte* const slot = target.slots[s % slots].data();
  std::byte* const found_up_there = slot + layouts[s].found;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& info = *tensors[i].info;
    const auto count = static_cast<int64_t>(BytesOf(tensors[i]) / (DtypeBits(info.dtype) / 8));
    AUTOSCHEME_RETURN_IF_ERROR(device.Check(
        device.api().find_non_finite(device.handle(), DeviceStream::kUp, slot + layouts[s].offsets[i], count,
                                     *NumberOf(info.dtype), reinterpret_cast<NonFinite*>(found_up_there) + i),
        absl::StrCat("looking through tensor ", Quoted(info.name))));
  }
  AUTOSCHEME_RETURN_IF_ERROR(device.Check(device.api().copy_down(device.handle(), DeviceStream::kUp, found.data(),
                                                                 found_up_there, tensors.size() * sizeof(NonFinite)),
                                          "copying down what looking through weights has found"));
  AUTOSCHEME_RETURN_IF_ERROR(target.copied.Record(DeviceStream::kUp));
  AUTOSCHEME_RETURN_IF_ERROR(target.copied.Wait());
  for (size_t i = 0; i < tensors.size(); ++i) {
    NonFinite of_tensor;
    std::memcpy(&of_tensor, found.data() + i * sizeof(NonFinite), sizeof(NonFinite));
    const TensorInfo& info = *tensors[i].info;
    const auto before = (FileBytes(tensors[i]).begin - info.offset) / (DtypeBits(info.dtype) / 8);
    AUTOSCHEME_RETURN_IF_ERROR(FiniteStatus(info, of_tensor.count, of_tensor.first + static_cast<int64_t>(before)));
  }
  return absl::OkStatus();
}

// Until all work on the last step in that slot has been given to the devices.
absl::Status UploadRing::Rep::WaitForSlot(int s) {
  std::unique_lock<std::mutex> lock(mutex);
  while (!stop && s >= given_up + static_cast<int>(slots)) {
    if (context.cancel == nullptr) {
      slot_given_up.wait(lock);
    } else {
      slot_given_up.wait_for(lock, kCancelPoll);
      AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
    }
  }
  return stop ? absl::CancelledError("the upload has ended") : absl::OkStatus();
}

absl::StatusOr<UploadedStep> UploadRing::Rep::Next() {
  if (!failed.ok()) return failed;
  if (absl::Status status = context.CheckCancelled(); !status.ok()) return Fail(std::move(status));
  AUTOSCHEME_RETURN_IF_ERROR(Done());
  if (step + 1 == static_cast<int>(order.size())) {
    return Fail(
        absl::OutOfRangeError(absl::StrCat("the upload has delivered all of its ", Count(order.size(), "step"))));
  }
  ++step, done = false;
  if (absl::Status status = WaitForStep(); !status.ok()) return Fail(std::move(status));
  views.clear();
  for (Target& target : targets) {
    if (absl::Status status = target.uploaded[step % slots].WaitOn(DeviceStream::kCompute); !status.ok()) {
      return Fail(std::move(status));
    }
    std::vector<TensorView>& tensors = views.emplace_back();
    for (size_t i = 0; i < order[step].tensors.size(); ++i) {
      tensors.push_back({order[step].tensors[i].info, target.slots[step % slots].data() + layouts[step].offsets[i]});
    }
  }
  UploadedStep there;
  there.step = step, there.tensors = views, there.ranges = order[step].tensors;
  return there;
}

absl::Status UploadRing::Rep::Done() {
  if (!failed.ok() || done) return failed;
  for (Target& target : targets) {
    if (absl::Status status = target.computed[step % slots].Record(DeviceStream::kCompute); !status.ok()) {
      return Fail(std::move(status));
    }
  }
  done = true;
  const std::lock_guard<std::mutex> lock(mutex);
  given_up = step + 1;
  slot_given_up.notify_all();
  return absl::OkStatus();
}

absl::Status UploadRing::Rep::WaitForStep() {
  const Clock::time_point start = Clock::now();
  if (!thread.joinable()) {
    AUTOSCHEME_RETURN_IF_ERROR(Upload(step));
    const std::lock_guard<std::mutex> lock(mutex);
    uploaded = step + 1;
  }
  std::unique_lock<std::mutex> lock(mutex);
  while (uploaded <= step && upload_status.ok()) {
    if (context.cancel == nullptr) {
      step_on_its_way.wait(lock);
    } else {
      step_on_its_way.wait_for(lock, kCancelPoll);
      AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
    }
  }
  stall_s += SecondsSince(start);
  return uploaded > step ? absl::OkStatus() : upload_status;
}

// Keeps the error for later calls, and the thread from uploading what nobody will take.
absl::Status UploadRing::Rep::Fail(absl::Status status) {
  failed = std::move(status);
  const std::lock_guard<std::mutex> lock(mutex);
  stop = true;
  slot_given_up.notify_all();
  return failed;
}

void UploadRing::Rep::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (last_stats.has_value()) return;
    stop = true;
    slot_given_up.notify_all();
  }
  if (thread.joinable()) thread.join();
  if (failed.ok()) failed = absl::CancelledError("the upload has been stopped");
  // Memory must not go while it is copied or computed with. A wait that fails is tried once more: where the device is
  // broken nothing works on it any more.
  for (const Target& target : targets) {
    for (const DeviceStream stream : {DeviceStream::kUp, DeviceStream::kCompute}) {
      if (!target.device->Synchronize(stream).ok()) target.device->Synchronize(stream).IgnoreError();
    }
  }
  {
    const std::lock_guard<std::mutex> lock(mutex);
    last_stats = streamer == nullptr ? StreamStats() : Stats();
  }
  streamer = nullptr;
  targets.clear();
  found = DeviceMemory();
}

}  // namespace autoscheme
