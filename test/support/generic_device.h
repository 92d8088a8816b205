// GenericDevice: as long as it lives, tensors in plain memory are taken for those of a device that has no loops of its
// own but those of the given table, so that everything else goes through LibTorch's operators, as on such a device.
#pragma once

#include <memory>
#include <vector>

#include "device/device.h"
#include "device/torch_devices.h"

namespace autoscheme {

class GenericDevice {
 public:
  explicit GenericDevice(const DeviceApi& with = {}) : api_(Complete(with)), devices_({Opened(api_)}) {}

 private:
  static DeviceApi Complete(DeviceApi table) {
    table.version = kDeviceApiVersion, table.bytes = sizeof(DeviceApi), table.name = "generic";
    table.count = [](int32_t* devices) { return *devices = 1, DeviceResult::kOk; };
    table.open = [](int32_t, void** device) { return *device = nullptr, DeviceResult::kOk; };
    table.close = [](void*) {};
    table.last_error = [] { return "the table's own error"; };
    return table;
  }
  static std::shared_ptr<const Device> Opened(const DeviceApi& api) { return Device::Open(api, 0).value(); }

  const DeviceApi api_;
  StandInDevices devices_;
};

}  // namespace autoscheme
