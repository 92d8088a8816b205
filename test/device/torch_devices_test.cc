// The names of devices, and which device works on a tensor.
#include "device/torch_devices.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

#include "device/made_table.h"

namespace autoscheme {
namespace {

using Catch::Contains;

absl::Status Find(const std::string& names) { return FindDevices(names).status(); }

std::vector<std::shared_ptr<const Device>> MadeDevices() {
  static const DeviceApi api = MadeTable::Make("made");
  MadeTable::devices = 2, MadeTable::result = DeviceResult::kOk;
  std::vector<std::shared_ptr<const Device>> devices;
  for (const int index : {0, 1}) {
    auto device = Device::Open(api, index);
    REQUIRE(device.ok());
    devices.push_back(*std::move(device));
  }
  return devices;
}

TEST_CASE("the processor is found without anything of CUDA being loaded") {
  const auto found = FindDevices("cpu");
  REQUIRE(found.ok());
  REQUIRE(found->size() == 1);
  CHECK((*found)[0].name == "cpu");
  CHECK((*found)[0].device == nullptr);
  CHECK((*found)[0].torch == at::kCPU);
  std::stringstream maps;
  maps << std::ifstream("/proc/self/maps").rdbuf();
  CHECK_THAT(maps.str(), Contains("libtorch_cpu.so") && !Contains("libtorch_cuda") && !Contains("libcublas"));
}

TEST_CASE("malformed device names are INVALID_ARGUMENT and name the option") {
  for (const char* names : {"", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda: 1", "cuda:1.5", "cuda:0x1", "cuda,",
                            ",cuda", "cuda,,cuda:1", "cuda:99999999999999999999", "cpu,cuda", "cuda,cpu", "cpu,cpu"}) {
    INFO(names);
    const absl::Status status = Find(names);
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Contains("option device is \"" + std::string(names) + "\""));
  }
  CHECK_THAT(std::string(Find("cuda:x").message()), Contains("cuda:N with N from 0"));
}

TEST_CASE("a device that is named twice is INVALID_ARGUMENT, by whichever name") {
  for (const char* names : {"cuda,cuda", "cuda:0,cuda", "cuda:1,cuda:0,cuda:01"}) {
    INFO(names);
    const absl::Status status = Find(names);
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Contains("is named twice"));
  }
}

TEST_CASE("an unknown device is UNIMPLEMENTED, and the line lists those that are known") {
  for (const char* name : {"gpu", "cuda0", "CUDA", "cpu:0", " cpu", "cudax:1"}) {
    INFO(name);
    const absl::Status status = Find(name);
    CHECK(status.code() == absl::StatusCode::kUnimplemented);
    CHECK_THAT(std::string(status.message()), Contains("this build has: cpu, cuda, cuda:N"));
  }
}

TEST_CASE("CUDA without a plugin is UNIMPLEMENTED for every number, and the processor goes on") {
  unsetenv("AUTOSCHEME_CUDA_PLUGIN");
  for (const char* names : {"cuda", "cuda:99", "cuda:0,cuda:1"}) {
    INFO(names);
    CHECK(Find(names).code() == absl::StatusCode::kUnimplemented);
    CHECK(Find("cpu").ok());
  }
  CHECK(Find("cuda:128").code() == absl::StatusCode::kNotFound);
}

TEST_CASE("stand-ins have their table's names, and tensors in plain memory are theirs") {
  const at::Tensor t = at::zeros({2});
  CHECK(OnHost(t));
  const auto devices = MadeDevices();
  {
    const StandInDevices stand_ins(devices);
    const auto both = FindDevices("made:1,made");
    REQUIRE(both.ok());
    REQUIRE(both->size() == 2);
    CHECK((*both)[0].device == devices[1]);
    CHECK((*both)[1].device == devices[0]);
    CHECK((*both)[1].name == "made:0");
    CHECK(Find("made,made:0").code() == absl::StatusCode::kInvalidArgument);
    CHECK(Find("made:2").code() == absl::StatusCode::kUnimplemented);
    CHECK(DeviceOf(t) == devices[0].get());
    CHECK(!OnHost(t));
  }
  CHECK(Find("made").code() == absl::StatusCode::kUnimplemented);
  CHECK(DeviceOf(t) == nullptr);
}

}  // namespace
}  // namespace autoscheme
