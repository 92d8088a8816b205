// What every run over a model begins with: its options looked at, its device, its threads; and the barrier before
// LibTorch's exceptions. For pipeline.cc and evaluate.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "autoscheme/scheme_generator.h"
#include "base/system_limits.h"
#include "device/torch_devices.h"
#include "exec/run_resources.h"
#include "plan/precision.h"
#include "planner/planner.h"
#include "scorers/imatrix.h"

namespace autoscheme {

// Sets how many threads of LibTorch work for the calling thread during one call, and puts the host's number back. Other
// threads of the host are not touched: at::set_num_threads would also set what threads take over that are born
// meanwhile.
class ThreadCount {
 public:
  explicit ThreadCount(int threads);
  ~ThreadCount();
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

  // FAILED_PRECONDITION if nothing may be computed in this thread.
  absl::Status status() const;

 private:
  void Set(int threads);

  int before_;
  int mkl_before_ = 0;
  bool changed_ = false;
  bool survived_ = true;
};

// LibTorch reports by exceptions; nothing of it may pass.
absl::Status Guarded(const std::function<absl::Status()>& body);

// For what takes no time: a request to stop that was meant for an earlier call has no effect on it.
Context NotCancellable(Context context);

// INVALID_ARGUMENT for an option about the machine that cannot be.
absl::Status CheckMachineOptions(const Options& options);

// The layers that a menu (Options::schemes) is for, and which of them the options and their shapes fix beforehand.
absl::StatusOr<std::vector<LayerInfo>> LayersFor(const Context& context, const MetaSkeleton& skeleton,
                                                 const Options& options);

// What the process has read and held by now, into the statistics of a run that began at `before`.
void AddProcessFigures(const ProcessReads& before, RunStats& stats);

// What a further run has cost, into the statistics of those before it.
void AddCosts(const RunStats& more, RunStats& stats);

struct RunSetup {
  Context context;
  const MetaSkeleton* skeleton = nullptr;
  Options options;
  Precision precision;
  std::optional<Imatrix> imatrix;           // as given by file
  int threads = 0;                          // 0 = as the process has it
  std::vector<RunDevice> devices;           // none: the processor
  std::optional<DeviceInput> device_input;  // for plans; none on the processor
  // What the process held when this was made: plans do not depend on what was done before them.
  uint64_t floor_bytes = 0;

  // All but the matrix and floor_bytes. Loads the device, before anything else of this process asks LibTorch for it.
  absl::Status Begin(const Context& with, const MetaSkeleton& of, const Options& by);
  // The file's rows by our layer names. INVALID_ARGUMENT for a row of another width than the layer's.
  absl::Status ReadImatrix();
  // But for what the scorers need. Borrows the calibration.
  PlanInput PlanInputOf(const Calibration& calibration) const;
  // The matrix where the device computes; nothing where no file gave one.
  std::optional<Imatrix> ImatrixOn(const RunDevice& device) const;
  // Calls `body` with what a run by this plan computes with: on the device, or, if it is empty, on the processor.
  absl::Status WithResources(const Context& with, const RunDevice& device, const ExecutionPlan& plan,
                             const std::function<absl::Status(RunResources& run)>& body) const;

 private:
  absl::Status FindDevice();
};

}  // namespace autoscheme
