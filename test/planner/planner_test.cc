#include "planner/planner.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

constexpr int64_t kMuch = int64_t{1} << 40;

struct Asked {
  Asked() {
    TinyModel model;
    model.blocks = 4, model.hidden = 64, model.intermediate = 128, model.vocab = 512;
    tiny = std::make_unique<TinySkeleton>(model);
    LinearNeeds scored;
    scored.quantizes_weight = scored.weight_gradient = scored.scored = true;
    needs = NeedsOf(**tiny, scored);
    input.skeleton = tiny->skeleton.get(), input.calibration = &calibration, input.needs = &needs;
    input.batch_size = 8;
    input.max_ram_bytes = kMuch;
  }
  std::unique_ptr<TinySkeleton> tiny;
  Calibration calibration = RowsOf(8, 16, std::vector<int32_t>(128, 1));
  ScorerNeeds needs;
  PlanInput input;
};

TEST_CASE("the least budget that the error names works, and not a byte less") {
  Asked asked;
  asked.input.max_ram_bytes = 1;
  const absl::Status refused = PlanRun(asked.input).status();
  CHECK(refused.code() == absl::StatusCode::kResourceExhausted);
  asked.input.max_ram_bytes = kMuch;
  const uint64_t least = PlanRun(asked.input)->plan.least_bytes;
  CHECK_THAT(std::string(refused.message()),
             Catch::Contains(absl::StrCat("the smallest that works is ", least, " bytes")) &&
                 Catch::Contains("A budget without a unit is in bytes"));
  asked.input.max_ram_bytes = static_cast<int64_t>(least);
  const PlannedRun tight = PlanRun(asked.input).value();
  CHECK(tight.plan.peak_bytes == least);
  CHECK(tight.plan.budget_bytes == least);
  CHECK(tight.plan.budget_reason == "as given");
  asked.input.max_ram_bytes = static_cast<int64_t>(least) - 1;
  CHECK(PlanRun(asked.input).status().code() == absl::StatusCode::kResourceExhausted);
}

TEST_CASE("peaks keep to the budget, and a larger one is never slower") {
  Asked asked;
  const uint64_t least = PlanRun(asked.input)->plan.least_bytes;
  double before = 1e9;
  for (const uint64_t budget : {least, least * 5 / 4, least * 3 / 2, least * 2, least * 4, least * 100}) {
    asked.input.max_ram_bytes = static_cast<int64_t>(budget);
    const PlannedRun run = PlanRun(asked.input).value();
    CHECK(run.plan.peak_bytes <= budget);
    CHECK(run.plan.estimated_s <= before * (1 + 1e-9));
    before = run.plan.estimated_s;
  }
}

TEST_CASE("what a named budget leaves keeps graphs and weights, without one the page cache keeps weights") {
  Asked asked;
  const PlannedRun named = PlanRun(asked.input).value();
  CHECK(named.plan.units == 4);
  CHECK(named.choice.saved_units == 4);
  CHECK(named.choice.cached_units == 4);
  CHECK(named.plan.spill_bytes == 0);
  asked.input.max_ram_bytes = -1;
  asked.input.free = FreeMemory{uint64_t{1} << 40, ""};
  const PlannedRun free = PlanRun(asked.input).value();
  CHECK(free.plan.budget_bytes == 0);
  CHECK(free.choice.saved_units == 4);
  CHECK(free.choice.cached_units == 0);
  CHECK(free.plan.read_bytes > named.plan.read_bytes);
}

TEST_CASE("a budget that nobody names is frugal, and keeps to half of what is free while that works") {
  Asked asked;
  const uint64_t least = PlanRun(asked.input)->plan.least_bytes;
  asked.input.max_ram_bytes = 0;
  const PlannedRun unknown = PlanRun(asked.input).value();
  CHECK(unknown.plan.budget_bytes == kFrugalBytes);
  CHECK(unknown.plan.budget_reason == "the default");

  asked.input.free = FreeMemory{4 * least, "/jobs/one"};
  const PlannedRun half = PlanRun(asked.input).value();
  CHECK(half.plan.budget_bytes == 2 * least);
  CHECK(half.plan.budget_reason == "half of what cgroup \"/jobs/one\" has free");
  CHECK(half.warning.empty());

  asked.input.free = FreeMemory{least, ""};
  const PlannedRun most = PlanRun(asked.input).value();
  CHECK(most.plan.budget_bytes == least);
  CHECK_THAT(most.warning, Catch::Contains(absl::StrCat("needs at least ", least, " bytes")) &&
                               Catch::Contains("more than half of the"));

  asked.input.free = FreeMemory{least - 1, ""};
  const absl::Status refused = PlanRun(asked.input).status();
  CHECK(refused.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(refused.message()),
             Catch::Contains(absl::StrCat("the system has only ", least - 1, " bytes")));
}

TEST_CASE("a named budget beyond what is free is kept to, with both numbers in a warning") {
  Asked asked;
  asked.input.max_ram_bytes = kMuch;
  asked.input.free = FreeMemory{kMuch, "/jobs/one"};
  CHECK(PlanRun(asked.input)->warning.empty());
  --asked.input.free->bytes;
  const PlannedRun beyond = PlanRun(asked.input).value();
  CHECK(beyond.plan.budget_bytes == kMuch);
  CHECK_THAT(beyond.warning, Catch::Contains(absl::StrCat("the budget of ", kMuch, " bytes")) &&
                                 Catch::Contains(absl::StrCat("more than the ", kMuch - 1, " bytes")) &&
                                 Catch::Contains("that cgroup \"/jobs/one\" has free"));
  asked.input.floor_bytes = uint64_t{200} << 20;  // is in memory already
  CHECK(PlanRun(asked.input)->warning.empty());
}

TEST_CASE("what the process holds already is not asked for once more") {
  Asked asked;
  asked.input.floor_bytes = uint64_t{200} << 20;
  const uint64_t least = PlanRun(asked.input)->plan.least_bytes;
  CHECK(least > asked.input.floor_bytes + kFloorStepBytes);
  asked.input.max_ram_bytes = 0;
  asked.input.free = FreeMemory{least - asked.input.floor_bytes, ""};
  CHECK(PlanRun(asked.input).ok());
  --asked.input.free->bytes;
  CHECK_THAT(std::string(PlanRun(asked.input).status().message()),
             Catch::Contains(absl::StrCat("of which the process holds ", asked.input.floor_bytes, " bytes")));
}

TEST_CASE("a run that may not spill needs more, and computes again what has no room") {
  Asked asked;
  const uint64_t least = PlanRun(asked.input)->plan.least_bytes;
  asked.input.may_spill = false;
  const uint64_t unspilled = PlanRun(asked.input)->plan.least_bytes;
  CHECK(unspilled > least);
  asked.input.max_ram_bytes = static_cast<int64_t>(unspilled);
  const PlannedRun run = PlanRun(asked.input).value();
  CHECK(run.plan.spill_bytes == 0);
  CHECK(run.plan.input_interval > 1);
  asked.input.max_ram_bytes = static_cast<int64_t>(least);
  CHECK_THAT(std::string(PlanRun(asked.input).status().message()), Catch::Contains("so does a run that may spill"));
}

TEST_CASE("a batch that a scale spans is not cut") {
  Asked asked;
  asked.input.max_ram_bytes = static_cast<int64_t>(PlanRun(asked.input)->plan.least_bytes);
  CHECK(PlanRun(asked.input)->plan.micro_batch_rows == 1);
  asked.needs.activations_span_batch = true;
  CHECK_FALSE(PlanRun(asked.input).ok());
  asked.input.max_ram_bytes = kMuch;
  asked.input.max_ram_bytes = static_cast<int64_t>(PlanRun(asked.input)->plan.least_bytes);
  CHECK(PlanRun(asked.input)->plan.micro_batch_rows == 8);
}

}  // namespace
}  // namespace autoscheme
