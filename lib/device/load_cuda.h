// The way to CUDA's table of functions. LibTorch's CUDA half and our plugin are loaded when a host asks for such a
// device and at no other time: until then a process has no CUDA library beyond those that LibTorch's CPU half needs.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "device/device_api.h"

namespace autoscheme {

// The table, which lives as long as the process. What was loaded stays; what failed may be tried again. Any thread.
//
// Errors are those of the three steps that it takes, in this order.
absl::StatusOr<const DeviceApi*> LoadCuda();

// The plugin's file: AUTOSCHEME_CUDA_PLUGIN of the environment, a full path, else libautoscheme_cuda.so in the folder
// of the library or program that holds this code. UNIMPLEMENTED: it is not there, this installation knows no CUDA.
// NOT_FOUND, INVALID_ARGUMENT: what the environment names is no file, or no full path.
absl::StatusOr<std::string> FindCudaPlugin();

// libtorch_cuda.so from the folder of libtorch_cpu.so. LibTorch looks for it once in a process, when anything first
// asks whether there is CUDA, as every backward pass does, the processor's too; what is loaded later has no effect.
// FAILED_PRECONDITION where that has happened, where LibTorch is one for the processor alone, or where a library that
// it needs is missing.
absl::Status LoadTorchCuda();

// The table of a plugin. FAILED_PRECONDITION: it cannot be loaded, is no plugin, or is one of another version.
absl::StatusOr<const DeviceApi*> LoadTable(const std::string& plugin);

}  // namespace autoscheme
