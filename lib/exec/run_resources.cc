#include "exec/run_resources.h"

#include <algorithm>

#include "base/status_macros.h"

namespace autoscheme {

absl::Status RunResources::UseDevice(const RunDevice& on, const ExecutionPlan& plan) {
  device = on;
  AUTOSCHEME_ASSIGN_OR_RETURN(free_before_, on.device->FreeBytes());
  AUTOSCHEME_RETURN_IF_ERROR(activations.Reserve(on, plan.device_pool_bytes));
  AUTOSCHEME_RETURN_IF_ERROR(weights.Reserve(on, plan.device_weight_pool_bytes));
  AUTOSCHEME_RETURN_IF_ERROR(products.UseDevice(*on.device));
  if (plan.staging_bytes == 0) return absl::OkStatus();
  AUTOSCHEME_ASSIGN_OR_RETURN(staging, DeviceMemory::Allocate(*on.device, DeviceMemory::Kind::kPinned,
                                                              plan.staging_bytes, "tensors that are stored away"));
  return absl::OkStatus();
}

absl::Status RunResources::SampleDeviceMemory() {
  if (!on_device()) return absl::OkStatus();
  uint64_t free = 0, process = 0;
  AUTOSCHEME_RETURN_IF_ERROR(device.device->Check(device.device->api().memory(device.device->handle(), &free, &process),
                                                  "asking for its free memory"));
  const uint64_t taken = free_before_ - std::min(free, free_before_) + kDeviceContextBytes;
  stats.peak_vram_bytes = std::max(stats.peak_vram_bytes, process > 0 ? process : taken);
  return absl::OkStatus();
}

}  // namespace autoscheme
