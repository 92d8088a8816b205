// Plans of config.json alone: those of the folder with the weights, and those of models that no test could hold.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "planner/planner.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMuch = int64_t{1} << 40, kGiB = int64_t{1} << 30;
constexpr LinearNeeds kScored{/*quantizes_weight=*/true, /*whole_weight=*/false, /*weight_gradient=*/true,
                              /*scored=*/true};

absl::StatusOr<PlannedRun> PlanOf(const MetaSkeleton& skeleton, const Calibration& calibration, int64_t max_ram,
                                  uint64_t floor = 0) {
  const ScorerNeeds needs = NeedsOf(skeleton, kScored);
  PlanInput input;
  input.skeleton = &skeleton, input.calibration = &calibration, input.needs = &needs;
  input.max_ram_bytes = max_ram, input.floor_bytes = floor;
  return PlanRun(input);
}

bool SameUpTo(uint64_t a, uint64_t b, uint64_t most) { return (a > b ? a - b : b - a) <= most; }

TEST_CASE("of every family config.json alone gives the plan of the folder") {
  const Calibration calibration = RowsOf(8, 16, std::vector<int32_t>(128, 1));
  int compared = 0;
  for (const auto& entry : fs::directory_iterator(AUTOSCHEME_GOLDEN_DIR "/families")) {
    if (!entry.is_directory()) continue;
    INFO(entry.path().filename().string());
    const std::string folder = (entry.path() / "model").string();
    const auto stored = MetaSkeleton::Open({}, folder), alone = MetaSkeleton::Open({}, folder + "/config.json");
    if (absl::IsUnimplemented(stored.status())) continue;  // variants that are refused by name
    REQUIRE(alone.ok());
    // Beside a vision part the blocks begin at other bytes of a page: of up to two slots, two pages each.
    const uint64_t pages = (*stored)->untouched_tensors().empty() ? 0 : 4 * 4096;
    const int64_t least = static_cast<int64_t>(PlanOf(**stored, calibration, kMuch)->plan.least_bytes);
    for (const int64_t budget : {kMuch, 2 * least, least}) {
      if (budget != kMuch && pages > 0) continue;  // a page may decide what fits
      const Plan a = PlanOf(**alone, calibration, budget)->plan, b = PlanOf(**stored, calibration, budget)->plan;
      CHECK(SameUpTo(a.peak_bytes, b.peak_bytes, pages));
      CHECK(SameUpTo(a.least_bytes, b.least_bytes, pages));
      CHECK(a.read_bytes == b.read_bytes);
      CHECK(a.spill_bytes == b.spill_bytes);
      CHECK(a.flops == b.flops);
      CHECK(a.units == b.units);
      CHECK(a.micro_batch_rows == b.micro_batch_rows);
      CHECK(a.tile_bytes == b.tile_bytes);
      CHECK(a.estimated_s == b.estimated_s);
    }
    ++compared;
  }
  CHECK(compared >= 49);
}

TEST_CASE("public configs have their models' parameters, and a plan at 8 GiB or the least that would do") {
  std::vector<int32_t> ids(16 * 256);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const Calibration calibration = RowsOf(16, 256, ids);
  struct Row {
    const char* name;
    int64_t params;
    bool tied;
  };
  for (const Row& row :
       {Row{"llama-3.1-8b", 8'030'261'248, false}, Row{"llama-3.1-70b", 70'553'706'496, false},
        Row{"llama-3.1-405b", 405'853'388'800, false}, Row{"qwen2.5-72b", 72'706'203'648, false},
        Row{"gemma-3-27b", 27'009'346'304, true}, Row{"phi-4", 14'659'507'200, false},
        Row{"command-r-plus", 103'810'674'688, true}, Row{"mistral-small-24b", 23'572'403'200, false}}) {
    CAPTURE(row.name);
    std::vector<std::string> warnings;
    Context context;
    context.log = [&](LogLevel, absl::string_view text) { warnings.emplace_back(text); };
    const auto skeleton =
        MetaSkeleton::Open(context, std::string(AUTOSCHEME_GOLDEN_DIR "/configs/") + row.name + ".json").value();
    CHECK(warnings == std::vector<std::string>{});
    CHECK(skeleton->total_params() == row.params);
    CHECK(skeleton->total_bytes() == 2 * static_cast<uint64_t>(row.params));
    CHECK(skeleton->tied_head() == row.tied);
    const auto planned = PlanOf(*skeleton, calibration, 8 * kGiB, uint64_t{100} << 20);
    if (planned.ok()) {
      CHECK(planned->plan.peak_bytes <= 8 * uint64_t{kGiB});
      // Once at least, each block twice at most but by tiles, and the head twice.
      CHECK(planned->plan.read_bytes > skeleton->total_bytes() - skeleton->embedding()->bytes);
      if (planned->plan.tile_bytes == 0) CHECK(planned->plan.read_bytes < 2 * skeleton->total_bytes());
      continue;
    }
    CHECK(planned.status().code() == absl::StatusCode::kResourceExhausted);
    const std::string message(planned.status().message()), before = "the smallest that works is ";
    REQUIRE(message.find(before) != std::string::npos);
    const int64_t least = std::atoll(message.c_str() + message.find(before) + before.size());
    CHECK(least > 8 * kGiB);
    CHECK(PlanOf(*skeleton, calibration, least, uint64_t{100} << 20).ok());
  }
}

}  // namespace
}  // namespace autoscheme
