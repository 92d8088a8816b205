// OffloadManager: the ledger of residency for weights that live in a host's memory.
#ifndef AUTOSCHEME_OFFLOAD_MANAGER_H_
#define AUTOSCHEME_OFFLOAD_MANAGER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"
#include "autoscheme/tensor.h"

namespace autoscheme {

class Checkpoint;

// How the host gives up and takes back one tensor. All run on the thread that calls Release or Reload, and must not
// call the manager. After an error the tensor counts as being where it was before the call. An exception that a
// callback throws is taken as an error (UNKNOWN).
struct HostTensorCallbacks {
  // Copies the tensor's current bytes into `out` (exactly info.bytes long). Only called in offload mode.
  std::function<absl::Status(const std::string& name, absl::Span<std::byte> out)> save;
  // Frees the host's memory of the tensor.
  std::function<absl::Status(const std::string& name)> release;
  // Gives the bytes back; the host copies them out of `bytes`, which is borrowed for the call.
  std::function<absl::Status(const std::string& name, absl::Span<const std::byte> bytes)> restore;
};

enum class OffloadMode : int32_t {
  kClean = 0,    // drop; read again from the checkpoint (refused for tensors the checkpoint does not hold)
  kOffload = 1,  // write to a spill file first, for tensors that the checkpoint cannot give back
};

// Never clears what it cannot restore: Release checks that every named tensor can be given back, and in offload mode
// that it has been written, before the first one is freed. When a release fails half way, what was freed is restored.
// A cancel stops a release before anything is freed; it never stops a reload. Needs memory for one copy of the largest
// tensor while it works.
// Thread-safety: one thread at a time.
class OffloadManager {
 public:
  struct Options {
    OffloadMode mode = OffloadMode::kClean;
    std::string work_dir;  // for the spill file of offload mode; empty: TMPDIR, else /tmp
  };
  // `checkpoint` is borrowed, and may be null in offload mode. INVALID_ARGUMENT for a callback that the mode needs and
  // the host did not give; FAILED_PRECONDITION in clean mode for the checkpoint of a config.json alone.
  static absl::StatusOr<std::unique_ptr<OffloadManager>> Create(const Context& context, const Checkpoint* checkpoint,
                                                                HostTensorCallbacks host, const Options& options);
  // Restores everything that is still released; failures are logged.
  ~OffloadManager();

  // Registers a tensor of the host; resident. `info.name` is the key; in clean mode the checkpoint must hold it with
  // the same dtype and shape. ALREADY_EXISTS, NOT_FOUND, INVALID_ARGUMENT.
  absl::Status Manage(TensorInfo info);
  // Frees the named tensors (all if empty). Releasing a released tensor is a no-op. NOT_FOUND for a name that was never
  // registered; DATA_LOSS when the checkpoint has changed since it was opened; RESOURCE_EXHAUSTED when the spill folder
  // is full; else what the host's callback said.
  absl::Status Release(absl::Span<const std::string> names = {});
  // Brings the named tensors back (all if empty). Goes on after a failure and returns the first error; what could not
  // be restored stays released and can be tried again.
  absl::Status Reload(absl::Span<const std::string> names = {});
  bool resident(const std::string& name) const;
  uint64_t resident_bytes() const;
  uint64_t released_bytes() const;

  // Released on construction, reloaded on every way out. Check status() after construction; call Reload() for the
  // error of the way back (the destructor can only log it). Brings back only what it released itself, so scopes nest.
  class Scope {
   public:
    Scope(OffloadManager& manager, std::vector<std::string> names);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    const absl::Status& status() const { return status_; }
    absl::Status Reload();

   private:
    OffloadManager& manager_;
    std::vector<std::string> names_;
    absl::Status status_;
    bool active_ = false;
  };

 private:
  struct Rep;
  explicit OffloadManager(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_OFFLOAD_MANAGER_H_
