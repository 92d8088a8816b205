#include "exec/products.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>

#include "support/stand_in_device.h"

namespace autoscheme {
namespace {

// 600 products of [3, 4] and [4, 5]: more than are marked at once.
double CountProducts(ProductMeter& meter) {
  const at::Tensor a = at::ones({3, 4}), b = at::ones({4, 5});
  for (int i = 0; i < 600; ++i) CHECK(Product(meter, a, b).sum().item<float>() == 60);
  return meter.flops();
}

TEST_CASE("products are counted and timed where they run") {
  ProductMeter on_processor;
  CHECK(CountProducts(on_processor) == 600 * 2 * 60);
  CHECK(on_processor.seconds() > 0);

  StandIn stand_in;
  {
    const std::shared_ptr<const Device> device = Device::Open(stand_in.api(), 0).value();
    ProductMeter meter;
    REQUIRE(meter.UseDevice(*device).ok());
    CHECK(CountProducts(meter) == 600 * 2 * 60);
    CHECK(meter.seconds() > 0);
    CHECK(stand_in.calls(StandInCall::kRecord) == 1200);
    CHECK(stand_in.calls(StandInCall::kElapsed) == 600);
    // A device that fails to mark loses a time, and nothing else.
    stand_in.Fail(StandInCall::kRecord, 1, DeviceResult::kFailed);
    CHECK(CountProducts(meter) == 1200 * 2 * 60);
  }
  CHECK(stand_in.Leaks() == "");
}

}  // namespace
}  // namespace autoscheme
