// Which device works on a tensor, and the devices that a host names.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "device/device.h"

namespace autoscheme {

// A device, and where LibTorch puts its tensors. `device` is null for the processor.
struct RunDevice {
  std::string name = "cpu";
  at::Device torch = at::kCPU;
  std::shared_ptr<const Device> device;
};

// "cpu", or "cuda", "cuda:1", "cuda:0,cuda:1"; "cuda" is "cuda:0". Opens what is not open yet; devices stay open, as
// their contexts do, until the process ends, and are the same objects in every call. For "cpu" nothing is loaded and
// LibTorch is asked nothing. Any thread.
//
// INVALID_ARGUMENT for no name, a malformed number, a device that is named twice, the processor beside others;
// UNIMPLEMENTED for a name that is not known, listing those that are; FAILED_PRECONDITION in a process that was forked
// off one which had a device open; else the errors of loading (load_cuda.h) and of Device::Open.
absl::StatusOr<std::vector<RunDevice>> FindDevices(absl::string_view names);

// The device whose memory a tensor lies in; null: it is the processor's.
const Device* DeviceOf(const at::Tensor& t);
// Whether the processor's own loops may work on it.
inline bool OnHost(const at::Tensor& t) { return t.is_cpu() && DeviceOf(t) == nullptr; }

// As long as this lives, gradients that the calling thread asks for are computed by that thread, on a device too.
// LibTorch otherwise gives a device's nodes to a thread of its own, which it starts before the first backward pass of
// the process or never: a pass over a device that was loaded later would fail.
class GradientsOnThisThread {
 public:
  GradientsOnThisThread();
  ~GradientsOnThisThread();
  GradientsOnThisThread(const GradientsOnThisThread&) = delete;
  GradientsOnThisThread& operator=(const GradientsOnThisThread&) = delete;

 private:
  const bool before_;
};

// For tests: as long as this lives, its devices have the names "<name of the table>:0", .. and all tensors in plain
// memory are taken for theirs. One at a time.
class StandInDevices {
 public:
  explicit StandInDevices(std::vector<std::shared_ptr<const Device>> devices);
  ~StandInDevices();
  StandInDevices(const StandInDevices&) = delete;
  StandInDevices& operator=(const StandInDevices&) = delete;
};

}  // namespace autoscheme
