#include "exec/products.h"

#include <utility>

#include "base/status_macros.h"

namespace autoscheme {

absl::Status ProductMeter::UseDevice(const Device& device) {
  for (std::vector<DeviceEvent>* events : {&starts_, &ends_}) {
    for (size_t i = 0; i < kPairs; ++i) {
      AUTOSCHEME_ASSIGN_OR_RETURN(DeviceEvent event, DeviceEvent::Create(device));
      events->push_back(std::move(event));
    }
  }
  device_ = &device;
  return absl::OkStatus();
}

void ProductMeter::Mark(const DeviceEvent& event) { event.Record(DeviceStream::kCompute).IgnoreError(); }

void ProductMeter::Settle() {
  if (pending_ == 0) return;
  ends_[pending_ - 1].Wait().IgnoreError();
  const DeviceApi& api = device_->api();
  for (size_t i = 0; i < pending_; ++i) {
    double seconds = 0;
    if (api.elapsed(device_->handle(), starts_[i].handle(), ends_[i].handle(), &seconds) == DeviceResult::kOk) {
      seconds_ += seconds;
    }
  }
  pending_ = 0;
}

}  // namespace autoscheme
