#include "stream/spill_space.h"

#include <catch2/catch.hpp>
#include <cerrno>
#include <random>

#include "stream/stream_model.h"

namespace autoscheme {
namespace {

using Place = SpillSpace::Place;

TEST_CASE("the same pieces taken and returned use one file") {
  const TempDir dir;
  WatchedIo io;
  Context context;
  context.io = &io;
  int files = 0;
  io.before_allocate = [&](int) { return ++files, 0; };
  SpillSpace space(context, dir.path(), "tests");
  for (int round = 0; round < 5; ++round) {
    const auto places = space.Take({5000, 1, 9000, 0});
    REQUIRE(places.ok());
    CHECK((*places)[3].file == -1);
    for (const Place& place : *places) space.Return(place);
  }
  CHECK(files == 1);
  // All of it came together again: a piece as large as the sum fits.
  const auto all = space.Take({8192 + 4096 + 12288});
  REQUIRE(all.ok());
  CHECK((*all)[0].offset == 0);
  CHECK(files == 1);
  REQUIRE(space.Take({1}).ok());
  CHECK(files == 2);
}

TEST_CASE("a full disk gives no place at all and takes none") {
  const TempDir dir;
  WatchedIo io;
  Context context;
  context.io = &io;
  SpillSpace space(context, dir.path(), "tests");
  const auto once = space.Take({4096, 4096});
  REQUIRE(once.ok());
  for (const Place& place : *once) space.Return(place);
  io.before_allocate = [](int) { return -ENOSPC; };
  CHECK(absl::IsResourceExhausted(space.Take({4096, 4096, 4096}).status()));
  const auto both = space.Take({4096, 4096});  // what was there is still there
  CHECK(both.ok());
}

TEST_CASE("pieces never overlap, whatever the order of takes and returns") {
  const TempDir dir;
  SpillSpace space({}, dir.path(), "tests");
  std::mt19937 random(7);
  std::vector<Place> held;
  for (int i = 0; i < 500; ++i) {
    if (random() % 2 == 0 && !held.empty()) {
      const size_t which = random() % held.size();
      space.Return(held[which]);
      held.erase(held.begin() + which);
      continue;
    }
    std::vector<uint64_t> sizes(1 + random() % 3);
    for (uint64_t& size : sizes) size = random() % 20000;
    const auto places = space.Take(sizes);
    REQUIRE(places.ok());
    for (const Place& place : *places) {
      if (place.file < 0) continue;
      REQUIRE(place.offset % SpillFile::kAlignment == 0);
      for (const Place& other : held) {
        REQUIRE((other.file != place.file || other.offset >= place.offset + place.bytes ||
                 place.offset >= other.offset + other.bytes));
      }
      held.push_back(place);
    }
  }
}

}  // namespace
}  // namespace autoscheme
