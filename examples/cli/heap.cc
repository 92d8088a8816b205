#include "heap.h"

#include <cstdlib>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace cli {
namespace {

constexpr int kMiB = 1 << 20;

void SetThresholds(int mapping_bytes, int slack_bytes) {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, mapping_bytes);
  mallopt(M_TRIM_THRESHOLD, slack_bytes);
#else
  (void)mapping_bytes, (void)slack_bytes;
#endif
}

}  // namespace

void KeepHeapSmall() {
#ifdef __GLIBC__
  mallopt(M_ARENA_MAX, 2);
#endif
  SetThresholds(16 * kMiB, 64 * kMiB);
}

void KeepHeapTight() { SetThresholds(kMiB, 4 * kMiB); }

}  // namespace cli
