// Contexts: callbacks of the host, cancelling, aliases, and the place for one [long] call.
#include "absl/strings/string_view.h"
#include "autoscheme/quoted.h"
#include "handles.h"

using autoscheme::capi::Callback;
using autoscheme::capi::CheckProcess;
using autoscheme::capi::Clear;
using autoscheme::capi::ContextState;
using autoscheme::capi::FreeHandle;
using autoscheme::capi::Guard;
using autoscheme::capi::UserData;

namespace {

// `member` is where the state keeps this kind of callback. The one that was there before is given back outside of the
// lock, when its last call has ended.
template <typename Fn>
autoscheme_status SetCallback(autoscheme_context* context, std::shared_ptr<Callback<Fn>> ContextState::*member, Fn fn,
                              void* user_data, void (*user_data_free)(void*), autoscheme_error** error) {
  UserData owned(user_data, user_data_free);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(context);
    CAPI_RETURN_IF_ERROR(CheckProcess(*context->state));
    std::shared_ptr<Callback<Fn>> callback;
    if (fn != nullptr) callback = std::make_shared<Callback<Fn>>(fn, std::move(owned));
    std::lock_guard<std::mutex> lock(context->state->mutex);
    ((*context->state).*member).swap(callback);
    return absl::OkStatus();
  });
}

}  // namespace

extern "C" {

autoscheme_status autoscheme_context_create(autoscheme_context** out, autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(out);
    auto context = std::make_unique<autoscheme_context>();
    context->state = std::make_shared<ContextState>();
    *out = context.release();
    return absl::OkStatus();
  });
}

void autoscheme_context_free(autoscheme_context* context) {
  if (context != nullptr) FreeHandle(context, *context->state);
}

autoscheme_status autoscheme_context_set_log(autoscheme_context* context, autoscheme_log_fn fn, void* user_data,
                                             void (*user_data_free)(void*), autoscheme_error** error) {
  return SetCallback(context, &ContextState::log, fn, user_data, user_data_free, error);
}

autoscheme_status autoscheme_context_set_progress(autoscheme_context* context, autoscheme_progress_fn fn,
                                                  void* user_data, void (*user_data_free)(void*),
                                                  autoscheme_error** error) {
  return SetCallback(context, &ContextState::progress, fn, user_data, user_data_free, error);
}

autoscheme_status autoscheme_context_set_aliases(autoscheme_context* context, const char* json,
                                                 autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(context);
    CAPI_RETURN_IF_ERROR(CheckProcess(*context->state));
    std::shared_ptr<const std::vector<autoscheme::Architecture>> aliases;
    if (json != nullptr) {
      auto read = autoscheme::ReadAliases(json);
      if (!read.ok()) return read.status();
      aliases = std::make_shared<const std::vector<autoscheme::Architecture>>(*std::move(read));
    }
    std::lock_guard<std::mutex> lock(context->state->mutex);
    context->state->aliases.swap(aliases);
    return absl::OkStatus();
  });
}

void autoscheme_cancel(autoscheme_context* context) {
  if (context != nullptr) context->state->cancel.Cancel();
}

}  // extern "C"

namespace autoscheme::capi {
namespace {

template <typename T>
std::shared_ptr<T> Current(ContextState* state, std::shared_ptr<T> ContextState::*member) {
  std::lock_guard<std::mutex> lock(state->mutex);
  return state->*member;
}

// The first callback that says stop is the one that is reported.
void RememberValue(ContextState* state, int32_t value) {
  int32_t none = 0;
  state->callback_value.compare_exchange_strong(none, value);
}

// Never throws: it is called from worker threads, and a host's exception must not end them. Silent in a process that
// was forked off, where the mutex may be held by a thread that is not there.
void Log(ContextState* state, LogLevel level, absl::string_view text) {
  if (IsForked(*state)) return;
  try {
    const auto callback = Current(state, &ContextState::log);
    if (callback == nullptr) return;
    const std::string line = OneLine(text);
    autoscheme_log_message message{};
    message.struct_size = sizeof(message);
    message.level = level == LogLevel::kWarning ? AUTOSCHEME_LOG_WARNING : AUTOSCHEME_LOG_INFO;
    message.text = line.c_str();
    const int32_t value = callback->fn(callback->user_data.get(), &message);
    if (value != 0 && state->busy) {
      RememberValue(state, value);
      state->cancel.Cancel();
    }
  } catch (...) {
  }
}

absl::Status ReportProgress(ContextState* state, const Progress& progress) {
  const auto callback = Current(state, &ContextState::progress);
  if (callback == nullptr) return absl::OkStatus();
  const std::string stage(progress.stage);
  autoscheme_progress step{};
  step.struct_size = sizeof(step);
  step.stage = stage.c_str();
  step.done = progress.done;
  step.total = progress.total;
  step.bytes_read = progress.bytes_read;
  step.elapsed_s = progress.elapsed_s;
  int32_t value = 0;
  try {
    value = callback->fn(callback->user_data.get(), &step);
  } catch (...) {
    return absl::InternalError("the progress callback threw an exception");
  }
  if (value == 0) return absl::OkStatus();
  RememberValue(state, value);
  return absl::CancelledError("stopped by the progress callback");
}

}  // namespace

Context MakeContext(ContextState* state, bool cancellable) {
  Context context;
  context.log = [state](LogLevel level, absl::string_view text) { Log(state, level, text); };
  context.progress = [state](const Progress& progress) { return ReportProgress(state, progress); };
  context.architectures = Current(state, &ContextState::aliases);
  if (cancellable) context.cancel = &state->cancel;
  return context;
}

bool IsForked(const ContextState& state) { return state.process != getpid(); }

absl::Status CheckProcess(const ContextState& state) {
  if (!IsForked(state)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the context was made by process ", state.process,
                                                    " and this is process ", getpid(),
                                                    ", which was forked off without its threads: make a context here"));
}

LongCall::LongCall(std::shared_ptr<ContextState> state) : state_(std::move(state)) {
  if (IsForked(*state_)) return;
  acquired_ = !state_->busy.exchange(true);
  if (!acquired_) return;
  state_->callback_value = 0;
  state_->cancel.Reset();
}

LongCall::~LongCall() {
  if (acquired_) state_->busy = false;
}

absl::Status LongCall::status() const {
  if (acquired_) return absl::OkStatus();
  CAPI_RETURN_IF_ERROR(CheckProcess(*state_));
  return absl::FailedPreconditionError(
      "the context is busy: another long call runs on it or a streamer is open; wait, or use a context of its own");
}

Outcome LongCall::Finish(absl::Status status) const {
  // A callback stops a call by CANCELLED; with any other status the call had failed before it came to that.
  const int32_t value = absl::IsCancelled(status) ? state_->callback_value.load() : 0;
  return Outcome(std::move(status), value);
}

}  // namespace autoscheme::capi
