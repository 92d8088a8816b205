#include "exec/run_resources.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <memory>
#include <string>

#include "support/stand_in_device.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

TEST_CASE("pools of a device are as large as planned, say so when they are full, and go with the run") {
  StandIn stand_in;
  {
    const Context context;
    RunResources run(context);
    ExecutionPlan plan;
    plan.device_pool_bytes = 4 * kMiB, plan.device_weight_pool_bytes = kMiB, plan.staging_bytes = 4096;
    REQUIRE(run.UseDevice({"stand-in:0", at::kCPU, Device::Open(stand_in.api(), 0).value()}, plan).ok());
    CHECK(stand_in.used_bytes(0) == 5 * kMiB);
    const at::Tensor t = NewTensor(&run.activations, {3, 262144}, at::kFloat);
    CHECK(NewLike(t, {1, 131072}, at::kFloat).numel() == 131072);
    CHECK_THROWS_WITH(NewLike(t), Catch::Contains("3145728 bytes of stand-in:0") && Catch::Contains("max_vram_bytes"));
    REQUIRE(run.SampleDeviceMemory().ok());
    CHECK(run.stats.peak_vram_bytes == 5 * kMiB);  // the stand-in counts by itself
  }
  CHECK(stand_in.used_bytes(0) == 0);
  CHECK(stand_in.Leaks() == "");
}

TEST_CASE("a device without room for the plan is an error with the bytes") {
  StandInOptions options;
  options.memory_bytes = 2 * kMiB;
  StandIn stand_in(options);
  const Context context;
  RunResources run(context);
  ExecutionPlan plan;
  plan.device_pool_bytes = 4 * kMiB;
  const absl::Status status = run.UseDevice({"stand-in:0", at::kCPU, Device::Open(stand_in.api(), 0).value()}, plan);
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(status.message()), Catch::Contains("4194304 bytes"));
}

}  // namespace
}  // namespace autoscheme
