// Members of `run` in scores.json and eval.json, in their order: what writing and reading go through.
#pragma once

#include <cstdint>

#include "autoscheme/run_stats.h"
#include "writers/json_text.h"

namespace autoscheme {

struct BytesMember {
  const char* name;
  uint64_t RunStats::*field;
};
inline constexpr BytesMember kRunBytes[] = {{"planned_peak_bytes", &RunStats::planned_peak_bytes},
                                            {"peak_rss_bytes", &RunStats::peak_rss_bytes},
                                            {"planned_vram_bytes", &RunStats::planned_vram_bytes},
                                            {"peak_vram_bytes", &RunStats::peak_vram_bytes},
                                            {"rss_anon_bytes", &RunStats::rss_anon_bytes},
                                            {"rss_file_bytes", &RunStats::rss_file_bytes},
                                            {"planned_read_bytes", &RunStats::planned_read_bytes},
                                            {"read_bytes", &RunStats::read_bytes},
                                            {"disk_read_bytes", &RunStats::disk_read_bytes},
                                            {"read_call_bytes", &RunStats::read_call_bytes},
                                            {"spill_bytes", &RunStats::spill_bytes}};

struct NumberMember {
  const char* name;
  double RunStats::*field;
};
inline constexpr NumberMember kRunNumbers[] = {{"total_s", &RunStats::total_s},
                                               {"forward_s", &RunStats::forward_s},
                                               {"head_s", &RunStats::head_s},
                                               {"backward_s", &RunStats::backward_s},
                                               {"stall_s", &RunStats::stall_s},
                                               {"product_s", &RunStats::product_s},
                                               {"product_flops", &RunStats::product_flops}};

// The member itself.
void WriteRun(const RunStats& run, PageWriter* page);

}  // namespace autoscheme
