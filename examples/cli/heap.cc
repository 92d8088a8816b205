#include "heap.h"

#include <cstdlib>  // says whose library this is

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace cli {

void KeepHeapSmall() {
#ifdef __GLIBC__
  constexpr int kMiB = 1 << 20;
  mallopt(M_ARENA_MAX, 2);
  mallopt(M_MMAP_THRESHOLD, kMiB);
  mallopt(M_TRIM_THRESHOLD, 4 * kMiB);
#endif
}

}  // namespace cli
