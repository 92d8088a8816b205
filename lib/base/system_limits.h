// What the system leaves to this process and to the cgroups that it is in (memory, time of processors), and what the
// process itself has used.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/io.h"

namespace autoscheme {

struct FreeMemory {
  uint64_t bytes = 0;
  std::string cgroup;  // folder of the group whose limit leaves the least; empty: the system as a whole does
};

// Memory that new work could have: the least of what the system has without swapping (MemAvailable) and of what each
// cgroup, version 1 or 2, from the process's own up to the root, leaves of its limits. File pages that a group has not
// used of late do not count as used. Nothing where the system does not say.
std::optional<FreeMemory> ReadFreeMemory(Io& io);

// Processors whose time the cgroups let this process have (cpu.max, cpu.cfs_quota_us), the least of all; nothing
// without a limit.
std::optional<double> ReadCpuQuota(Io& io);

// This process's memory, bytes; 0 where the system does not say. From /proc/self/status.
struct ProcessMemory {
  uint64_t rss = 0;       // VmRSS
  uint64_t peak_rss = 0;  // VmHWM
  uint64_t anon = 0;      // RssAnon
  uint64_t file = 0;      // RssFile
};
ProcessMemory ReadProcessMemory();

// Bytes that this process has read so far, of any file; 0 where the system does not say. From /proc/self/io.
struct ProcessReads {
  uint64_t disk = 0;   // read_bytes: fetched from storage
  uint64_t calls = 0;  // rchar: asked for by read calls, page cache or not
};
ProcessReads ReadProcessReads();

}  // namespace autoscheme
