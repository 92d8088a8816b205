// What every file of capi/ shares: the barrier between C++ and C, the state behind a context, and the rules for
// structs.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "autoscheme.h"
#include "autoscheme/architecture.h"
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

// What the first version that had a visible struct had of it: a caller that was compiled with that version gives no
// more.
template <typename T>
struct FirstVersion;  // constexpr const char* kName; constexpr size_t kBytes

// `last_field` was the last one in the first version, and stays named here for ever: fields that are appended later are
// missing in the structs of older callers.
#define CAPI_STRUCT(type, last_field)                                                       \
  template <>                                                                               \
  struct FirstVersion<type> {                                                               \
    static constexpr const char* kName = #type;                                             \
    static constexpr size_t kBytes = offsetof(type, last_field) + sizeof(type::last_field); \
  }
CAPI_STRUCT(autoscheme_scheme_info, reserved);
CAPI_STRUCT(autoscheme_option_info, max_f64);
CAPI_STRUCT(autoscheme_skeleton_info, has_weights);
CAPI_STRUCT(autoscheme_block_info, tensor_count);
CAPI_STRUCT(autoscheme_layer_info, fixed_scheme);
CAPI_STRUCT(autoscheme_tensor_info, block);
CAPI_STRUCT(autoscheme_calibration_info, sha256);
CAPI_STRUCT(autoscheme_stats, io_engine);
CAPI_STRUCT(autoscheme_plan_info, input_interval);
CAPI_STRUCT(autoscheme_plan_item, bytes);
CAPI_STRUCT(autoscheme_scores_info, reserved);
CAPI_STRUCT(autoscheme_pareto_info, reserved);
CAPI_STRUCT(autoscheme_pareto_point, marginal_value);
CAPI_STRUCT(autoscheme_recipe_info, model_bytes);
CAPI_STRUCT(autoscheme_refined_info, reserved);
CAPI_STRUCT(autoscheme_verified_info, uniform_count);
CAPI_STRUCT(autoscheme_uniform_info, kl_error);
CAPI_STRUCT(autoscheme_evaluation_info, reserved);
CAPI_STRUCT(autoscheme_recipe_evaluation, worst_count);
CAPI_STRUCT(autoscheme_step, bytes);
CAPI_STRUCT(autoscheme_streamer_stats, io_engine);
CAPI_STRUCT(autoscheme_offload_callbacks, restore);
CAPI_STRUCT(autoscheme_offload_info, released_bytes);

// Larger than any struct will ever be: a struct_size beyond it was never set.
inline constexpr size_t kMostStructBytes = 4096;

template <typename T>
absl::Status CheckStruct(const T* caller) {
  using First = FirstVersion<T>;
  if (caller == nullptr) return IsNull(First::kName);
  // Read apart: an older caller's struct is smaller than T.
  size_t size;
  std::memcpy(&size, caller, sizeof(size));
  if (size >= First::kBytes && size <= kMostStructBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("struct_size of ", First::kName, " is ", size, ", must be at least ",
                                                 First::kBytes, ": set it to its sizeof"));
}

// Copies `value` to the caller's struct: what fits into an older one, and zeros for what only a later one has.
template <typename T>
absl::Status FillStruct(T value, T* caller) {
  CAPI_RETURN_IF_ERROR(CheckStruct(caller));
  char* to = reinterpret_cast<char*>(caller);
  std::memcpy(&value.struct_size, to, sizeof(value.struct_size));
  std::memcpy(to, &value, std::min(value.struct_size, sizeof(T)));
  if (value.struct_size > sizeof(T)) std::memset(to + sizeof(T), 0, value.struct_size - sizeof(T));
  return absl::OkStatus();
}

// The caller's struct into `value`: fields that an older one lacks are zero; those of a later one must be.
template <typename T>
absl::Status ReadStruct(const T* caller, T* value) {
  CAPI_RETURN_IF_ERROR(CheckStruct(caller));
  const char* from = reinterpret_cast<const char*>(caller);
  size_t size;
  std::memcpy(&size, from, sizeof(size));
  for (size_t i = sizeof(T); i < size; ++i) {
    if (from[i] == 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(FirstVersion<T>::kName, " has a field at byte ", i,
                                                   " that this version of the library does not know"));
  }
  *value = T{};
  std::memcpy(value, from, std::min(size, sizeof(T)));
  return absl::OkStatus();
}

// ---- out-parameters ----

// Set first of all, whatever the call then says: a caller that looks at one after a failure finds NULL or 0. Structs
// stay as they are.
template <typename... T>
void Clear(T*... out) noexcept {
  ((out == nullptr ? void() : void(*out = T{})), ...);
}

inline absl::Status CheckIndex(int64_t index, int64_t count, const char* what) {
  if (index >= 0 && index < count) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat(what, " ", index, " does not exist: there are ", count));
}

// Text that is made on first use. Any thread; without a lock, so that a process forked off meanwhile can ask too.
class LazyText {
 public:
  LazyText() = default;
  ~LazyText() { delete text_.load(); }
  LazyText(const LazyText&) = delete;
  LazyText& operator=(const LazyText&) = delete;

  template <typename Make>
  const std::string& Get(Make&& make) const {
    const std::string* text = text_.load(std::memory_order_acquire);
    if (text != nullptr) return *text;
    auto made = std::make_unique<const std::string>(make());
    if (text_.compare_exchange_strong(text, made.get())) return *made.release();
    return *text;  // another thread was first
  }

 private:
  mutable std::atomic<const std::string*> text_{nullptr};
};

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
  const pid_t process = getpid();  // the one that made the context
  CancelToken cancel;
  std::atomic<bool> busy{false};           // a [long] call runs, or a streamer is open
  std::atomic<int32_t> callback_value{0};  // what the first callback that stopped the call returned
  std::mutex mutex;                        // guards the pointers below, not the calls
  std::shared_ptr<Callback<autoscheme_log_fn>> log;
  std::shared_ptr<Callback<autoscheme_progress_fn>> progress;
  std::shared_ptr<const std::vector<Architecture>> aliases;
};

// Whether this process was forked off from the one that made the context. It has copies of all handles, but the threads
// behind them are not there, and what those held locked stays so.
bool IsForked(const ContextState& state);
// FAILED_PRECONDITION if so.
absl::Status CheckProcess(const ContextState& state);

// Every _free of a handle that knows a context: in a process that was forked off it would wait for threads that are not
// there, so the memory stays.
template <typename Handle>
void FreeHandle(Handle* handle, const ContextState& state) {
  if (!IsForked(state)) delete handle;
}

// The context as the C++ interface takes it, borrowed from `state`. Only [long] calls can be cancelled.
Context MakeContext(ContextState* state, bool cancellable);

// Holds a context's only place for a [long] call. Check status() before work: busy, or of another process.
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
  bool acquired_ = false;
};

}  // namespace autoscheme::capi

struct autoscheme_context {
  std::shared_ptr<autoscheme::capi::ContextState> state;
};
