// RunResources: what a run computes with. There is one for a run, made by the pipeline and handed down by reference.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "autoscheme/context.h"
#include "autoscheme/io_engine.h"
#include "autoscheme/run_stats.h"
#include "device/torch_devices.h"
#include "exec/products.h"
#include "exec/weights.h"
#include "plan/execution_plan.h"
#include "plan/precision.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {

class Lanes;

// Outlives all that holds tensors of a run. One thread.
struct RunResources {
  explicit RunResources(const Context& run_context) : context(run_context) {}
  RunResources(const RunResources&) = delete;
  RunResources& operator=(const RunResources&) = delete;

  at::ScalarType dtype() const { return TorchType(precision.dtype); }
  at::ScalarType operands() const { return TorchType(precision.operands); }
  // How products that form gradients round their factors.
  ProductType gradients() const { return precision.tf32_gradients ? ProductType::kTf32 : ProductType::kExact; }

  const Context& context;
  RunDevice device;  // the processor, unless UseDevice was called
  Precision precision;
  IoEngine io_engine = IoEngine::kAuto;
  std::string work_dir;  // for the spill file; empty: TMPDIR, else /tmp
  // Dequantized weights lie apart from activations: saved activations would settle in the room that weights leave from
  // unit to unit, and the next unit's weights would find none.
  TensorPool activations, weights;
  ProductMeter products;
  RunStats stats;  // filled in place

  // The run computes on that device, with pools and pinned memory as planned. RESOURCE_EXHAUSTED.
  absl::Status UseDevice(const RunDevice& on, const ExecutionPlan& plan);
  // Looks at what the process holds of the device, for the statistics.
  absl::Status SampleDeviceMemory();
  bool on_device() const { return device.device != nullptr; }
  // Options of a new tensor where the run computes.
  at::TensorOptions Options(at::ScalarType type) const { return at::TensorOptions().device(device.torch).dtype(type); }
  DeviceMemory staging;  // pinned; carries a tensor that is stored away
  // On a device: the lanes of this run, borrowed, and which of them this is.
  Lanes* lanes = nullptr;
  int lane = 0;
  // What the checkpoint itself had read when the first lane began; nothing: that is this one.
  std::optional<uint64_t> bytes_before;

 private:
  uint64_t free_before_ = 0;  // on the device
};

}  // namespace autoscheme
