#include "support/stand_in_device.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace autoscheme {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kStreams = 3;
constexpr size_t kAlignment = 256;

StandIn* current = nullptr;  // set and unset while no other thread calls

thread_local std::string last_error = "no call has failed";

DeviceResult Because(DeviceResult result, std::string text) {
  last_error = std::move(text);
  return result;
}

void* NewMemory(size_t bytes) { return std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment); }

uintptr_t Address(const void* data) { return reinterpret_cast<uintptr_t>(data); }

size_t BytesOf(Number type) { return type == Number::kF32 ? 4 : 2; }

float FromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float FromHalf(uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  float magnitude = std::ldexp(static_cast<float>(fraction + (exponent > 0 ? 1024 : 0)), std::max(exponent, 1) - 25);
  if (exponent == 31) magnitude = fraction == 0 ? INFINITY : NAN;
  return half >> 15 != 0 ? -magnitude : magnitude;
}

// To nearest even, as the processor's conversions do.
uint16_t ToHalf(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return sign | 0x7E00;
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520.0f) return sign | 0x7C00;
  if (magnitude == 0) return sign;
  const int exponent = std::max(std::ilogb(magnitude), -14);
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));  // 1,024 to 2,048
  return static_cast<uint16_t>(sign + ((exponent + 14) << 10) + steps);
}

uint16_t ToBFloat16(float value) {
  if (std::isnan(value)) return 0x7FC0;
  const uint32_t bits = Bits(value);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float Load(const void* data, Number type, int64_t i) {
  const std::byte* at = static_cast<const std::byte*>(data) + i * static_cast<int64_t>(BytesOf(type));
  if (type == Number::kF32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  uint16_t word;
  std::memcpy(&word, at, sizeof(word));
  return type == Number::kBF16 ? FromBits(static_cast<uint32_t>(word) << 16) : FromHalf(word);
}

void Store(void* data, Number type, int64_t i, float value) {
  std::byte* at = static_cast<std::byte*>(data) + i * static_cast<int64_t>(BytesOf(type));
  if (type == Number::kF32) {
    std::memcpy(at, &value, sizeof(value));
    return;
  }
  const uint16_t word = type == Number::kBF16 ? ToBFloat16(value) : ToHalf(value);
  std::memcpy(at, &word, sizeof(word));
}

float Rounded(float value, ProductType type) {
  if (type == ProductType::kExact || !std::isfinite(value)) return value;
  return FromBits((Bits(value) + 0x1000) & 0xFFFFE000u);
}

int64_t At(const DeviceMatrix& m, int64_t row, int64_t column) { return row * m.row_stride + column * m.column_stride; }

size_t SpanBytes(const DeviceMatrix& m) {
  if (m.rows == 0 || m.columns == 0) return 0;
  return static_cast<size_t>(At(m, m.rows - 1, m.columns - 1) + 1) * BytesOf(m.type);
}

void Multiply(const DeviceMatrix& out, const DeviceMatrix& a, const DeviceMatrix& b, ProductType type, bool add) {
  for (int64_t i = 0; i < out.rows; ++i) {
    for (int64_t j = 0; j < out.columns; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < a.columns; ++k) {
        sum += Rounded(Load(a.data, a.type, At(a, i, k)), type) * Rounded(Load(b.data, b.type, At(b, k, j)), type);
      }
      if (add) sum += Load(out.data, out.type, At(out, i, j));
      Store(out.data, out.type, At(out, i, j), sum);
    }
  }
}

void FindNonFinite(const void* data, int64_t count, Number type, NonFinite* out) {
  NonFinite found = {0, -1};
  for (int64_t i = 0; i < count; ++i) {
    if (std::isfinite(Load(data, type, i))) continue;
    if (found.count++ == 0) found.first = i;
  }
  std::memcpy(out, &found, sizeof(found));
}

}  // namespace

const char* StandInCallName(StandInCall call) {
  static const char* const kNames[] = {
      "count",
      "open",
      "close",
      "properties",
      "memory",
      "allocate",
      "release",
      "allocate_pinned",
      "release_pinned",
      "pin",
      "unpin",
      "copy_up",
      "copy_down",
      "synchronize",
      "create_event",
      "destroy_event",
      "record",
      "stream_wait",
      "wait",
      "elapsed",
      "multiply",
      "find_non_finite",
      "add_abs_products",
  };
  static_assert(sizeof(kNames) / sizeof(kNames[0]) == static_cast<size_t>(StandInCall::kEnd));
  return kNames[static_cast<int>(call)];
}

struct StandIn::Mark {
  std::mutex mutex;
  std::condition_variable reached;
  bool done = false;
  Clock::time_point time;

  void Reach() {
    const std::lock_guard<std::mutex> lock(mutex);
    done = true, time = Clock::now();
    reached.notify_all();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex);
    reached.wait(lock, [this] { return done; });
  }
};

struct StandIn::Work {
  std::function<void()> run;
  std::chrono::microseconds delay{0};
  std::vector<Range> ranges;  // memory that it touches
};

struct StandIn::Stream {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Work> queue;  // the first one is being done
  bool ending = false;
  std::thread thread;  // none: work is done by who gives it
  std::atomic<bool> in_call{false};

  void Main() {
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      changed.wait(lock, [this] { return ending || !queue.empty(); });
      if (queue.empty()) return;
      Work& work = queue.front();  // stays where it is while others are added
      lock.unlock();
      Run(work);
      lock.lock();
      queue.pop_front();
      changed.notify_all();
    }
  }
  static void Run(const Work& work) {
    if (work.delay.count() > 0) std::this_thread::sleep_for(work.delay);
    work.run();
  }
  void Drain() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return queue.empty(); });
  }
  bool Touches(uintptr_t begin, uintptr_t end) {
    const std::lock_guard<std::mutex> lock(mutex);
    return std::any_of(queue.begin(), queue.end(), [&](const Work& work) {
      return std::any_of(work.ranges.begin(), work.ranges.end(),
                         [&](const Range& range) { return range.begin < end && begin < range.end; });
    });
  }
};

struct StandIn::Machine {
  int index = 0;
  int opened = 0;
  bool broken = false;
  uint64_t used = 0, most_used = 0;
  std::map<uintptr_t, uintptr_t> allocations;  // begin -> end
  std::array<Stream, kStreams> streams;
};

DeviceResult StandIn::Begin(StandInCall call, Machine* machine) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int i = static_cast<int>(call);
  const int64_t number = ++calls_[i];
  DeviceResult result = DeviceResult::kOk;
  if (failures_[i].at == number) failed_ = true, result = failures_[i].result;
  if (machine != nullptr) {
    if (result == DeviceResult::kBroken) machine->broken = true;
    if (machine->broken) result = DeviceResult::kBroken;
  }
  if (result == DeviceResult::kOk) return result;
  return Because(result,
                 std::string("the stand-in's ") + StandInCallName(call) + " fails at call " + std::to_string(number));
}

DeviceResult StandIn::Submit(Machine* machine, DeviceStream which, Work work) {
  Stream& stream = machine->streams[static_cast<int>(which)];
  if (stream.in_call.exchange(true)) NoteMisuse("two threads give work to one stream at the same time");
  if (!stream.thread.joinable()) {
    Stream::Run(work);
  } else {
    const std::lock_guard<std::mutex> lock(stream.mutex);
    stream.queue.push_back(std::move(work));
    stream.changed.notify_all();
  }
  stream.in_call = false;
  return DeviceResult::kOk;
}

void StandIn::NoteMisuse(const std::string& text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  misuse_.push_back(text);
}

bool StandIn::IsBroken(const Machine& machine) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return machine.broken;
}

void StandIn::AwaitUse(uintptr_t begin, uintptr_t end, const char* what) {
  for (const std::unique_ptr<Machine>& machine : machines_) {
    for (Stream& stream : machine->streams) {
      if (!stream.Touches(begin, end)) continue;
      if (!IsBroken(*machine)) NoteMisuse(std::string(what) + " while a stream still works on that memory");
      stream.Drain();
    }
  }
}

namespace {

// Whether one of the ranges, begin -> end, holds all of these bytes.
bool Holds(const std::map<uintptr_t, uintptr_t>& ranges, uintptr_t begin, size_t bytes) {
  auto after = ranges.upper_bound(begin);
  return after != ranges.begin() && begin + bytes <= std::prev(after)->second;
}

}  // namespace

bool StandIn::IsPinned(const void* data, size_t bytes) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return Holds(pinned_, Address(data), bytes) || Holds(allocated_pinned_, Address(data), bytes);
}

bool StandIn::CheckOwn(Machine* machine, const void* data, size_t bytes, const char* what) {
  if (!options_.own_memory_only) return true;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (Holds(machine->allocations, Address(data), bytes)) return true;
  }
  NoteMisuse(std::string(what) + ": " + std::to_string(bytes) + " bytes outside of what device " +
             std::to_string(machine->index) + " has allocated");
  return false;
}

// The functions of the table.
struct StandIn::Table {
  static Machine* Get(void* device) { return static_cast<Machine*>(device); }

  static DeviceResult Count(int32_t* devices) {
    const DeviceResult result = current->Begin(StandInCall::kCount, nullptr);
    if (result == DeviceResult::kOk) *devices = static_cast<int32_t>(current->machines_.size());
    return result;
  }

  static DeviceResult Open(int32_t index, void** device) {
    if (DeviceResult result = current->Begin(StandInCall::kOpen, nullptr); result != DeviceResult::kOk) return result;
    if (index < 0 || index >= static_cast<int32_t>(current->machines_.size())) {
      return Because(DeviceResult::kNoDevice, "the stand-in has no such device");
    }
    const std::lock_guard<std::mutex> lock(current->mutex_);
    Machine* machine = current->machines_[index].get();
    ++machine->opened;
    *device = machine;
    return DeviceResult::kOk;
  }

  static void Close(void* device) {
    current->Begin(StandInCall::kClose, Get(device));
    const std::lock_guard<std::mutex> lock(current->mutex_);
    --Get(device)->opened;
  }

  static const char* LastError() { return last_error.c_str(); }

  static DeviceResult Properties(void* device, DeviceProperties* properties) {
    const DeviceResult result = current->Begin(StandInCall::kProperties, Get(device));
    if (result != DeviceResult::kOk) return result;
    *properties = {};
    std::snprintf(properties->name, sizeof(properties->name), "stand-in %d", Get(device)->index);
    properties->total_bytes = current->options_.memory_bytes;
    return result;
  }

  static DeviceResult Memory(void* device, uint64_t* free_bytes, uint64_t* process_bytes) {
    const DeviceResult result = current->Begin(StandInCall::kMemory, Get(device));
    if (result != DeviceResult::kOk) return result;
    const std::lock_guard<std::mutex> lock(current->mutex_);
    *process_bytes = Get(device)->used;
    *free_bytes = current->options_.memory_bytes - *process_bytes;
    return result;
  }

  static DeviceResult Allocate(void* device, size_t bytes, void** data) {
    Machine* machine = Get(device);
    DeviceResult result = current->Begin(StandInCall::kAllocate, machine);
    if (result != DeviceResult::kOk) return result;
    {
      const std::lock_guard<std::mutex> lock(current->mutex_);
      if (bytes > current->options_.memory_bytes - machine->used) {
        return Because(DeviceResult::kOutOfMemory,
                       std::to_string(current->options_.memory_bytes - machine->used) + " bytes are free");
      }
      *data = NewMemory(bytes);
      if (*data == nullptr) return Because(DeviceResult::kOutOfMemory, "the host has no memory for it");
      machine->used += bytes;
      machine->most_used = std::max(machine->most_used, machine->used);
      machine->allocations[Address(*data)] = Address(*data) + bytes;
    }
    if (current->options_.fill_with_nan) std::memset(*data, 0xFF, bytes);
    return DeviceResult::kOk;
  }

  static DeviceResult Release(void* device, void* data) {
    Machine* machine = Get(device);
    const DeviceResult result = current->Begin(StandInCall::kRelease, machine);
    if (!Take(&machine->allocations, data, "release", [&](uint64_t bytes) { machine->used -= bytes; })) {
      return Because(DeviceResult::kFailed, "the stand-in has not allocated this");
    }
    std::free(data);
    return result;
  }

  static DeviceResult AllocatePinned(void* device, size_t bytes, void** data) {
    const DeviceResult result = current->Begin(StandInCall::kAllocatePinned, Get(device));
    if (result != DeviceResult::kOk) return result;
    *data = NewMemory(bytes);
    if (*data == nullptr) return Because(DeviceResult::kOutOfMemory, "the host has no memory for it");
    const std::lock_guard<std::mutex> lock(current->mutex_);
    current->allocated_pinned_[Address(*data)] = Address(*data) + bytes;
    return result;
  }

  static DeviceResult ReleasePinned(void* device, void* data) {
    const DeviceResult result = current->Begin(StandInCall::kReleasePinned, Get(device));
    if (!Take(&current->allocated_pinned_, data, "release_pinned", [](uint64_t) {})) {
      return Because(DeviceResult::kFailed, "the stand-in has not allocated this");
    }
    std::free(data);
    return result;
  }

  static DeviceResult Pin(void* device, void* data, size_t bytes) {
    const DeviceResult result = current->Begin(StandInCall::kPin, Get(device));
    if (result != DeviceResult::kOk) return result;
    const uintptr_t begin = Address(data), end = begin + bytes;
    const std::lock_guard<std::mutex> lock(current->mutex_);
    for (const auto& [from, to] : current->pinned_) {
      if (from < end && begin < to) return Because(DeviceResult::kFailed, "part of that memory is pinned already");
    }
    current->pinned_[begin] = end;
    return result;
  }

  static DeviceResult Unpin(void* device, void* data) {
    const DeviceResult result = current->Begin(StandInCall::kUnpin, Get(device));
    if (!Take(&current->pinned_, data, "unpin", [](uint64_t) {})) {
      return Because(DeviceResult::kFailed, "the stand-in has not pinned this");
    }
    return result;
  }

  // Forgets a range, and calls on_bytes(its size) under the mutex. False, and misuse, where there is none.
  template <typename OnBytes>
  static bool Take(std::map<uintptr_t, uintptr_t>* ranges, void* data, const char* what, const OnBytes& on_bytes) {
    uintptr_t begin = Address(data), end = 0;
    {
      const std::lock_guard<std::mutex> lock(current->mutex_);
      if (const auto found = ranges->find(begin); found != ranges->end()) end = found->second;
    }
    if (end == 0) {
      current->NoteMisuse(std::string(what) + " of memory that is not there");
      return false;
    }
    current->AwaitUse(begin, end, what);
    const std::lock_guard<std::mutex> lock(current->mutex_);
    ranges->erase(begin);
    on_bytes(end - begin);
    return true;
  }

  static DeviceResult CopyUp(void* device, DeviceStream stream, void* to, const void* from, size_t bytes) {
    const DeviceResult result = current->Begin(StandInCall::kCopyUp, Get(device));
    if (result != DeviceResult::kOk) return result;
    return Copy(Get(device), stream, to, from, bytes, /*host=*/from, /*on_device=*/to, "copy_up");
  }

  static DeviceResult CopyDown(void* device, DeviceStream stream, void* to, const void* from, size_t bytes) {
    const DeviceResult result = current->Begin(StandInCall::kCopyDown, Get(device));
    if (result != DeviceResult::kOk) return result;
    return Copy(Get(device), stream, to, from, bytes, /*host=*/to, /*on_device=*/from, "copy_down");
  }

  static DeviceResult Copy(Machine* machine, DeviceStream stream, void* to, const void* from, size_t bytes,
                           const void* host, const void* on_device, const char* what) {
    if (!current->CheckOwn(machine, on_device, bytes, what)) return Because(DeviceResult::kFailed, "a wrong address");
    Work work;
    work.run = [=] { std::memcpy(to, from, bytes); };
    work.delay = current->options_.copy_delay;
    work.ranges = {{Address(to), Address(to) + bytes}, {Address(from), Address(from) + bytes}};
    const bool pinned = current->IsPinned(host, bytes);
    const DeviceResult result = current->Submit(machine, stream, std::move(work));
    if (pinned) return result;
    {
      const std::lock_guard<std::mutex> lock(current->mutex_);
      ++current->unpinned_copies_;
    }
    machine->streams[static_cast<int>(stream)].Drain();
    return result;
  }

  static DeviceResult Synchronize(void* device, DeviceStream stream) {
    const DeviceResult result = current->Begin(StandInCall::kSynchronize, Get(device));
    if (result == DeviceResult::kOk) Get(device)->streams[static_cast<int>(stream)].Drain();
    return result;
  }

  static DeviceResult CreateEvent(void* device, void** event) {
    const DeviceResult result = current->Begin(StandInCall::kCreateEvent, Get(device));
    if (result != DeviceResult::kOk) return result;
    *event = NewMemory(1);
    const std::lock_guard<std::mutex> lock(current->mutex_);
    current->events_[*event] = nullptr;
    current->event_machine_[*event] = Get(device);
    return result;
  }

  static DeviceResult DestroyEvent(void* device, void* event) {
    const DeviceResult result = current->Begin(StandInCall::kDestroyEvent, Get(device));
    {
      const std::lock_guard<std::mutex> lock(current->mutex_);
      if (current->events_.erase(event) == 1) {
        current->event_machine_.erase(event);
        std::free(event);
        return result;
      }
    }
    current->NoteMisuse("destroy_event of an event that is not there");
    return Because(DeviceResult::kFailed, "the stand-in has no such event");
  }

  static DeviceResult Record(void* device, DeviceStream stream, void* event) {
    const DeviceResult result = current->Begin(StandInCall::kRecord, Get(device));
    if (result != DeviceResult::kOk) return result;
    auto mark = std::make_shared<Mark>();
    bool there = false;
    {
      const std::lock_guard<std::mutex> lock(current->mutex_);
      const auto found = current->events_.find(event);
      there = found != current->events_.end() && current->event_machine_[event] == Get(device);
      if (there) found->second = mark;
    }
    if (!there) {
      current->NoteMisuse("record of an event that this device does not have");
      return Because(DeviceResult::kFailed, "this device has no such event");
    }
    return current->Submit(Get(device), stream, {[mark] { mark->Reach(); }, {}, {}});
  }

  // What the event stands for: null where it has not been recorded. False, and misuse, for no event at all.
  static bool FindMark(void* event, std::shared_ptr<Mark>* mark) {
    {
      const std::lock_guard<std::mutex> lock(current->mutex_);
      if (const auto found = current->events_.find(event); found != current->events_.end()) {
        *mark = found->second;
        return true;
      }
    }
    current->NoteMisuse("use of an event that is not there");
    last_error = "the stand-in has no such event";
    return false;
  }

  static DeviceResult StreamWait(void* device, DeviceStream stream, void* event) {
    const DeviceResult result = current->Begin(StandInCall::kStreamWait, Get(device));
    if (result != DeviceResult::kOk) return result;
    std::shared_ptr<Mark> mark;
    if (!FindMark(event, &mark)) return DeviceResult::kFailed;
    if (mark == nullptr) return result;
    return current->Submit(Get(device), stream, {[mark] { mark->Wait(); }, {}, {}});
  }

  static DeviceResult Wait(void* device, void* event) {
    const DeviceResult result = current->Begin(StandInCall::kWait, Get(device));
    if (result != DeviceResult::kOk) return result;
    std::shared_ptr<Mark> mark;
    if (!FindMark(event, &mark)) return DeviceResult::kFailed;
    if (mark != nullptr) mark->Wait();
    return result;
  }

  static DeviceResult Elapsed(void* device, void* from, void* to, double* seconds) {
    const DeviceResult result = current->Begin(StandInCall::kElapsed, Get(device));
    if (result != DeviceResult::kOk) return result;
    Clock::time_point times[2];
    void* const events[2] = {from, to};
    for (int i = 0; i < 2; ++i) {
      std::shared_ptr<Mark> mark;
      if (!FindMark(events[i], &mark)) return DeviceResult::kFailed;
      if (mark == nullptr) return Because(DeviceResult::kFailed, "the event has not been recorded");
      const std::lock_guard<std::mutex> lock(mark->mutex);
      if (!mark->done) return Because(DeviceResult::kFailed, "the event is not done");
      times[i] = mark->time;
    }
    *seconds = std::chrono::duration<double>(times[1] - times[0]).count();
    return result;
  }

  static DeviceResult Product(void* device, const DeviceMatrix* out, const DeviceMatrix* a, const DeviceMatrix* b,
                              ProductType type, int32_t add) {
    const DeviceResult result = current->Begin(StandInCall::kMultiply, Get(device));
    if (result != DeviceResult::kOk) return result;
    if (out->rows != a->rows || out->columns != b->columns || a->columns != b->rows || a->type != b->type) {
      return Because(DeviceResult::kFailed, "the matrices do not fit each other");
    }
    Work work;
    for (const DeviceMatrix* m : {out, a, b}) {
      if (m->row_stride != 1 && m->column_stride != 1) return Because(DeviceResult::kFailed, "no stride is 1");
      const size_t bytes = SpanBytes(*m);
      if (!current->CheckOwn(Get(device), m->data, bytes, "multiply")) {
        return Because(DeviceResult::kFailed, "a wrong address");
      }
      work.ranges.push_back({Address(m->data), Address(m->data) + bytes});
    }
    work.run = [out = *out, a = *a, b = *b, type, add] { Multiply(out, a, b, type, add != 0); };
    work.delay = current->options_.compute_delay;
    return current->Submit(Get(device), DeviceStream::kCompute, std::move(work));
  }

  static DeviceResult FindBad(void* device, DeviceStream stream, const void* data, int64_t count, Number type,
                              NonFinite* found) {
    const DeviceResult result = current->Begin(StandInCall::kFindNonFinite, Get(device));
    if (result != DeviceResult::kOk) return result;
    const size_t bytes = count * BytesOf(type);
    if (!current->CheckOwn(Get(device), data, bytes, "find_non_finite") ||
        !current->CheckOwn(Get(device), found, sizeof(NonFinite), "find_non_finite")) {
      return Because(DeviceResult::kFailed, "a wrong address");
    }
    Work work;
    work.run = [=] { FindNonFinite(data, count, type, found); };
    work.delay = current->options_.compute_delay;
    work.ranges = {{Address(data), Address(data) + bytes}, {Address(found), Address(found) + sizeof(NonFinite)}};
    return current->Submit(Get(device), stream, std::move(work));
  }

  static DeviceResult AddAbsProducts(void* device, const void* grad, Number grad_type, const void* w, Number w_type,
                                     const void* wq, Number wq_type, int64_t count, double* sum) {
    const DeviceResult result = current->Begin(StandInCall::kAddAbsProducts, Get(device));
    if (result != DeviceResult::kOk) return result;
    Work work;
    for (const auto& [data, bytes] : {std::pair<const void*, size_t>(grad, count * BytesOf(grad_type)),
                                      std::pair<const void*, size_t>(w, count * BytesOf(w_type)),
                                      std::pair<const void*, size_t>(wq, count * BytesOf(wq_type)),
                                      std::pair<const void*, size_t>(sum, sizeof(double))}) {
      if (!current->CheckOwn(Get(device), data, bytes, "add_abs_products")) {
        return Because(DeviceResult::kFailed, "a wrong address");
      }
      work.ranges.push_back({Address(data), Address(data) + bytes});
    }
    work.run = [=] {
      double total = 0;
      for (int64_t i = 0; i < count; ++i) {
        total += std::fabs(Load(grad, grad_type, i) * (Load(w, w_type, i) - Load(wq, wq_type, i)));
      }
      *sum += total;
    };
    work.delay = current->options_.compute_delay;
    return current->Submit(Get(device), DeviceStream::kCompute, std::move(work));
  }

  static DeviceApi Make(const DeviceQuantApi* quant) {
    DeviceApi api = {};
    api.version = kDeviceApiVersion, api.bytes = sizeof(DeviceApi), api.name = "stand-in";
    api.count = &Count, api.open = &Open, api.close = &Close, api.last_error = &LastError;
    api.properties = &Properties, api.memory = &Memory;
    api.allocate = &Allocate, api.release = &Release;
    api.allocate_pinned = &AllocatePinned, api.release_pinned = &ReleasePinned, api.pin = &Pin, api.unpin = &Unpin;
    api.copy_up = &CopyUp, api.copy_down = &CopyDown, api.synchronize = &Synchronize;
    api.create_event = &CreateEvent, api.destroy_event = &DestroyEvent, api.record = &Record;
    api.stream_wait = &StreamWait, api.wait = &Wait, api.elapsed = &Elapsed;
    api.multiply = &Product, api.find_non_finite = &FindBad, api.add_abs_products = &AddAbsProducts;
    api.quant = quant;
    return api;
  }
};

StandIn::StandIn(const StandInOptions& options) : options_(options), api_(Table::Make(options.quant)) {
  if (current != nullptr) std::abort();  // tests use one at a time
  current = this;
  for (int i = 0; i < options.devices; ++i) {
    machines_.push_back(std::make_unique<Machine>());
    machines_.back()->index = i;
    for (int s = 0; s < kStreams; ++s) {
      if (static_cast<DeviceStream>(s) == DeviceStream::kCompute && !options.compute_thread) continue;
      Stream& stream = machines_.back()->streams[s];
      stream.thread = std::thread([&stream] { stream.Main(); });
    }
  }
}

StandIn::~StandIn() {
  for (const std::unique_ptr<Machine>& machine : machines_) {
    for (Stream& stream : machine->streams) {
      {
        const std::lock_guard<std::mutex> lock(stream.mutex);
        stream.ending = true;
        stream.changed.notify_all();
      }
    }
  }
  for (const std::unique_ptr<Machine>& machine : machines_) {
    for (Stream& stream : machine->streams) {
      if (stream.thread.joinable()) stream.thread.join();
    }
    for (const auto& [begin, end] : machine->allocations) std::free(reinterpret_cast<void*>(begin));
  }
  for (const auto& [begin, end] : allocated_pinned_) std::free(reinterpret_cast<void*>(begin));
  for (const auto& [event, mark] : events_) std::free(event);
  current = nullptr;
}

void StandIn::Fail(StandInCall call, int64_t k, DeviceResult result) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int i = static_cast<int>(call);
  failures_[i] = {k == 0 ? 0 : calls_[i] + k, result};
  failed_ = false;
}

int64_t StandIn::calls(StandInCall call) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return calls_[static_cast<int>(call)];
}

bool StandIn::failed() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failed_;
}

uint64_t StandIn::used_bytes(int device) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return machines_[device]->used;
}

uint64_t StandIn::most_used_bytes(int device) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return machines_[device]->most_used;
}

int64_t StandIn::unpinned_copies() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return unpinned_copies_;
}

std::string StandIn::Leaks() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string text;
  const auto add = [&text](size_t count, const std::string& what) {
    if (count > 0) text += std::to_string(count) + " " + what + "\n";
  };
  for (const std::unique_ptr<Machine>& machine : machines_) {
    add(machine->allocations.size(), "allocations of device " + std::to_string(machine->index));
    add(machine->opened, "times open is device " + std::to_string(machine->index));
  }
  add(allocated_pinned_.size(), "allocations of pinned memory");
  add(pinned_.size(), "ranges of host memory that are pinned");
  add(events_.size(), "events");
  return text;
}

std::string StandIn::Misuse() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string text;
  for (const std::string& line : misuse_) text += line + "\n";
  return text;
}

DeviceResult StandIn::Give(void* device, DeviceStream stream, std::function<void()> work) {
  return current->Submit(Table::Get(device), stream, {std::move(work), current->options_.compute_delay, {}});
}

}  // namespace autoscheme
