// What scoring has cost.
#ifndef AUTOSCHEME_RUN_STATS_H_
#define AUTOSCHEME_RUN_STATS_H_

#include <cstdint>

#include "autoscheme/io_engine.h"

namespace autoscheme {

struct RunStats {
  uint64_t planned_read_bytes = 0, read_bytes = 0;
  uint64_t spill_bytes = 0;
  uint64_t planned_peak_bytes = 0;
  uint64_t peak_rss_bytes = 0;      // VmHWM of the process at the end, 0 where the system does not say
  uint64_t planned_vram_bytes = 0;  // what the plan promised of a GPU's memory; 0 on a CPU
  // What this process took of it at most: by the driver's count or, where that does not say, by how much less was free
  // there than when the run began, and the context as it is planned.
  uint64_t peak_vram_bytes = 0;
  double forward_s = 0, head_s = 0, backward_s = 0, stall_s = 0, total_s = 0;
  double product_s = 0, product_flops = 0;            // matrix products, part of the three sweeps
  uint64_t rss_anon_bytes = 0, rss_file_bytes = 0;    // the process's at the end
  uint64_t disk_read_bytes = 0, read_call_bytes = 0;  // by the process during the run: from storage; by read calls
  IoEngine io_engine = IoEngine::kBuffered;           // the one that read the blocks: never kAuto
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_RUN_STATS_H_
