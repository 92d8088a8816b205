#include "device/torch_devices.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/AutogradState.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <mutex>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/count.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "device/load_cuda.h"

namespace autoscheme {
namespace {

constexpr char kWanted[] = "must be cpu, or cuda or cuda:N with N from 0 up, several of them separated by commas";

std::atomic<const Device*> stand_in{nullptr};  // what tensors in plain memory are taken for

std::vector<std::shared_ptr<const Device>>& StandIns() {
  static auto* const devices = new std::vector<std::shared_ptr<const Device>>();
  return *devices;
}

// CUDA's devices that this process has opened. LibTorch counts devices in a signed byte.
struct OpenDevices {
  static constexpr int kMost = 128;
  std::mutex mutex;  // held while one is opened
  std::array<std::shared_ptr<const Device>, kMost> owned;
  std::array<std::atomic<const Device*>, kMost> by_index{};
  std::atomic<pid_t> process{0};  // the one that opened the first
};

OpenDevices& Opened() {
  static auto* const devices = new OpenDevices();
  return *devices;
}

absl::StatusOr<RunDevice> OpenCuda(int index) {
  OpenDevices& opened = Opened();
  const pid_t owner = opened.process.load();
  if (owner != 0 && owner != getpid()) {  // asked before the lock, which another thread may have held at the fork
    return absl::FailedPreconditionError(
        absl::StrCat("device cuda:", index,
                     ": this process was forked off one that has a CUDA device open, and can "
                     "use none itself: fork before, or start a new process"));
  }
  if (index >= OpenDevices::kMost) {
    return absl::NotFoundError(
        absl::StrCat("device cuda:", index, " is not there: LibTorch counts no further than ", OpenDevices::kMost - 1));
  }
  const std::lock_guard<std::mutex> lock(opened.mutex);
  if (opened.owned[index] != nullptr) {
    return RunDevice{opened.owned[index]->name(), at::Device(at::kCUDA, index), opened.owned[index]};
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const DeviceApi* const api, LoadCuda());
  AUTOSCHEME_ASSIGN_OR_RETURN(std::shared_ptr<const Device> device, Device::Open(*api, index));
  const int seen = at::detail::getCUDAHooks().getNumGPUs();
  if (index >= seen) {
    return absl::FailedPreconditionError(
        absl::StrCat("device cuda:", index, " is there, but LibTorch sees only ", Count(seen, "device"),
                     ": its CUDA half needs the driver of the CUDA that it is built for"));
  }
  opened.process = getpid();
  opened.by_index[index].store(device.get(), std::memory_order_release);
  opened.owned[index] = device;
  return RunDevice{device->name(), at::Device(at::kCUDA, index), std::move(device)};
}

// A stand-in of that name, if there is one.
std::shared_ptr<const Device> FindStandIn(absl::string_view name) {
  for (const auto& device : StandIns()) {
    if (device->name() == name || (device->index() == 0 && device->api().name == name)) return device;
  }
  return nullptr;
}

absl::Status BadNames(absl::string_view names, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("option device is ", Quoted(names), why));
}

// The N of "cuda:N", 0 of "cuda".
absl::StatusOr<int> CudaIndex(absl::string_view names, absl::string_view name) {
  absl::string_view number = name;
  if (!absl::ConsumePrefix(&number, "cuda") || (!number.empty() && number[0] != ':')) {
    return absl::UnimplementedError(
        absl::StrCat("option device is ", Quoted(names), "; this build has: cpu, cuda, cuda:N"));
  }
  if (number.empty()) return 0;
  number.remove_prefix(1);
  int index = 0;
  const bool digits = number.find_first_not_of("0123456789") == absl::string_view::npos;
  if (!digits || !absl::SimpleAtoi(number, &index)) return BadNames(names, absl::StrCat(", ", kWanted));
  return index;
}

}  // namespace

absl::StatusOr<std::vector<RunDevice>> FindDevices(absl::string_view names) {
  if (names == "cpu") return std::vector<RunDevice>(1);
  std::vector<RunDevice> found;
  std::vector<int> cuda;  // to be opened when all names are known to be right
  for (const absl::string_view name : absl::StrSplit(names, ',')) {
    if (name.empty()) return BadNames(names, absl::StrCat(", ", kWanted));
    if (name == "cpu") return BadNames(names, ": the processor computes alone, give cpu or leave it out");
    const auto stand_in = FindStandIn(name);
    if (stand_in != nullptr) {
      found.push_back({stand_in->name(), at::kCPU, stand_in});
    } else {
      AUTOSCHEME_ASSIGN_OR_RETURN(const int index, CudaIndex(names, name));
      cuda.push_back(index);
      found.push_back({absl::StrCat("cuda:", index), at::kCPU, nullptr});
    }
    for (size_t i = 0; i + 1 < found.size(); ++i) {
      if (found[i].name == found.back().name)
        return BadNames(names, absl::StrCat(": ", found[i].name, " is named twice"));
    }
  }
  size_t next = 0;
  for (RunDevice& device : found) {
    if (device.device != nullptr) continue;
    AUTOSCHEME_ASSIGN_OR_RETURN(device, OpenCuda(cuda[next++]));
  }
  return found;
}

const Device* DeviceOf(const at::Tensor& t) {
  if (t.is_cpu()) return stand_in.load(std::memory_order_acquire);
  if (!t.is_cuda()) return nullptr;
  const int index = t.get_device();
  return index >= 0 && index < OpenDevices::kMost ? Opened().by_index[index].load(std::memory_order_acquire) : nullptr;
}

GradientsOnThisThread::GradientsOnThisThread()
    : before_(c10::AutogradState::get_tls_state().get_multithreading_enabled()) {
  c10::AutogradState::get_tls_state().set_multithreading_enabled(false);
}

GradientsOnThisThread::~GradientsOnThisThread() {
  c10::AutogradState::get_tls_state().set_multithreading_enabled(before_);
}

StandInDevices::StandInDevices(std::vector<std::shared_ptr<const Device>> devices) {
  StandIns() = std::move(devices);
  stand_in.store(StandIns().empty() ? nullptr : StandIns()[0].get(), std::memory_order_release);
}

StandInDevices::~StandInDevices() {
  stand_in.store(nullptr, std::memory_order_release);
  StandIns().clear();
}

}  // namespace autoscheme
