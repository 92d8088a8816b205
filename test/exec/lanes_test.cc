#include "exec/lanes.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "exec/loaded.h"
#include "support/stand_in_device.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

struct TwoLanes {
  TwoLanes() : stand_in(TwoDevices()) {
    for (int i = 0; i < 2; ++i) devices.push_back(Device::Open(stand_in.api(), i).value());
  }
  static StandInOptions TwoDevices() {
    StandInOptions options;
    options.devices = 2;
    return options;
  }
  // Every tensor of the first block, in a step each.
  std::vector<UploadStep> Steps() const {
    std::vector<UploadStep> steps;
    for (const TensorInfo* info : tiny->blocks()[0].tensors) steps.push_back({{WholeTensor(*info)}, true});
    return steps;
  }
  const TinySkeleton tiny;
  StandIn stand_in;
  std::vector<std::shared_ptr<const Device>> devices;
  Context context;
};

TEST_CASE("all lanes see every step, which is read once") {
  TwoLanes two;
  {
    Lanes lanes({two.devices[0].get(), two.devices[1].get()});
    std::atomic<int> right{0};
    const auto run = [&](int lane) {
      if (!lanes.Begin(two.context, two.tiny->checkpoint(), two.Steps(), {}).ok()) return;
      for (const TensorInfo* info : two.tiny->blocks()[0].tensors) {
        const auto step = lanes.Next();
        if (!step.ok()) return;
        const std::vector<std::byte> expected = BytesOf(*two.tiny, *info);
        right += std::memcmp(step->tensors[lane][0].data, expected.data(), expected.size()) == 0;
      }
      lanes.End();
    };
    std::thread other(run, 1);
    run(0);
    other.join();
    CHECK(right == 2 * static_cast<int>(two.tiny->blocks()[0].tensors.size()));
  }
  two.devices.clear();
  CHECK(two.stand_in.Leaks() == "");
  CHECK(two.stand_in.Misuse() == "");
}

TEST_CASE("a lane that fails lets no other wait, and its error is everybody's") {
  TwoLanes two;
  Lanes lanes({two.devices[0].get(), two.devices[1].get()});
  std::thread other([&] {
    if (lanes.Begin(two.context, two.tiny->checkpoint(), two.Steps(), {}).ok()) {
      lanes.Fail(absl::DataLossError("the gradient became NaN"));
    }
  });
  lanes.Begin(two.context, two.tiny->checkpoint(), two.Steps(), {}).IgnoreError();  // it may have failed by now
  CHECK(lanes.Next().status().code() == absl::StatusCode::kDataLoss);
  CHECK(lanes.Begin(two.context, two.tiny->checkpoint(), two.Steps(), {}).code() == absl::StatusCode::kDataLoss);
  other.join();
}

}  // namespace
}  // namespace autoscheme
