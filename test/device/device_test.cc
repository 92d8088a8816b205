// Device, DeviceMemory, DeviceEvent: what they ask of a table, and what its results become.
#include "device/device.h"

#include <catch2/catch.hpp>

#include "device/made_table.h"

namespace autoscheme {
namespace {

using Catch::Contains;

// The table as it is at first, whatever a test before left.
const DeviceApi& Table() {
  static const DeviceApi api = MadeTable::Make("made");
  MadeTable::devices = 2, MadeTable::result = DeviceResult::kOk;
  return api;
}

std::unique_ptr<Device> OpenOne(int index = 0) {
  auto device = Device::Open(Table(), index);
  REQUIRE(device.ok());
  return *std::move(device);
}

TEST_CASE("a device is opened by its number, and closed") {
  {
    const auto device = OpenOne(1);
    CHECK(MadeTable::open == 1);
    CHECK(device->name() == "made:1");
    CHECK(device->index() == 1);
    CHECK(device->Properties()->total_bytes == 1 << 30);
    CHECK(*device->FreeBytes() == 77);
    CHECK(device->Synchronize(DeviceStream::kCompute).ok());
  }
  CHECK(MadeTable::open == 0);
}

TEST_CASE("a device beyond the last is NOT_FOUND and says how many there are") {
  for (const int index : {2, 99, -1}) {
    const absl::Status status = Device::Open(Table(), index).status();
    CHECK(status.code() == absl::StatusCode::kNotFound);
    CHECK_THAT(std::string(status.message()), Contains("made:" + std::to_string(index)) && Contains("2 devices"));
  }
}

TEST_CASE("a machine without a driver or a device is FAILED_PRECONDITION, with the table's words") {
  for (const DeviceResult result : {DeviceResult::kNoDriver, DeviceResult::kNoDevice, DeviceResult::kFailed}) {
    const DeviceApi& api = Table();
    MadeTable::result = result;
    const absl::Status status = Device::Open(api, 0).status();
    CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
    CHECK_THAT(std::string(status.message()), Contains(MadeTable::error));
  }
  const DeviceApi& api = Table();
  MadeTable::devices = 0;
  CHECK_THAT(std::string(Device::Open(api, 0).status().message()), Contains("this machine has none"));
}

TEST_CASE("memory is given back once, wherever it was moved") {
  const auto device = OpenOne();
  for (const auto kind : {DeviceMemory::Kind::kDevice, DeviceMemory::Kind::kPinned}) {
    auto made = DeviceMemory::Allocate(*device, kind, 4096, "a test");
    REQUIRE(made.ok());
    DeviceMemory moved = *std::move(made);
    CHECK(moved.data() != nullptr);
    CHECK(moved.bytes() == 4096);
    DeviceMemory other;
    other = std::move(moved);
    CHECK(MadeTable::held == 1);
    other = DeviceMemory();
  }
  CHECK(MadeTable::held == 0);
}

TEST_CASE("memory that is not there is RESOURCE_EXHAUSTED, with the bytes and their use") {
  const auto device = OpenOne();
  MadeTable::result = DeviceResult::kOutOfMemory;
  const auto made = DeviceMemory::Allocate(*device, DeviceMemory::Kind::kDevice, 4096, "a test");
  CHECK(made.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(made.status().message()),
             Contains("made:0") && Contains("4096 bytes") && Contains("a test") && Contains(MadeTable::error));
}

TEST_CASE("a broken device is INTERNAL and says what is left to do") {
  const auto device = OpenOne();
  MadeTable::result = DeviceResult::kBroken;
  const absl::Status status = device->Synchronize(DeviceStream::kUp);
  CHECK(status.code() == absl::StatusCode::kInternal);
  CHECK_THAT(std::string(status.message()), Contains("made:0") && Contains("cannot use the device any more"));
}

TEST_CASE("an event is given back once, and its failures are named") {
  const auto device = OpenOne();
  {
    auto made = DeviceEvent::Create(*device);
    REQUIRE(made.ok());
    const DeviceEvent event = *std::move(made);
    CHECK(event.Record(DeviceStream::kUp).ok());
    CHECK(event.WaitOn(DeviceStream::kCompute).ok());
    CHECK(event.Wait().ok());
    CHECK(MadeTable::held == 1);
    MadeTable::result = DeviceResult::kFailed;
    CHECK_THAT(std::string(event.Wait().message()), Contains("waiting for an event"));
  }
  CHECK(MadeTable::held == 0);
  CHECK(DeviceEvent::Create(*device).status().code() == absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace autoscheme
