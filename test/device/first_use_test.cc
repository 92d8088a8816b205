// What a process does first decides whether LibTorch ever sees CUDA, so each case is a process of its own.
//
// usage: autoscheme_first_use_test fresh|late|plugin|table [PLUGIN]
//   fresh    LibTorch's CUDA half is loaded before anything asks for it
//   late     the same behind a backward pass on the processor: an error, behind which the processor still computes
//   plugin   FindDevices("cuda") with PLUGIN: as far as this machine goes, at most to the driver's error
//   table    PLUGIN's table without LibTorch's CUDA half, likewise
// Prints one line: "passed", "skipped" where libraries of the CUDA half are missing, or "failed", and what was met.
#include <ATen/ATen.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <stdlib.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdio>
#include <string>

#include "absl/strings/match.h"
#include "device/load_cuda.h"
#include "device/torch_devices.h"

namespace autoscheme {
namespace {

bool GradientsOnProcessor() {
  const at::Tensor x = at::full({2}, 3.0).requires_grad_();
  return torch::autograd::grad({(x * x).sum()}, {x})[0].eq(6).all().item<bool>();
}

int Say(const char* result, const absl::Status& status) {
  std::printf("%s: %s\n", result, status.ok() ? "ok" : std::string(status.message()).c_str());
  return *result == 'f' ? 1 : 0;
}

bool LacksLibraries(const absl::Status& status) {
  return absl::StrContains(status.message(), "cannot be loaded") &&
         absl::StrContains(status.message(), "cannot open shared object file") &&
         absl::StrContains(status.message(), "bootstrap.sh --cuda");
}

// What may be met where all libraries are there: a device, or the lack of a driver or of devices.
bool IsOfThisMachine(const absl::Status& status) {
  return status.ok() ||
         (status.code() == absl::StatusCode::kFailedPrecondition && (absl::StrContains(status.message(), "driver")));
}

int Fresh() {
  const absl::Status status = LoadTorchCuda();
  if (LacksLibraries(status)) return Say(GradientsOnProcessor() ? "skipped" : "failed", status);
  const bool works = status.ok() && LoadTorchCuda().ok() && at::detail::getCUDAHooks().hasCUDART();
  return Say(works && GradientsOnProcessor() ? "passed" : "failed", status);
}

int Late() {
  if (!GradientsOnProcessor()) return Say("failed", absl::UnknownError("no gradients"));
  const absl::Status status = LoadTorchCuda();
  if (LacksLibraries(status)) return Say(GradientsOnProcessor() ? "skipped" : "failed", status);
  const bool refused = status.code() == absl::StatusCode::kFailedPrecondition &&
                       absl::StrContains(status.message(), "before its CUDA half was loaded");
  return Say(refused && GradientsOnProcessor() ? "passed" : "failed", status);
}

int Plugin(const char* path) {
  setenv("AUTOSCHEME_CUDA_PLUGIN", path, 1);
  const absl::Status status = FindDevices("cuda").status();
  if (LacksLibraries(status)) return Say("skipped", status);
  const bool again = FindDevices("cuda").status() == status && !FindDevices("cuda:99").ok() && FindDevices("cpu").ok();
  return Say(IsOfThisMachine(status) && again && GradientsOnProcessor() ? "passed" : "failed", status);
}

int Table(const char* path) {
  const auto table = LoadTable(path);
  if (!table.ok()) return Say(LacksLibraries(table.status()) ? "skipped" : "failed", table.status());
  const absl::Status status = Device::Open(**table, 0).status();
  return Say(IsOfThisMachine(status) && GradientsOnProcessor() ? "passed" : "failed", status);
}

}  // namespace
}  // namespace autoscheme

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  if (name == "fresh") return autoscheme::Fresh();
  if (name == "late") return autoscheme::Late();
  if (name == "plugin" && argc > 2) return autoscheme::Plugin(argv[2]);
  if (name == "table" && argc > 2) return autoscheme::Table(argv[2]);
  return 2;
}
