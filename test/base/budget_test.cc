#include "base/budget.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace autoscheme {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("A hold counts until it is destroyed, and the peak remains") {
  MemoryBudget budget(100);
  {
    absl::StatusOr<MemoryBudget::Hold> a = budget.Take(60, "a");
    REQUIRE(a.ok());
    CHECK(budget.used() == 60);
    absl::StatusOr<MemoryBudget::Hold> b = budget.Take(40, "b");
    REQUIRE(b.ok());
    CHECK(budget.used() == 100);
  }
  CHECK(budget.used() == 0);
  CHECK(budget.peak() == 100);
  CHECK(budget.limit() == 100);
}

TEST_CASE("Beyond the limit is RESOURCE_EXHAUSTED with all the numbers") {
  MemoryBudget budget(100);
  const auto held = budget.Take(60, "blocks");
  const absl::Status status = budget.Take(41, "the boundary store").status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(status.message()), Contains("the boundary store") && Contains("41 bytes wanted") &&
                                                Contains("60 in use") && Contains("budget of 100"));
  CHECK(budget.used() == 60);
}

TEST_CASE("A budget of 0 is unlimited but still counts, and sums that wrap are refused") {
  MemoryBudget budget;
  const auto held = budget.Take(uint64_t{1} << 60, "much");
  REQUIRE(held.ok());
  CHECK(budget.used() == uint64_t{1} << 60);
  CHECK_FALSE(budget.Take(std::numeric_limits<uint64_t>::max(), "too much").ok());
}

TEST_CASE("Moving a hold moves what it returns") {
  MemoryBudget budget(100);
  MemoryBudget::Hold outer;
  {
    auto inner = budget.Take(30, "x");
    REQUIRE(inner.ok());
    outer = *std::move(inner);
  }
  CHECK(budget.used() == 30);
  outer = *budget.Take(50, "y");  // the 30 go back
  CHECK(budget.used() == 50);
  outer = MemoryBudget::Hold();
  CHECK(budget.used() == 0);
}

TEST_CASE("Threads never hold more than the limit together") {
  MemoryBudget budget(1000);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        auto a = budget.Take(300, "a");
        auto b = budget.Take(200, "b");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(budget.used() == 0);
  CHECK(budget.peak() <= 1000);
  CHECK(budget.peak() >= 500);
}

TEST_CASE("Process memory sees an allocation that has been touched") {
  const ProcessMemory before = ReadProcessMemory();
  CHECK(before.rss > 0);
  CHECK(before.peak_rss >= before.rss);
  CHECK(before.anon > 0);
  constexpr size_t kBytes = size_t{64} << 20;
  const std::unique_ptr<char[]> block(new char[kBytes]);
  std::memset(block.get(), 1, kBytes);
  CHECK(ReadProcessMemory().anon >= before.anon + kBytes / 2);
}

}  // namespace
}  // namespace autoscheme
