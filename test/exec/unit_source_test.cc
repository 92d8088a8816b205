#include "exec/unit_source.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "exec/loaded.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

// Four units of one sublayer each.
struct SourceCase {
  explicit SourceCase(const ExecutionPlan& execution_plan, const MetaSkeleton& of)
      : skeleton(of), plan(execution_plan), source(run, plan, of.checkpoint(), units) {}
  // Whether the next step brings the tensors of that unit with their bytes.
  bool Brings(int unit) {
    const auto views = source.Next();
    if (!views.ok() || views->size() != units[unit].tensors.size()) return false;
    for (size_t i = 0; i < views->size(); ++i) {
      const TensorView& view = (*views)[i];
      const std::vector<std::byte> expected = BytesOf(skeleton, *view.info);
      if (view.info != units[unit].tensors[i]) return false;
      if (std::memcmp(view.data, expected.data(), expected.size()) != 0) return false;
    }
    return true;
  }
  const MetaSkeleton& skeleton;
  Context context;
  RunResources run{context};
  const ExecutionPlan plan;
  const std::vector<Unit> units = MakeUnits(skeleton, 1);
  const Schedule schedule{4, 0, 1};
  UnitSource source;
};

TEST_CASE("units come up and down in the order of the schedule, and every byte is counted") {
  const TinySkeleton tiny;
  SourceCase units({}, *tiny);
  const uint64_t all = tiny->blocks()[0].bytes + tiny->blocks()[1].bytes;
  REQUIRE(units.source.Begin(units.schedule.Forward()).ok());
  for (const int unit : {0, 1, 2, 3}) CHECK(units.Brings(unit));
  CHECK(units.source.bytes_read() == all);
  units.source.End();
  CHECK(units.source.bytes_read() == 0);
  CHECK(units.run.stats.read_bytes == all);
  REQUIRE(units.source.Begin(units.schedule.Backward()).ok());
  for (const int unit : {3, 2, 1, 0}) CHECK(units.Brings(unit));
  units.source.End();
  CHECK(units.run.stats.read_bytes == 2 * all);
}

TEST_CASE("cached units are read in the first pass only") {
  const TinySkeleton tiny;
  const uint64_t all = tiny->blocks()[0].bytes + tiny->blocks()[1].bytes;
  for (const int cached : {1, 4}) {
    ExecutionPlan plan;
    plan.cached_units = cached;
    SourceCase units(plan, *tiny);
    uint64_t kept = 0;
    for (int unit = 4 - cached; unit < 4; ++unit) kept += units.units[unit].bytes;
    REQUIRE(units.source.Begin(units.schedule.Forward()).ok());
    for (const int unit : {0, 1, 2, 3}) CHECK(units.Brings(unit));
    units.source.End();
    REQUIRE(units.source.Begin(units.schedule.Backward()).ok());
    for (const int unit : {3, 2, 1, 0}) CHECK(units.Brings(unit));
    units.source.End();
    CHECK(units.run.stats.read_bytes == 2 * all - kept);
  }
}

TEST_CASE("beside tiles only the small tensors come") {
  const TinySkeleton tiny;
  ExecutionPlan plan;
  plan.tiled = true;
  SourceCase units(plan, *tiny);
  REQUIRE(units.source.Begin(units.schedule.Forward()).ok());
  const auto views = units.source.Next();
  REQUIRE(views.ok());
  REQUIRE(views->size() == 1);
  CHECK(views->front().info->name == "model.layers.0.input_layernorm.weight");
  for (int unit = 1; unit < 4; ++unit) REQUIRE(units.source.Next().ok());
  units.source.End();
  CHECK(units.run.stats.read_bytes == 4 * 2 * 32);
}

TEST_CASE("a first pass names the tensor that holds NaN") {
  TinyModel model;
  std::vector<RawTensor> tensors = MakeTinyTensors(model);
  for (RawTensor& tensor : tensors) {
    if (tensor.name == "model.layers.1.mlp.up_proj.weight") tensor.bytes[7] = '\x7f', tensor.bytes[6] = '\xc0';
  }
  const TinySkeleton tiny(model, tensors);
  SourceCase units({}, *tiny);
  REQUIRE(units.source.Begin(units.schedule.Forward()).ok());
  for (const int unit : {0, 1, 2}) CHECK(units.Brings(unit));
  const absl::Status status = units.source.Next().status();
  CHECK(status.code() == absl::StatusCode::kDataLoss);
  CHECK_THAT(std::string(status.message()),
             Catch::Contains("\"model.layers.1.mlp.up_proj.weight\" holds 1 NaN") && Catch::Contains("at element 3;"));
}

}  // namespace
}  // namespace autoscheme
