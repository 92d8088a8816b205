// The device that computes: what a host is told, and what it pays for devices that it does not use.
#include <stdlib.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

#include "capi/capi_test.h"

namespace autoscheme {
namespace {

using Catch::Contains;

std::string MappedFiles() {
  std::ostringstream maps;
  maps << std::ifstream("/proc/self/maps").rdbuf();
  return maps.str();
}

TEST_CASE("the build says its LibTorch and its devices, without loading anything") {
  const std::string info = autoscheme_build_info();
  CHECK_THAT(info, Catch::StartsWith("LibTorch 2.") && Contains("; devices: cpu"));
  CHECK((Contains("cuda by \"").match(info) || Contains("no plugin for cuda").match(info)));
  CHECK(info.find('\n') == std::string::npos);
  CHECK(autoscheme_build_info() == autoscheme_build_info());
  CHECK_THAT(MappedFiles(), !Contains("libtorch_cuda") && !Contains("libautoscheme_cuda"));
}

TEST_CASE("a run on the processor loads no library of CUDA beyond those of LibTorch's CPU half") {
  TinyCase tiny;
  SkeletonPtr skeleton;
  CalibrationPtr calibration;
  GeneratorPtr generator;
  ScoresPtr scores;
  REQUIRE(tiny.Set(AUTOSCHEME_OPTION_DEVICE, "cpu").ok());
  REQUIRE(tiny.Open(skeleton).ok());
  REQUIRE(tiny.Load(calibration).ok());
  REQUIRE(tiny.Create(skeleton, generator).ok());
  REQUIRE(TinyCase::Score(generator, calibration, scores).ok());
  const std::string files = MappedFiles();
  CHECK_THAT(files, Contains("libtorch_cpu.so"));
  for (const char* library :
       {"libtorch_cuda", "libc10_cuda", "libautoscheme_cuda", "libcuda.so", "libcublas", "libcudnn", "libnvrtc"}) {
    CHECK_THAT(files, !Contains(library));
  }
}

TEST_CASE("a device that cannot be had is one line that names it, and the processor goes on with the same handles") {
  TinyCase tiny;
  SkeletonPtr skeleton;
  CalibrationPtr calibration;
  REQUIRE(tiny.Open(skeleton).ok());
  REQUIRE(tiny.Load(calibration).ok());
  setenv("AUTOSCHEME_CUDA_PLUGIN", (tiny.dir / "none.so").c_str(), 1);
  for (const char* device : {"cuda", "cuda:99", "cuda:x", "cuda:-1", "gpu", "", "cuda,cuda", "cpu,cuda"}) {
    INFO(device);
    GeneratorPtr generator;
    REQUIRE(tiny.Set(AUTOSCHEME_OPTION_DEVICE, device).ok());
    const Result refused = tiny.Create(skeleton, generator);
    CHECK((refused.code == AUTOSCHEME_UNIMPLEMENTED || refused.code == AUTOSCHEME_INVALID_ARGUMENT ||
           refused.code == AUTOSCHEME_NOT_FOUND));
    CHECK_THAT(refused.message, Contains("device"));
    CHECK(refused.message.find('\n') == std::string::npos);
    REQUIRE(tiny.Set(AUTOSCHEME_OPTION_DEVICE, "cpu").ok());
    REQUIRE(tiny.Create(skeleton, generator).ok());
  }
  unsetenv("AUTOSCHEME_CUDA_PLUGIN");
  GeneratorPtr generator;
  ScoresPtr scores;
  REQUIRE(tiny.Create(skeleton, generator).ok());
  CHECK(TinyCase::Score(generator, calibration, scores).ok());
}

}  // namespace
}  // namespace autoscheme
