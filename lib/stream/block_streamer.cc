#include "autoscheme/block_streamer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checked.h"
#include "base/count.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "stream/extent_reader.h"
#include "stream/extents.h"
#include "stream/pages.h"

namespace autoscheme {
namespace {

using Clock = std::chrono::steady_clock;

// `auto` reads shorter streams through the page cache.
constexpr uint64_t kDirectFromBytes = uint64_t{512} << 20;
// How often a waiting Next() looks at the cancel token, which has no way to wake it.
constexpr auto kCancelPoll = std::chrono::milliseconds(10);

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The filling of a slot for one step.
struct Load {
  StepPlan plan;
  absl::Span<const TensorRange> ranges;
  std::vector<TensorView> views;
  std::byte* slot = nullptr;
  size_t step = 0;
};

// Memory of a slot, pinned as long as it lives where the host asks for it.
class Slot {
 public:
  static absl::StatusOr<std::unique_ptr<Slot>> Make(uint64_t bytes, absl::string_view what,
                                                    const BlockStreamer::Options& options) {
    AUTOSCHEME_ASSIGN_OR_RETURN(Pages pages, Pages::Allocate(bytes, what));
    std::unique_ptr<Slot> slot(new Slot(std::move(pages)));
    if (options.pin) AUTOSCHEME_RETURN_IF_ERROR(options.pin(slot->pages.data(), slot->pages.size()));
    slot->unpin_ = options.unpin;
    return slot;
  }
  ~Slot() {
    if (unpin_) unpin_(pages.data());
  }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;

  Pages pages;

 private:
  explicit Slot(Pages p) : pages(std::move(p)) {}
  std::function<void(std::byte* data)> unpin_;
};

uint64_t WholePages(uint64_t slot_bytes) { return std::max(RoundUp(slot_bytes, kPageBytes), kPageBytes); }

absl::Status Annotate(const absl::Status& status, absl::string_view text) {
  return absl::Status(status.code(), absl::StrCat(text, ": ", status.message()));
}

std::vector<TensorRange> WholeTensors(const BlockStreamer::Step& step) {
  std::vector<TensorRange> ranges;
  ranges.reserve(step.size());
  for (const TensorInfo* info : step) ranges.push_back(info == nullptr ? TensorRange{} : WholeTensor(*info));
  return ranges;
}

}  // namespace

struct BlockStreamer::Rep {
  Rep(const Context& c, const Checkpoint& ckpt, std::vector<RangeStep> o)
      : context(c), checkpoint(ckpt), order(std::move(o)) {}
  ~Rep();

  absl::Status Plan(const Options& options);
  IoEngine ChooseEngine(const Options& options) const;
  void MakeReader(const Options& options);
  void StartReader();
  void ReaderMain();
  absl::StatusOr<BlockView> Next();
  void Stop();
  StreamStats Stats() const;  // under the mutex
  // Until the slot of the current step is filled. Its error is the step's, or CANCELLED.
  absl::Status WaitForStep();
  absl::Status Fill(const Load& load);
  absl::Status NameTensor(const Load& load, int shard, ByteRange bytes, const absl::Status& status) const;
  absl::Status Fail(absl::Status status);

  const Context context;
  const Checkpoint& checkpoint;
  const std::vector<RangeStep> order;
  std::vector<std::unique_ptr<Slot>> slots;  // null: given back
  std::vector<Load> loads;                   // by step
  uint64_t planned_bytes = 0, slots_bytes = 0;

  // These belong to the thread that calls Next.
  int step = -1;
  absl::Status failed;

  std::atomic<bool> stop{false};
  std::unique_ptr<ExtentReader> extents;  // null: nothing to read. Of the thread that fills

  mutable std::mutex mutex;
  std::condition_variable slot_given_up;  // the reader waits
  std::condition_variable load_done;      // Next waits
  int current_step = 0;                   // steps before it have been given up
  int filled = 0;                         // loads that are complete
  absl::Status read_status;               // why the reader ended early
  double read_s = 0, stall_s = 0;
  std::optional<StreamStats> last_stats;  // once stopped

  std::thread reader;  // not running: Next fills the slots itself
};

absl::StatusOr<std::unique_ptr<BlockStreamer>> BlockStreamer::Create(const Context& context,
                                                                     const Checkpoint& checkpoint,
                                                                     std::vector<Step> order, const Options& options) {
  std::vector<RangeStep> ranges;
  ranges.reserve(order.size());
  for (const Step& step : order) ranges.push_back(WholeTensors(step));
  return CreateFromRanges(context, checkpoint, std::move(ranges), options);
}

absl::StatusOr<std::unique_ptr<BlockStreamer>> BlockStreamer::CreateFromRanges(const Context& context,
                                                                               const Checkpoint& checkpoint,
                                                                               std::vector<RangeStep> order,
                                                                               const Options& options) {
  auto rep = std::make_unique<Rep>(context, checkpoint, std::move(order));
  AUTOSCHEME_RETURN_IF_ERROR(rep->Plan(options));
  if (!rep->loads.empty()) rep->MakeReader(options);
  if (rep->slots.size() > 1) rep->StartReader();
  return std::unique_ptr<BlockStreamer>(new BlockStreamer(std::move(rep)));
}

BlockStreamer::BlockStreamer(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
BlockStreamer::~BlockStreamer() = default;

absl::StatusOr<BlockView> BlockStreamer::Next() { return rep_->Next(); }
void BlockStreamer::Stop() { rep_->Stop(); }

StreamStats BlockStreamer::stats() const {
  std::lock_guard<std::mutex> lock(rep_->mutex);
  return rep_->Stats();
}

StreamStats BlockStreamer::Rep::Stats() const {
  if (last_stats.has_value()) return *last_stats;
  StreamStats stats;
  stats.slot_bytes = slots_bytes;
  stats.read_s = read_s, stats.stall_s = stall_s;
  if (extents == nullptr) return stats;
  stats.bytes_read = extents->bytes_read(), stats.engine = extents->engine();
  return stats;
}

uint64_t BlockStreamer::planned_bytes() const { return rep_->planned_bytes; }

absl::StatusOr<uint64_t> BlockStreamer::SlotBytes(const RangeStep& step) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const StepPlan plan, PlanStep(step));
  return WholePages(plan.slot_bytes);
}

absl::StatusOr<uint64_t> BlockStreamer::SlotBytes(const Step& step) { return SlotBytes(WholeTensors(step)); }

const TensorView* BlockView::Find(absl::string_view name) const {
  for (const TensorView& view : tensors) {
    if (view.info->name == name) return &view;
  }
  return nullptr;
}

// Decides, before anything is read, what each step reads and where it goes: the slots take the steps in turns.
absl::Status BlockStreamer::Rep::Plan(const Options& options) {
  if (options.slots < 1) {
    return absl::InvalidArgumentError(absl::StrCat("a stream needs at least 1 slot, not ", options.slots));
  }
  AUTOSCHEME_RETURN_IF_ERROR(checkpoint.CheckHasWeights());
  const absl::Span<const Shard> shards = checkpoint.shards();
  uint64_t slot_bytes = 0;
  for (size_t s = 0; s < order.size(); ++s) {
    absl::StatusOr<StepPlan> plan = PlanStep(order[s]);
    if (!plan.ok()) return Annotate(plan.status(), absl::StrCat("step ", s));
    for (const TensorRange& range : order[s]) {
      const int shard = range.info->shard;
      if (shard < 0 || static_cast<size_t>(shard) >= shards.size() ||
          FileBytes(range).end > shards[shard].file.size()) {
        return absl::InvalidArgumentError(absl::StrCat("step ", s, ": tensor ", Quoted(range.info->name),
                                                       " does not lie in this checkpoint: shard ", shard, " of ",
                                                       shards.size(), ", bytes up to ", FileBytes(range).end));
      }
    }
    Load load;
    load.plan = *std::move(plan);
    load.ranges = order[s];
    load.step = s;
    slot_bytes = std::max(slot_bytes, load.plan.slot_bytes);
    planned_bytes += load.plan.read_bytes;
    loads.push_back(std::move(load));
  }
  if (loads.empty()) return absl::OkStatus();

  const size_t count = std::min(static_cast<size_t>(options.slots), loads.size());
  const std::optional<uint64_t> total = CheckedMul(WholePages(slot_bytes), count);
  if (!total) return absl::ResourceExhaustedError(absl::StrCat(count, " slots of ", slot_bytes, " bytes overflow"));
  slots_bytes = *total;
  const std::string what = absl::StrCat(Count(count, "block slot"), " of ", WholePages(slot_bytes), " bytes");
  for (size_t i = 0; i < count; ++i) {
    AUTOSCHEME_ASSIGN_OR_RETURN(std::unique_ptr<Slot> slot, Slot::Make(slot_bytes, what, options));
    slots.push_back(std::move(slot));
  }
  for (Load& load : loads) {
    load.slot = slots[load.step % count]->pages.data();
    load.views.reserve(load.ranges.size());
    for (size_t i = 0; i < load.ranges.size(); ++i) {
      load.views.push_back({load.ranges[i].info, load.slot + load.plan.slot_offsets[i]});
    }
  }
  return absl::OkStatus();
}

IoEngine BlockStreamer::Rep::ChooseEngine(const Options& options) const {
  if (options.io_engine != IoEngine::kAuto) return options.io_engine;
  if (!options.drop_page_cache) return IoEngine::kBuffered;  // the page cache is faster than any disk
  return planned_bytes < kDirectFromBytes ? IoEngine::kBuffered : IoEngine::kDirect;
}

void BlockStreamer::Rep::MakeReader(const Options& options) {
  ExtentReader::Options how;
  how.engine = ChooseEngine(options);
  how.drop_page_cache = options.drop_page_cache;
  how.warn = options.io_engine != IoEngine::kAuto;  // else nobody has asked for the engine
  if (how.engine != IoEngine::kBuffered) {
    for (const std::unique_ptr<Slot>& slot : slots) slot->pages.KeepFromChildren();
  }
  extents = std::make_unique<ExtentReader>(context, checkpoint, how, [this]() -> absl::Status {
    if (stop.load(std::memory_order_relaxed)) return absl::CancelledError("the stream has ended");
    return context.CheckCancelled();
  });
}

void BlockStreamer::Rep::StartReader() {
  try {
    reader = std::thread([this] { ReaderMain(); });
  } catch (const std::system_error& e) {
    context.Warn(absl::StrCat("no thread for reading ahead (", e.what(), "): blocks are read when they are asked for"));
  }
}

BlockStreamer::Rep::~Rep() { Stop(); }

void BlockStreamer::Rep::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (last_stats.has_value()) return;
    stop = true;
  }
  slot_given_up.notify_all();
  if (reader.joinable()) reader.join();
  if (failed.ok()) failed = absl::CancelledError("the stream has been stopped");
  {
    std::lock_guard<std::mutex> lock(mutex);
    last_stats = Stats();
    extents = nullptr;
  }
  const size_t last = step < 0 ? slots.size() : step % slots.size();
  for (size_t i = 0; i < slots.size(); ++i) {
    if (i != last) slots[i] = nullptr;
  }
}

void BlockStreamer::Rep::ReaderMain() {
  for (const Load& load : loads) {
    {
      std::unique_lock<std::mutex> lock(mutex);
      slot_given_up.wait(lock, [&] { return stop || current_step + slots.size() > load.step; });
      if (stop) return;
    }
    const Clock::time_point start = Clock::now();
    absl::Status status = Fill(load);
    {
      std::lock_guard<std::mutex> lock(mutex);
      read_s += SecondsSince(start);
      if (status.ok()) {
        ++filled;
      } else {
        read_status = std::move(status);
      }
      load_done.notify_all();
      if (!read_status.ok()) return;
    }
  }
}

absl::StatusOr<BlockView> BlockStreamer::Rep::Next() {
  if (!failed.ok()) return failed;
  if (absl::Status status = context.CheckCancelled(); !status.ok()) return Fail(std::move(status));
  if (step + 1 == static_cast<int>(order.size())) {
    return Fail(
        absl::OutOfRangeError(absl::StrCat("the stream has delivered all of its ", Count(order.size(), "step"))));
  }
  ++step;
  if (absl::Status status = WaitForStep(); !status.ok()) return Fail(std::move(status));
  BlockView view;
  view.step = step;
  view.tensors = loads[step].views;
  view.ranges = loads[step].ranges;
  return view;
}

absl::Status BlockStreamer::Rep::WaitForStep() {
  const Clock::time_point start = Clock::now();
  std::unique_lock<std::mutex> lock(mutex);
  current_step = step;
  slot_given_up.notify_all();
  if (filled > step) return absl::OkStatus();
  if (!reader.joinable()) {
    lock.unlock();
    AUTOSCHEME_RETURN_IF_ERROR(Fill(loads[step]));
    lock.lock();
    ++filled;
    read_s += SecondsSince(start);
  }
  while (filled <= step && read_status.ok()) {
    if (context.cancel == nullptr) {
      load_done.wait(lock);
    } else {
      load_done.wait_for(lock, kCancelPoll);
      AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
    }
  }
  stall_s += SecondsSince(start);
  return filled > step ? absl::OkStatus() : read_status;
}

// Keeps the error for later calls, and the reader from reading what nobody will take.
absl::Status BlockStreamer::Rep::Fail(absl::Status status) {
  failed = std::move(status);
  {
    std::lock_guard<std::mutex> lock(mutex);
    stop = true;
  }
  slot_given_up.notify_all();
  return failed;
}

absl::Status BlockStreamer::Rep::Fill(const Load& load) {
  ExtentReader::Place failed;
  absl::Status status = extents->Read(load.plan.extents, load.slot, &failed);
  if (!status.ok()) return failed.shard < 0 ? status : NameTensor(load, failed.shard, failed.bytes, status);
  int checked = -1;
  for (const Extent& extent : load.plan.extents) {
    if (extent.shard == checked) continue;
    checked = extent.shard;
    if (status = checkpoint.shards()[checked].file.CheckUnchanged(); !status.ok()) {
      return NameTensor(load, checked, {extent.file_offset, extent.file_end()}, status);
    }
  }
  return absl::OkStatus();
}

// Adds to a read error whose bytes they were: of the tensors among them, the first whose last byte cannot be read
// (a shard that ends early still has the ones before), or else the first.
absl::Status BlockStreamer::Rep::NameTensor(const Load& load, int number, ByteRange read,
                                            const absl::Status& status) const {
  const Shard& shard = checkpoint.shards()[number];
  std::vector<std::pair<ByteRange, const TensorInfo*>> among;
  for (const TensorRange& range : load.ranges) {
    const ByteRange bytes = FileBytes(range);
    if (range.info->shard == number && bytes.begin < bytes.end && bytes.begin < read.end && bytes.end > read.begin) {
      among.emplace_back(bytes, range.info);
    }
  }
  std::sort(among.begin(), among.end(), [](const auto& a, const auto& b) { return a.first.begin < b.first.begin; });
  auto named = std::find_if(among.begin(), among.end(), [&](const auto& tensor) {
    std::byte last;
    const uint64_t offset = std::min(tensor.first.end, read.end) - 1;
    return absl::IsDataLoss(status) && !shard.file.ReadAt(offset, absl::MakeSpan(&last, 1)).ok();
  });
  if (named == among.end()) named = among.begin();
  return Annotate(status, absl::StrCat("step ", load.step, ", tensor ", Quoted(named->second->name), " at offset ",
                                       named->first.begin, " of shard ", Quoted(shard.name)));
}

}  // namespace autoscheme
