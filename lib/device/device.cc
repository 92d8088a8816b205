#include "device/device.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/count.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

absl::string_view Setting(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> Device::Open(const DeviceApi& api, int index) {
  int32_t count = 0;
  DeviceResult result = api.count(&count);
  if (result == DeviceResult::kNoDriver || result == DeviceResult::kNoDevice ||
      (result == DeviceResult::kOk && count == 0)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "device ", api.name, ": ", result == DeviceResult::kOk ? "this machine has none" : api.last_error(),
        "; give device cpu, or run where there is one"));
  }
  if (result == DeviceResult::kOk && (index < 0 || index >= count)) {
    return absl::NotFoundError(absl::StrCat("device ", api.name, ":", index, " is not there: this machine has ",
                                            Count(count, "device"), ", counted from 0"));
  }
  void* handle = nullptr;
  if (result == DeviceResult::kOk) result = api.open(index, &handle);
  if (result != DeviceResult::kOk) {
    return absl::FailedPreconditionError(
        absl::StrCat("device ", api.name, ":", index, " cannot be used: ", api.last_error()));
  }
  return std::unique_ptr<Device>(new Device(api, handle, index));
}

Device::Device(const DeviceApi& api, void* handle, int index)
    : api_(api), handle_(handle), index_(index), uses_kernels_(Setting("AUTOSCHEME_DEVICE_KERNELS") != "0") {}

Device::~Device() { api_.close(handle_); }

std::string Device::name() const { return absl::StrCat(api_.name, ":", index_); }

absl::Status Device::Check(DeviceResult result, absl::string_view what) const {
  if (result == DeviceResult::kOk) return absl::OkStatus();
  const std::string text = absl::StrCat("device ", name(), ": ", what, ": ", api_.last_error());
  if (result == DeviceResult::kOutOfMemory) return absl::ResourceExhaustedError(text);
  if (result == DeviceResult::kBroken) {
    return absl::InternalError(
        absl::StrCat(text, "; this process cannot use the device any more: start another, or go on with device cpu"));
  }
  return absl::InternalError(text);
}

absl::StatusOr<DeviceProperties> Device::Properties() const {
  DeviceProperties properties = {};
  AUTOSCHEME_RETURN_IF_ERROR(Check(api_.properties(handle_, &properties), "asking what it is"));
  return properties;
}

absl::Status Device::Synchronize(DeviceStream stream) const {
  return Check(api_.synchronize(handle_, stream), "waiting for its work");
}

absl::StatusOr<uint64_t> Device::FreeBytes() const {
  uint64_t free = 0, process = 0;
  AUTOSCHEME_RETURN_IF_ERROR(Check(api_.memory(handle_, &free, &process), "asking for its free memory"));
  return free;
}

absl::StatusOr<DeviceMemory> DeviceMemory::Allocate(const Device& device, Kind kind, uint64_t bytes,
                                                    absl::string_view what) {
  DeviceMemory memory;
  void* data = nullptr;
  const auto allocate = kind == Kind::kDevice ? device.api().allocate : device.api().allocate_pinned;
  AUTOSCHEME_RETURN_IF_ERROR(
      device.Check(allocate(device.handle(), bytes, &data),
                   absl::StrCat("allocating ", Count(bytes, "byte"), " of ",
                                kind == Kind::kDevice ? "its memory" : "pinned host memory", " for ", what)));
  memory.device_ = &device, memory.kind_ = kind, memory.data_ = static_cast<std::byte*>(data), memory.bytes_ = bytes;
  return memory;
}

void DeviceMemory::Reset() noexcept {
  if (data_ == nullptr) return;
  const DeviceApi& api = device_->api();
  (kind_ == Kind::kDevice ? api.release : api.release_pinned)(device_->handle(), data_);
  data_ = nullptr;
}

absl::StatusOr<DeviceEvent> DeviceEvent::Create(const Device& device) {
  DeviceEvent made;
  void* event = nullptr;
  AUTOSCHEME_RETURN_IF_ERROR(device.Check(device.api().create_event(device.handle(), &event), "making an event"));
  made.device_ = &device, made.event_ = event;
  return made;
}

DeviceEvent::~DeviceEvent() {
  if (event_ != nullptr) device_->api().destroy_event(device_->handle(), event_);
}

absl::Status DeviceEvent::Record(DeviceStream stream) const {
  return device_->Check(device_->api().record(device_->handle(), stream, event_), "recording an event");
}

absl::Status DeviceEvent::Wait() const {
  return device_->Check(device_->api().wait(device_->handle(), event_), "waiting for an event");
}

absl::Status DeviceEvent::WaitOn(DeviceStream stream) const {
  return device_->Check(device_->api().stream_wait(device_->handle(), stream, event_), "letting a stream wait");
}

}  // namespace autoscheme
