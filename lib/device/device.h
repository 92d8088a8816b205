// Device: one opened device, its memory and its events, with errors as absl::Status.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "device/device_api.h"

namespace autoscheme {

// Thread-safe as DeviceApi says. Outlives what it gives.
class Device {
 public:
  // FAILED_PRECONDITION: no driver; NOT_FOUND: no device of that number, naming how many there are.
  static absl::StatusOr<std::unique_ptr<Device>> Open(const DeviceApi& api, int index);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceApi& api() const { return api_; }
  void* handle() const { return handle_; }
  int index() const { return index_; }
  // Whether the loops and products of the table are used, where it has them. Not if AUTOSCHEME_DEVICE_KERNELS was 0
  // when the device was opened: LibTorch's operators then do all, which tells a fault of the one from one of the other.
  bool uses_kernels() const { return uses_kernels_; }
  std::string name() const;  // "cuda:0"

  // What a call of the table came to. `what` says what was wanted, as in "copying 16 MiB to the device".
  // RESOURCE_EXHAUSTED for memory; INTERNAL for the rest, where a device that is broken is said to be.
  absl::Status Check(DeviceResult result, absl::string_view what) const;

  absl::StatusOr<DeviceProperties> Properties() const;
  absl::Status Synchronize(DeviceStream stream) const;
  // Bytes that are free on the device.
  absl::StatusOr<uint64_t> FreeBytes() const;

 private:
  Device(const DeviceApi& api, void* handle, int index);
  const DeviceApi& api_;
  void* const handle_;
  const int index_;
  const bool uses_kernels_;
};

// Memory of the device, or host memory that is pinned for it; freed with this object.
class DeviceMemory {
 public:
  enum class Kind { kDevice, kPinned };
  // RESOURCE_EXHAUSTED, with the bytes and what they were for.
  static absl::StatusOr<DeviceMemory> Allocate(const Device& device, Kind kind, uint64_t bytes, absl::string_view what);
  DeviceMemory() = default;
  ~DeviceMemory() { Reset(); }
  DeviceMemory(DeviceMemory&& other) noexcept { Swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    Swap(other);
    return *this;
  }
  std::byte* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

 private:
  void Reset() noexcept;
  void Swap(DeviceMemory& other) noexcept {
    std::swap(device_, other.device_), std::swap(kind_, other.kind_), std::swap(data_, other.data_),
        std::swap(bytes_, other.bytes_);
  }
  const Device* device_ = nullptr;
  Kind kind_ = Kind::kDevice;
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// A point in a stream's work.
class DeviceEvent {
 public:
  static absl::StatusOr<DeviceEvent> Create(const Device& device);
  DeviceEvent() = default;
  ~DeviceEvent();
  DeviceEvent(DeviceEvent&& other) noexcept
      : device_(std::exchange(other.device_, nullptr)), event_(std::exchange(other.event_, nullptr)) {}
  DeviceEvent& operator=(DeviceEvent&& other) noexcept {
    std::swap(device_, other.device_), std::swap(event_, other.event_);
    return *this;
  }
  void* handle() const { return event_; }
  absl::Status Record(DeviceStream stream) const;
  absl::Status Wait() const;                       // the thread waits
  absl::Status WaitOn(DeviceStream stream) const;  // the stream waits

 private:
  const Device* device_ = nullptr;
  void* event_ = nullptr;
};

}  // namespace autoscheme
