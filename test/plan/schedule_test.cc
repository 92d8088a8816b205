#include "plan/schedule.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace autoscheme {
namespace {

// "B4 R2": unit 4 backward, then unit 2 forward once more.
std::string Text(const std::vector<UnitStep>& steps) {
  std::string text;
  for (const UnitStep& step : steps) {
    text += text.empty() ? "" : " ";
    text += step.pass == Pass::kForward ? "F" : step.pass == Pass::kBackward ? "B" : "R";
    text += std::to_string(step.unit);
  }
  return text;
}

TEST_CASE("five units whose every second input is saved") {
  const Schedule schedule(5, /*saved=*/0, /*interval=*/2);
  CHECK(Text(schedule.Forward()) == "F0 F1 F2 F3 F4");
  CHECK(Text(schedule.Backward()) == "B4 R2 B3 B2 R0 B1 B0");
  CHECK(schedule.Recomputes() == std::vector<int>{1, 0, 1, 0, 0});
  CHECK(schedule.saved_count() == 2);  // inputs 2 and 4; input 0 is the embedded one
  CHECK(schedule.recomputed_count() == 1);
  CHECK(schedule.top() == 4);
  CHECK_FALSE(schedule.Saved(1));
  CHECK(schedule.Place(1) == 0);
  CHECK(schedule.Saved(2));
  CHECK(schedule.Place(2) == 0);
  CHECK(schedule.Place(3) == 0);  // the place that input 1 uses again
  CHECK(schedule.Place(4) == 1);
}

TEST_CASE("all inputs saved: down as up, and nothing runs again") {
  const Schedule schedule(5, 0, 1);
  CHECK(Text(schedule.Backward()) == "B4 B3 B2 B1 B0");
  CHECK(schedule.Recomputes() == std::vector<int>(5, 0));
  CHECK(schedule.saved_count() == 4);
  CHECK(schedule.recomputed_count() == 0);
  for (int input = 1; input < 5; ++input) CHECK(schedule.Place(input) == input - 1);
}

TEST_CASE("groups of three share two places, and the uppermost one is still there") {
  const Schedule schedule(6, 0, 3);
  CHECK(Text(schedule.Backward()) == "B5 B4 B3 R0 R1 B2 B1 B0");
  CHECK(schedule.recomputed_count() == 2);
  CHECK(schedule.saved_count() == 1);
  CHECK(schedule.Place(1) == 0);
  CHECK(schedule.Place(2) == 1);
  CHECK(schedule.Place(3) == 0);
  CHECK(schedule.Place(4) == 0);
  CHECK(schedule.Place(5) == 1);
}

TEST_CASE("units whose graphs are saved need no inputs of their own") {
  const Schedule two(5, /*saved=*/2, 2);
  CHECK(two.first_saved() == 3);
  CHECK(Text(two.Backward()) == "B4 B3 B2 R0 B1 B0");
  CHECK(two.saved_count() == 1);
  const Schedule all(5, /*saved=*/9, 2);
  CHECK(all.first_saved() == 0);
  CHECK(Text(all.Backward()) == "B4 B3 B2 B1 B0");
  CHECK(all.saved_count() == 0);
  CHECK(all.recomputed_count() == 0);
}

TEST_CASE("an interval beyond the units saves no input") {
  const Schedule schedule(3, 0, 100);
  CHECK(Text(schedule.Backward()) == "B2 B1 B0");
  CHECK(schedule.saved_count() == 0);
  CHECK(schedule.recomputed_count() == 2);
}

TEST_CASE("where nothing is differentiated no graph is saved") {
  ExecutionPlan plan;
  plan.saved_units = 2;
  CHECK(ScheduleOf(plan, 5, /*gradients=*/true).first_saved() == 3);
  CHECK(ScheduleOf(plan, 5, /*gradients=*/false).first_saved() == 5);
}

}  // namespace
}  // namespace autoscheme
