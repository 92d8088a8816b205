// What a host hands to every long call: log, progress, cancel, models of its own. All optional, silent by default.
#ifndef AUTOSCHEME_CONTEXT_H_
#define AUTOSCHEME_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace autoscheme {

struct Architecture;  // architecture.h
class Io;             // lib/base/io.h: every file operation; null means the operating system's

// Set from any thread, also from a signal handler; read by the running stages at least once per block.
class CancelToken {
 public:
  void Cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }
  void Reset() noexcept { cancelled_.store(false, std::memory_order_relaxed); }
  bool cancelled() const noexcept { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
};

enum class LogLevel : int32_t { kInfo = 0, kWarning = 1 };

// One step of long work. `stage` is "forward", "head", "backward" or "select"; of a refinement
// "refine forward" or "refine head", of a verification "verify forward" or "verify head".
struct Progress {
  absl::string_view stage;
  int64_t done = 0;        // steps of this stage that are finished; a step is one block (or one head tile)
  int64_t total = 0;       // steps of this stage
  int64_t bytes_read = 0;  // from the checkpoint, since the run began
  double elapsed_s = 0;    // since the run began
};

// Copyable bundle of borrowed things; they must outlive every object made with it.
// log may be called from a worker thread; progress is called on the thread that called the long function.
struct Context {
  std::function<void(LogLevel, absl::string_view)> log;
  // A status other than OK stops the run, which returns that status.
  std::function<absl::Status(const Progress&)> progress;
  const CancelToken* cancel = nullptr;
  Io* io = nullptr;
  // Models that the host describes, for MetaSkeleton::Open; each name at most once. Null: the built-in ones alone.
  std::shared_ptr<const std::vector<Architecture>> architectures;

  // CANCELLED if the host has asked to stop, else OK.
  absl::Status CheckCancelled() const {
    if (cancel != nullptr && cancel->cancelled()) return absl::CancelledError("cancelled by the host");
    return absl::OkStatus();
  }
  void Warn(absl::string_view text) const {
    if (log) log(LogLevel::kWarning, text);
  }
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_CONTEXT_H_
