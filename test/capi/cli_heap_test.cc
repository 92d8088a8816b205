// What the program's heap keeps of freed memory.
#include <cstdlib>

#include "heap.h"

#ifdef __GLIBC__
#include <malloc.h>

#include <catch2/catch.hpp>

namespace {

TEST_CASE("a large buffer is never part of the program's heap, however large those before it were") {
  cli::KeepHeapSmall();
  // By default glibc takes a large buffer that is freed as a hint that others will come, and makes them part of the
  // heap.
  void* volatile earlier = std::malloc(16 << 20);  // volatile: a compiler may leave out a pair that nobody looks at
  std::free(earlier);
  const size_t before = mallinfo2().hblks;
  void* volatile buffer = std::malloc(12 << 20);
  CHECK(mallinfo2().hblks == before + 1);
  std::free(buffer);
  CHECK(mallinfo2().hblks == before);
}

}  // namespace
#endif
