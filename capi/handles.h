// What every file of capi/ shares: the barrier between C++ and C, the state behind a context, and the rules for
// structs.
#ifndef AUTOSCHEME_CAPI_HANDLES_H_
#define AUTOSCHEME_CAPI_HANDLES_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "autoscheme.h"
#include "autoscheme/context.h"

struct autoscheme_error {
  autoscheme_status code = AUTOSCHEME_OK;
  int32_t callback_value = 0;
  std::string message;
};

namespace autoscheme::capi {

// ---- the barrier ----

// A status, and what the host's callback returned if that is why.
struct Outcome {
  Outcome(absl::Status s, int32_t value = 0) : status(std::move(s)), callback_value(value) {}  // NOLINT: implicit
  absl::Status status;
  int32_t callback_value;
};

// Fills *error (if not null) from a failure. Never throws; without memory it hands out a static object.
autoscheme_status Report(autoscheme_error** error, const Outcome& outcome) noexcept;
// The same for the exception that is being handled.
autoscheme_status ReportException(autoscheme_error** error) noexcept;

// Every exported function that can fail runs its body, a callable that returns Outcome or absl::Status, in here.
template <typename Body>
autoscheme_status Guard(autoscheme_error** error, Body&& body) noexcept {
  if (error != nullptr) *error = nullptr;
  try {
    const Outcome outcome = body();
    return outcome.status.ok() ? AUTOSCHEME_OK : Report(error, outcome);
  } catch (...) {
    return ReportException(error);
  }
}

// The same for a function that cannot fail: `fallback` if it does.
template <typename T, typename Body>
T GuardValue(T fallback, Body&& body) noexcept {
  try {
    return body();
  } catch (...) {
    return fallback;
  }
}

inline absl::Status IsNull(const char* what) { return absl::InvalidArgumentError(absl::StrCat(what, " is NULL")); }

#define CAPI_REQUIRE(argument) \
  if ((argument) == nullptr) return ::autoscheme::capi::IsNull(#argument)
#define CAPI_RETURN_IF_ERROR(expression) \
  if (absl::Status capi_status_ = (expression); !capi_status_.ok()) return capi_status_

// ---- structs with struct_size ----

// Larger than any struct will ever be: a struct_size beyond it was never set.
inline constexpr size_t kMostStructBytes = 4096;

inline absl::Status CheckStructSize(size_t size, size_t least, const char* name) {
  if (size >= least && size <= kMostStructBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("struct_size of ", name, " is ", size, ", must be at least ", least, ": set it to its sizeof"));
}

// Copies `value` to the caller's struct, which may be of a later version (its tail is zeroed). `least` is the size that
// the struct had in 0.1.
template <typename T>
absl::Status FillStruct(T value, T* out, const char* name, size_t least = sizeof(T)) {
  if (out == nullptr) return IsNull(name);
  const size_t size = out->struct_size;
  CAPI_RETURN_IF_ERROR(CheckStructSize(size, least, name));
  value.struct_size = size;
  std::memcpy(out, &value, std::min(size, sizeof(T)));
  if (size > sizeof(T)) std::memset(reinterpret_cast<char*>(out) + sizeof(T), 0, size - sizeof(T));
  return absl::OkStatus();
}

inline absl::Status CheckIndex(int64_t index, int64_t count, const char* what) {
  if (index >= 0 && index < count) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat(what, " ", index, " does not exist: there are ", count));
}

// ---- callbacks and the state behind a context ----

// A host's pointer and how to give it back, which happens exactly once.
class UserData {
 public:
  UserData(void* data, void (*free)(void*)) : data_(data), free_(free) {}
  UserData(UserData&& o) noexcept : data_(o.data_), free_(std::exchange(o.free_, nullptr)) {}
  UserData& operator=(UserData&&) = delete;
  ~UserData() {
    if (free_ == nullptr) return;
    try {
      free_(data_);
    } catch (...) {  // a host's exception must not leave a destructor
    }
  }
  void* get() const { return data_; }

 private:
  void* data_;
  void (*free_)(void*);
};

template <typename Fn>
struct Callback {
  Callback(Fn f, UserData&& data) : fn(f), user_data(std::move(data)) {}
  Fn fn;
  UserData user_data;
};

// Outlives the handle while anything made with the context does.
struct ContextState {
  CancelToken cancel;
  std::atomic<bool> busy{false};           // a [long] call runs, or a streamer is open
  std::atomic<int32_t> callback_value{0};  // of the callback that stopped the call that runs
  std::mutex mutex;                        // guards the two pointers below, not the calls
  std::shared_ptr<Callback<autoscheme_log_fn>> log;
  std::shared_ptr<Callback<autoscheme_progress_fn>> progress;
};

// The context as the C++ interface takes it, borrowed from `state`. Only [long] calls can be cancelled.
Context MakeContext(ContextState* state, bool cancellable);

// Holds a context's only place for a [long] call. Check status() before work.
class LongCall {
 public:
  explicit LongCall(std::shared_ptr<ContextState> state);
  ~LongCall();
  LongCall(const LongCall&) = delete;
  LongCall& operator=(const LongCall&) = delete;

  absl::Status status() const;
  // Adds what a callback returned, if it is the reason for the failure.
  Outcome Finish(absl::Status status) const;

 private:
  std::shared_ptr<ContextState> state_;
  bool acquired_;
};

}  // namespace autoscheme::capi

struct autoscheme_context {
  std::shared_ptr<autoscheme::capi::ContextState> state;
};

#endif  // AUTOSCHEME_CAPI_HANDLES_H_
