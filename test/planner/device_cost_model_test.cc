// Plans of runs on a GPU: two budgets, and which of them does not do.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>
#include <vector>

#include "planner/planner.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

constexpr LinearNeeds kScored{/*quantizes_weight=*/true, /*whole_weight=*/false, /*weight_gradient=*/true,
                              /*scored=*/true};

// Llama-3.1-8B under three schemes, 16 rows of 256 ids in batches of 8, float32.
struct Job {
  std::unique_ptr<MetaSkeleton> skeleton =
      MetaSkeleton::Open({}, AUTOSCHEME_GOLDEN_DIR "/configs/llama-3.1-8b.json").value();
  Calibration calibration;
  ScorerNeeds needs = NeedsOf(*skeleton, kScored);
  PlanInput input;
  Job() {
    std::vector<int32_t> ids(16 * 256);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 31 % 128000);
    calibration = RowsOf(16, 256, ids);
    needs.variants.resize(3, needs.variants[0]);
    input.skeleton = skeleton.get(), input.calibration = &calibration, input.needs = &needs;
    input.max_ram_bytes = 2'000'000'000, input.floor_bytes = uint64_t{140} << 20;
    input.device = DeviceInput{"cuda:0", 0, 4'000'000'000};
  }
};

TEST_CASE("the largest job of docs/cuda.md is planned within 4 GB of a GPU's memory and 2 GB of the host's") {
  Job job;
  const PlannedRun run = PlanRun(job.input).value();
  CHECK(run.plan.vram_peak_bytes <= 4'000'000'000);
  CHECK(run.plan.peak_bytes <= 2'000'000'000);
  for (const PlanItem& item : run.plan.vram_resident) UNSCOPED_INFO(item.name << " " << (item.bytes >> 20) << " MiB");
  for (const PlanItem& item : run.plan.resident) UNSCOPED_INFO(item.name << " " << (item.bytes >> 20) << " MiB");
  CHECK(run.plan.micro_batch_rows == 8);  // nothing is cut
  CHECK(run.plan.units == 32);
  CHECK(run.plan.slots == 2);
  CHECK(run.plan.spill_bytes > 6'000'000'000);  // neither memory has room for the inputs
  CHECK(run.choice.device_pool_bytes > run.choice.device_weight_pool_bytes);
  uint64_t sum = 0;
  for (const PlanItem& item : run.plan.vram_resident) sum += item.bytes;
  CHECK(sum == run.plan.vram_peak_bytes);
}

TEST_CASE("saved inputs lie on the device if there is room, else in host memory, else on disk") {
  Job job;
  job.input.device->max_vram_bytes = 0;
  CHECK(PlanRun(job.input).status().code() == absl::StatusCode::kInvalidArgument);  // a budget of what?
  job.input.device->free_bytes = uint64_t{80} << 30;
  const PlannedRun roomy = PlanRun(job.input).value();
  CHECK(roomy.plan.inputs_in_vram);
  CHECK(roomy.plan.spill_bytes == 0);
  CHECK(roomy.plan.vram_budget_bytes == static_cast<uint64_t>(0.9 * 80 * 1073741824.0));

  job.input.device->max_vram_bytes = 4'000'000'000;
  job.input.max_ram_bytes = 12'000'000'000;
  const PlannedRun in_ram = PlanRun(job.input).value();
  CHECK_FALSE(in_ram.plan.inputs_in_vram);
  CHECK(in_ram.plan.inputs_in_ram);
  CHECK(in_ram.plan.spill_bytes == 0);
}

TEST_CASE("the budget that is too small is named with the least that does") {
  Job job;
  job.input.device->max_vram_bytes = 1 << 20;
  const absl::Status vram = PlanRun(job.input).status();
  CHECK(vram.code() == absl::StatusCode::kResourceExhausted);
  const std::string text(vram.message()), before = "the smallest max_vram_bytes that works is ";
  REQUIRE(text.find(before) != std::string::npos);
  job.input.device->max_vram_bytes = std::atoll(text.c_str() + text.find(before) + before.size());
  CHECK(PlanRun(job.input).ok());
  --job.input.device->max_vram_bytes;
  CHECK_FALSE(PlanRun(job.input).ok());

  Job host;
  host.input.max_ram_bytes = 1 << 20;
  CHECK_THAT(std::string(PlanRun(host.input).status().message()), Catch::Contains("the smallest that works is"));
}

}  // namespace
}  // namespace autoscheme
