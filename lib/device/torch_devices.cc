#include "device/torch_devices.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/io.h"

namespace autoscheme {
namespace {

std::atomic<const Device*> stand_in{nullptr};  // what tensors in plain memory are taken for

std::vector<std::shared_ptr<const Device>>& StandIns() {
  static auto* const devices = new std::vector<std::shared_ptr<const Device>>();
  return *devices;
}

absl::StatusOr<RunDevice> FindDevice(absl::string_view name) {
  if (name == "cpu") return RunDevice();
  for (const auto& device : StandIns()) {
    if (device->name() == name || (device->index() == 0 && device->api().name == name)) {
      return RunDevice{device->name(), at::kCPU, device};
    }
  }
  return absl::UnimplementedError(absl::StrCat("option device is ", Quoted(name), "; this build has: cpu"));
}

}  // namespace

absl::StatusOr<std::vector<RunDevice>> FindDevices(absl::string_view names) {
  std::vector<RunDevice> found;
  for (const absl::string_view name : absl::StrSplit(names, ',')) {
    auto device = FindDevice(name);
    if (!device.ok()) return device.status();
    found.push_back(*std::move(device));
  }
  return found;
}

const Device* DeviceOf(const at::Tensor& t) {
  if (t.is_cpu()) return stand_in.load(std::memory_order_acquire);
  return nullptr;
}

const Device* KernelsOf(const at::Tensor& t) {
  const Device* device = DeviceOf(t);
  return device != nullptr && device->uses_kernels() ? device : nullptr;
}

Number NumberOf(const at::Tensor& t) {
  if (t.scalar_type() == at::kBFloat16) return Number::kBF16;
  if (t.scalar_type() == at::kHalf) return Number::kF16;
  TORCH_CHECK(t.scalar_type() == at::kFloat, "a device works on float32, bfloat16 and float16, not on ",
              t.scalar_type());
  return Number::kF32;
}

void RequireOk(const Device& device, DeviceResult result, absl::string_view what) {
  if (result == DeviceResult::kOk) return;
  TORCH_CHECK(false, std::string(device.Check(result, what).message()));
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
