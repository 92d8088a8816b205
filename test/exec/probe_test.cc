#include "exec/probe.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

TEST_CASE("products and reads are measured, the spill rate is the assumed one") {
  const TinySkeleton tiny;
  const MachineRates rates = MeasureRates({}, *tiny, at::kFloat, IoEngine::kBuffered).value();
  CHECK(rates.flops > 1e6);
  CHECK(rates.flops < 1e16);
  CHECK(rates.read_bytes > 1e3);
  CHECK(rates.spill_bytes == MachineRates().spill_bytes);
}

TEST_CASE("a checkpoint that was cut short is an error") {
  const TinySkeleton tiny;
  const std::string file = tiny.dir / "model.safetensors";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) / 4);
  CHECK(MeasureRates({}, *tiny, at::kFloat, IoEngine::kBuffered).status().code() == absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace autoscheme
