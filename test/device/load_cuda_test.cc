// The three steps to CUDA's table, on a machine that need not have any of it.
#include "device/load_cuda.h"

#include <stdlib.h>

#include <catch2/catch.hpp>

#include "support/temp_dir.h"

namespace autoscheme {
namespace {

using Catch::Contains;

struct Variable {
  explicit Variable(const std::string& value) { setenv("AUTOSCHEME_CUDA_PLUGIN", value.c_str(), 1); }
  ~Variable() { unsetenv("AUTOSCHEME_CUDA_PLUGIN"); }
};

TEST_CASE("without a plugin CUDA is UNIMPLEMENTED, and the line says where it was looked for and the remedy") {
  unsetenv("AUTOSCHEME_CUDA_PLUGIN");
  for (int i = 0; i < 2; ++i) {  // it may be tried again
    const absl::Status status = LoadCuda().status();
    CHECK(status.code() == absl::StatusCode::kUnimplemented);
    CHECK_THAT(std::string(status.message()), Contains("/libautoscheme_cuda.so") && Contains("/bin/") &&
                                                  Contains("-DAUTOSCHEME_CUDA=ON") &&
                                                  Contains("AUTOSCHEME_CUDA_PLUGIN"));
  }
}

TEST_CASE("AUTOSCHEME_CUDA_PLUGIN must be the full path of a file") {
  {
    const Variable plugin("libautoscheme_cuda.so");
    const absl::Status status = FindCudaPlugin().status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Contains("must be a full path"));
  }
  const TempDir dir;
  const Variable plugin(dir / "plugin.so");
  CHECK(FindCudaPlugin().status().code() == absl::StatusCode::kNotFound);
  dir.Write("plugin.so", "");
  REQUIRE(FindCudaPlugin().ok());
  CHECK(*FindCudaPlugin() == dir / "plugin.so");
}

TEST_CASE("a plugin of another version is refused with both versions, one of this version is taken") {
  const absl::Status status = LoadTable(AUTOSCHEME_OLD_PLUGIN).status();
  CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
  CHECK_THAT(std::string(status.message()), Contains("version 0") &&
                                                Contains("must be " + std::to_string(kDeviceApiVersion)) &&
                                                Contains("build it from the same sources"));
  const auto table = LoadTable(AUTOSCHEME_MADE_PLUGIN);
  REQUIRE(table.ok());
  CHECK(std::string((*table)->name) == "cuda");
}

TEST_CASE("a file that is no plugin is refused with the loader's words, or by the function that it lacks") {
  const TempDir dir;
  const absl::Status text = LoadTable(dir.Write("libautoscheme_cuda.so", "no library")).status();
  CHECK(text.code() == absl::StatusCode::kFailedPrecondition);
  CHECK_THAT(std::string(text.message()), Contains("cannot be loaded") && Contains("file too short"));
  const absl::Status other = LoadTable("libm.so.6").status();
  CHECK(other.code() == absl::StatusCode::kFailedPrecondition);
  CHECK_THAT(std::string(other.message()), Contains("is no plugin of autoscheme"));
}

}  // namespace
}  // namespace autoscheme
