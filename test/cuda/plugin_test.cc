// The plugin's table over a run time in plain memory: who gets what, what is given back, and what errors become.
#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <string>

#include "cuda/fake_run_time.h"
#include "device/device.h"

extern "C" const autoscheme::DeviceApi* autoscheme_device_api();

namespace autoscheme {
namespace {

using Catch::Contains;
using cuda::Fake;

const DeviceApi& Table() {
  Fake() = {};
  return *autoscheme_device_api();
}

std::unique_ptr<Device> OpenOne(int index = 0) {
  auto device = Device::Open(Table(), index);
  INFO(device.status());
  REQUIRE(device.ok());
  return *std::move(device);
}

TEST_CASE("a device is opened and closed, and the host's current device stays what it was") {
  {
    const auto device = OpenOne(1);
    CHECK(Fake().workspace != nullptr);  // given behind the stream, which would take it away
    CHECK(Fake().held == 4);             // two streams, the workspace, cuBLAS
    const auto properties = device->Properties();
    REQUIRE(properties.ok());
    CHECK(std::strlen(properties->name) == sizeof(properties->name) - 1);
    CHECK(properties->major == 9);
    CHECK(properties->minor == 1);
    CHECK(properties->total_bytes == uint64_t{80} << 30);
    CHECK(*device->FreeBytes() == 100);
  }
  CHECK(Fake().held == 0);
  CHECK(Fake().contexts.empty());
  CHECK(Fake().most_contexts == 1);
}

TEST_CASE("whichever call fails while a device is opened, nothing is kept and the line names it") {
  int opened_at = 0;
  for (int k = 1; opened_at == 0; ++k) {
    for (const cudaError_t error : {cudaErrorInvalidValue, cudaErrorMemoryAllocation}) {
      const DeviceApi& api = Table();
      Fake().failing = k, Fake().error = error;
      const auto device = Device::Open(api, 0);
      if (device.ok()) {
        opened_at = k;
        break;
      }
      CAPTURE(k, device.status());
      CHECK(device.status().code() == absl::StatusCode::kFailedPrecondition);
      CHECK_THAT(std::string(device.status().message()), Contains("cu"));
      CHECK(Fake().held == 0);
      CHECK(Fake().contexts.empty());
    }
  }
  CHECK(opened_at > 12);
}

TEST_CASE("no driver and an old one are told apart, with the versions found and needed") {
  for (const int driver : {0, 12040}) {
    const DeviceApi& api = Table();
    Fake().driver = driver;
    const absl::Status status = Device::Open(api, 0).status();
    CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
    CHECK_THAT(std::string(status.message()), Contains("driver 580 or later") && Contains("CUDA 13.0") &&
                                                  Contains(driver == 0 ? "there is no CUDA driver" : "for CUDA 12.4"));
  }
  const DeviceApi& api = Table();
  Fake().failing = 1, Fake().error = cudaErrorNoDevice;
  int32_t count = 7;
  CHECK(api.count(&count) == DeviceResult::kNoDevice);
  CHECK(count == 0);
}

TEST_CASE("memory, copies and events go to the device and come back") {
  const auto device = OpenOne();
  const DeviceApi& api = device->api();
  void* data = nullptr;
  REQUIRE(api.allocate(device->handle(), 8, &data) == DeviceResult::kOk);
  char bytes[8] = "seven..", back[8] = {};
  CHECK(api.pin(device->handle(), bytes, sizeof(bytes)) == DeviceResult::kOk);
  CHECK(api.copy_up(device->handle(), DeviceStream::kUp, data, bytes, 8) == DeviceResult::kOk);
  CHECK(api.copy_down(device->handle(), DeviceStream::kDown, back, data, 8) == DeviceResult::kOk);
  CHECK(std::string(back) == "seven..");
  CHECK(api.unpin(device->handle(), bytes) == DeviceResult::kOk);
  CHECK(api.release(device->handle(), data) == DeviceResult::kOk);
  const auto event = DeviceEvent::Create(*device);
  REQUIRE(event.ok());
  CHECK(event->Record(DeviceStream::kUp).ok());
  CHECK(event->WaitOn(DeviceStream::kCompute).ok());
  CHECK(event->Wait().ok());
  double seconds = 0;
  CHECK(api.elapsed(device->handle(), event->handle(), event->handle(), &seconds) == DeviceResult::kOk);
  CHECK(seconds == 1.5);
}

TEST_CASE("memory that is short leaves the device usable, and the line has what is free") {
  const auto device = OpenOne();
  Fake().failing = Fake().calls + 1, Fake().error = cudaErrorMemoryAllocation;
  const absl::Status status = DeviceMemory::Allocate(*device, DeviceMemory::Kind::kDevice, 4096, "a test").status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(status.message()), Contains("100 of its 200 bytes are free"));
  CHECK(DeviceMemory::Allocate(*device, DeviceMemory::Kind::kPinned, 4096, "a test").ok());
}

TEST_CASE("an error that stays is a broken device, one that goes is a failed call") {
  const auto device = OpenOne();
  Fake().failing = Fake().calls + 1;
  const absl::Status once = device->Synchronize(DeviceStream::kCompute);
  CHECK(once.code() == absl::StatusCode::kInternal);
  CHECK_THAT(std::string(once.message()), !Contains("any more") && Contains("cudaErrorOfATest"));
  CHECK(device->Synchronize(DeviceStream::kCompute).ok());
  Fake().failing = Fake().calls + 1, Fake().sticky = true, Fake().error = cudaErrorIllegalAddress;
  for (int i = 0; i < 2; ++i) {
    CHECK_THAT(std::string(device->Synchronize(DeviceStream::kCompute).message()), Contains("any more"));
  }
}

}  // namespace
}  // namespace autoscheme
