// StandIn: devices in plain memory, behind the table that a real device has. Streams, events, pinned memory and errors
// behave as CUDA's do, and what a program does with them is watched.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "device/device_api.h"

namespace autoscheme {

// Every function of the table, to count its calls and to make them fail.
enum class StandInCall {
  kCount,
  kOpen,
  kClose,
  kProperties,
  kMemory,
  kAllocate,
  kRelease,
  kAllocatePinned,
  kReleasePinned,
  kPin,
  kUnpin,
  kCopyUp,
  kCopyDown,
  kSynchronize,
  kCreateEvent,
  kDestroyEvent,
  kRecord,
  kStreamWait,
  kWait,
  kElapsed,
  kMultiply,
  kFindNonFinite,
  kAddAbsProducts,
  kEnd,
};
const char* StandInCallName(StandInCall call);

struct StandInOptions {
  int devices = 1;
  // What each device has. An allocation takes exactly the bytes that were asked for; one beyond them is kOutOfMemory.
  uint64_t memory_bytes = uint64_t{1} << 40;
  // New memory of a device holds NaN in every type, so that a copy that is missing shows.
  bool fill_with_nan = true;
  // kCompute has a thread of its own, as kUp and kDown always do. Else what it is given is done at once by the caller:
  // so it must be where LibTorch computes on the memory of the devices, since that is done by the caller too.
  bool compute_thread = false;
  // Addresses on a device must lie in what was allocated there. Not where LibTorch's own tensors are given to the
  // table.
  bool own_memory_only = false;
  // How long each piece of work takes at least.
  std::chrono::microseconds copy_delay{0}, compute_delay{0};
  const DeviceQuantApi* quant = nullptr;
};

// One at a time: the table's functions find it by themselves. Outlives every Device that was opened by its table.
//
// As with CUDA, a copy to or from host memory that is not pinned makes the caller wait; an event stands for what it was
// last recorded behind; freeing, unpinning and closing are done even where they report an error; after kBroken every
// call of that device is kBroken.
class StandIn {
 public:
  explicit StandIn(const StandInOptions& options);
  StandIn() : StandIn(StandInOptions()) {}
  ~StandIn();  // finishes what streams were given, and frees what is left
  StandIn(const StandIn&) = delete;
  StandIn& operator=(const StandIn&) = delete;

  const DeviceApi& api() const { return api_; }

  // The `k`-th call from now on, counted from 1, gives `result` and does nothing. One per function; k = 0: none.
  void Fail(StandInCall call, int64_t k, DeviceResult result);
  // Calls so far, those that failed among them.
  int64_t calls(StandInCall call) const;
  // Whether a call was made to fail by Fail().
  bool failed() const;

  uint64_t used_bytes(int device) const;
  uint64_t most_used_bytes(int device) const;
  // Copies whose host side was not pinned.
  int64_t unpinned_copies() const;
  // What is allocated, pinned, made or open and should not be any more, one line each. Empty: nothing.
  std::string Leaks() const;
  // What no program may do, one line each: freeing what is not there or is still being worked on, giving work to one
  // stream from two threads at once, addresses outside of what was allocated. Empty: nothing.
  std::string Misuse() const;

  // For a table of quantizers: gives work to a stream of `device`, with the result of the call.
  static DeviceResult Give(void* device, DeviceStream stream, std::function<void()> work);

 private:
  struct Mark;     // a point in a stream's work
  struct Stream;   // a queue and its thread
  struct Machine;  // one device: what `open` gives
  struct Work;     // what a stream is given
  struct Table;    // the functions of the table
  struct Range {
    uintptr_t begin, end;
  };
  struct Failure {
    int64_t at = 0;  // number of the call, 0: none
    DeviceResult result = DeviceResult::kFailed;
  };
  static constexpr int kCalls = static_cast<int>(StandInCall::kEnd);

  // Counts the call and says whether it is to fail. `machine` may be null.
  DeviceResult Begin(StandInCall call, Machine* machine);
  DeviceResult Submit(Machine* machine, DeviceStream stream, Work work);
  bool IsBroken(const Machine& machine) const;
  // Waits for work that touches the range. Where there is some, it is misuse, unless the device is broken.
  void AwaitUse(uintptr_t begin, uintptr_t end, const char* what);
  void NoteMisuse(const std::string& text);
  bool IsPinned(const void* data, size_t bytes) const;
  // Misuse, and false, where addresses have to lie in allocations and this one does not.
  bool CheckOwn(Machine* machine, const void* data, size_t bytes, const char* what);

  const StandInOptions options_;
  DeviceApi api_;
  std::vector<std::unique_ptr<Machine>> machines_;

  mutable std::mutex mutex_;  // guards all below, and what machines hold
  std::array<int64_t, kCalls> calls_{};
  std::array<Failure, kCalls> failures_{};
  bool failed_ = false;
  int64_t unpinned_copies_ = 0;
  std::map<uintptr_t, uintptr_t> allocated_pinned_, pinned_;  // begin -> end
  std::map<void*, std::shared_ptr<Mark>> events_;             // null: not recorded yet
  std::map<void*, Machine*> event_machine_;
  std::vector<std::string> misuse_;
};

}  // namespace autoscheme
