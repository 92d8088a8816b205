// The device that tests use in place of a real one: what other tests rely on.
#include "support/stand_in_device.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/match.h"
#include "device/device.h"

namespace autoscheme {
namespace {

std::unique_ptr<Device> OpenDevice(const StandIn& stand_in, int index = 0) {
  auto device = Device::Open(stand_in.api(), index);
  INFO(device.status());
  REQUIRE(device.ok());
  return *std::move(device);
}

DeviceMemory Allocate(const Device& device, uint64_t bytes, DeviceMemory::Kind kind = DeviceMemory::Kind::kDevice) {
  auto memory = DeviceMemory::Allocate(device, kind, bytes, "a test");
  INFO(memory.status());
  REQUIRE(memory.ok());
  return *std::move(memory);
}

std::vector<float> Down(const Device& device, const DeviceMemory& memory, int64_t count) {
  std::vector<float> values(count);
  REQUIRE(device.api().copy_down(device.handle(), DeviceStream::kCompute, values.data(), memory.data(),
                                 count * sizeof(float)) == DeviceResult::kOk);
  return values;
}

TEST_CASE("the stand-in counts memory to the byte, and refuses what is beyond its limit") {
  StandInOptions options;
  options.memory_bytes = 1000;
  const StandIn stand_in(options);
  {
    const auto device = OpenDevice(stand_in);
    DeviceMemory a = Allocate(*device, 600);
    CHECK(device->FreeBytes().value() == 400);
    const auto refused = DeviceMemory::Allocate(*device, DeviceMemory::Kind::kDevice, 401, "a test");
    CHECK(absl::IsResourceExhausted(refused.status()));
    CHECK(absl::StrContains(refused.status().message(), "401 bytes"));
    { const DeviceMemory b = Allocate(*device, 400); }
    CHECK(stand_in.used_bytes(0) == 600);
    CHECK(stand_in.most_used_bytes(0) == 1000);
    CHECK(std::isnan(Down(*device, a, 1)[0]));
    CHECK(stand_in.Leaks() == "1 allocations of device 0\n1 times open is device 0\n");
  }
  CHECK(stand_in.Leaks() == "");
  CHECK(stand_in.Misuse() == "");
}

TEST_CASE("the stand-in multiplies matrices of any layout, adds, and rounds factors to TF32") {
  const StandIn stand_in;
  const auto device = OpenDevice(stand_in);
  const DeviceMemory memory = Allocate(*device, 64), out = Allocate(*device, 64);
  const float values[8] = {1, 2, 3, 4, 1 + 1.0f / 4096, 0, 0, 1};
  const DeviceApi& api = device->api();
  REQUIRE(api.copy_up(device->handle(), DeviceStream::kUp, memory.data(), values, sizeof(values)) == DeviceResult::kOk);
  const DeviceMatrix a = {memory.data(), 2, 2, 1, 2, Number::kF32};  // transposed: rows (1, 3) and (2, 4)
  const DeviceMatrix b = {memory.data() + 16, 2, 2, 2, 1, Number::kF32};
  const DeviceMatrix c = {out.data(), 2, 2, 2, 1, Number::kF32};
  REQUIRE(api.multiply(device->handle(), &c, &a, &b, ProductType::kExact, 0) == DeviceResult::kOk);
  CHECK(Down(*device, out, 4) == std::vector<float>{1 + 1.0f / 4096, 3, 2 + 2.0f / 4096, 4});
  REQUIRE(api.multiply(device->handle(), &c, &a, &b, ProductType::kTf32, 1) == DeviceResult::kOk);
  CHECK(Down(*device, out, 4) == std::vector<float>{2 + 1.0f / 4096, 6, 4 + 2.0f / 4096, 8});
  const DeviceMatrix wrong = {out.data(), 2, 3, 3, 1, Number::kF32};
  CHECK(api.multiply(device->handle(), &wrong, &a, &b, ProductType::kExact, 0) == DeviceResult::kFailed);
}

TEST_CASE("the stand-in finds NaN and infinite values, and sums products, in all three types") {
  const StandIn stand_in;
  const auto device = OpenDevice(stand_in);
  const DeviceApi& api = device->api();
  const DeviceMemory memory = Allocate(*device, 64), result = Allocate(*device, 64);
  // 1, 0.5, infinity, NaN as float16; the same as bfloat16 are other numbers: all finite but the last.
  const uint16_t words[4] = {0x3C00, 0x3800, 0x7C00, 0xFF81};
  REQUIRE(api.copy_up(device->handle(), DeviceStream::kCompute, memory.data(), words, sizeof(words)) ==
          DeviceResult::kOk);
  const auto find = [&](Number type) {
    auto* found = reinterpret_cast<NonFinite*>(result.data());
    REQUIRE(api.find_non_finite(device->handle(), DeviceStream::kCompute, memory.data(), 4, type, found) ==
            DeviceResult::kOk);
    NonFinite copy;
    std::memcpy(&copy, found, sizeof(copy));
    return std::vector<int64_t>{copy.count, copy.first};
  };
  CHECK(find(Number::kF16) == std::vector<int64_t>{2, 2});
  CHECK(find(Number::kBF16) == std::vector<int64_t>{1, 3});

  double sum = 0.25;
  const float grad[2] = {-3, 2};
  std::memcpy(memory.data() + 16, grad, sizeof(grad));
  std::memcpy(result.data(), &sum, sizeof(sum));
  // |-3 (1 - 0.5)| + |2 (0.5 - 0.5)|
  REQUIRE(api.add_abs_products(device->handle(), memory.data() + 16, Number::kF32, memory.data(), Number::kF16,
                               memory.data() + 2, Number::kF16, 1,
                               reinterpret_cast<double*>(result.data())) == DeviceResult::kOk);
  std::memcpy(&sum, result.data(), sizeof(sum));
  CHECK(sum == 1.75);
}

TEST_CASE("a stream of the stand-in waits for an event of another one") {
  StandInOptions options;
  options.copy_delay = std::chrono::milliseconds(2);
  options.compute_thread = true, options.own_memory_only = true;
  const StandIn stand_in(options);
  {
    const auto device = OpenDevice(stand_in);
    const DeviceApi& api = device->api();
    const DeviceMemory memory = Allocate(*device, 4);
    const DeviceMemory host = Allocate(*device, 8, DeviceMemory::Kind::kPinned);
    const DeviceEvent event = *DeviceEvent::Create(*device), end = *DeviceEvent::Create(*device);
    CHECK(event.Wait().ok());  // stands for nothing yet
    for (int i = 0; i < 20; ++i) {
      std::memcpy(host.data(), &i, sizeof(i));
      REQUIRE(api.copy_up(device->handle(), DeviceStream::kUp, memory.data(), host.data(), 4) == DeviceResult::kOk);
      REQUIRE(event.Record(DeviceStream::kUp).ok());
      REQUIRE(event.WaitOn(DeviceStream::kDown).ok());
      REQUIRE(api.copy_down(device->handle(), DeviceStream::kDown, host.data() + 4, memory.data(), 4) ==
              DeviceResult::kOk);
      REQUIRE(end.Record(DeviceStream::kDown).ok());
      REQUIRE(end.Wait().ok());
      int down = -1;
      std::memcpy(&down, host.data() + 4, sizeof(down));
      REQUIRE(down == i);
    }
    double seconds = -1;
    CHECK(api.elapsed(device->handle(), event.handle(), end.handle(), &seconds) == DeviceResult::kOk);
    CHECK(seconds >= 0.002);
    CHECK(stand_in.unpinned_copies() == 0);
    float unpinned = 0;
    CHECK(api.copy_down(device->handle(), DeviceStream::kDown, &unpinned, memory.data(), 4) == DeviceResult::kOk);
    CHECK(stand_in.unpinned_copies() == 1);
    CHECK(stand_in.Misuse() == "");
    CHECK(api.copy_up(device->handle(), DeviceStream::kUp, memory.data() + 1, host.data(), 4) == DeviceResult::kFailed);
    CHECK(absl::StrContains(stand_in.Misuse(), "copy_up: 4 bytes outside"));
  }
  CHECK(stand_in.Leaks() == "");
}

TEST_CASE("calls of the stand-in fail when they are told to, and a broken device stays broken") {
  StandIn stand_in;
  {
    const auto device = OpenDevice(stand_in);
    stand_in.Fail(StandInCall::kAllocate, 2, DeviceResult::kFailed);
    const DeviceMemory a = Allocate(*device, 1);
    const auto failed = DeviceMemory::Allocate(*device, DeviceMemory::Kind::kDevice, 1, "a test");
    CHECK(absl::IsInternal(failed.status()));
    CHECK(absl::StrContains(failed.status().message(), "allocate fails at call 2"));
    CHECK(stand_in.failed());
    const DeviceMemory b = Allocate(*device, 1);
    CHECK(stand_in.calls(StandInCall::kAllocate) == 3);

    stand_in.Fail(StandInCall::kSynchronize, 1, DeviceResult::kBroken);
    CHECK(absl::StrContains(device->Synchronize(DeviceStream::kUp).message(), "cannot use the device any more"));
    CHECK(absl::IsInternal(device->Synchronize(DeviceStream::kUp)));
    CHECK(absl::IsInternal(device->FreeBytes().status()));
  }
  CHECK(stand_in.Leaks() == "");
}

}  // namespace
}  // namespace autoscheme
