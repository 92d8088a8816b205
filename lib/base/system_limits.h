// What the system leaves to this process, and the cgroups that it is in: memory, and time of processors.
#ifndef AUTOSCHEME_BASE_SYSTEM_LIMITS_H_
#define AUTOSCHEME_BASE_SYSTEM_LIMITS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "base/io.h"

namespace autoscheme {

struct FreeMemory {
  uint64_t bytes = 0;
  std::string cgroup;  // folder of the group whose limit leaves the least; empty: the system as a whole does
};

// Memory that new work could have: the least of what the system has without swapping (MemAvailable) and of what each cgroup,
// version 1 or 2, from the process's own up to the root, leaves of its limits. File pages that a group has not used of late do
// not count as used. Nothing where the system does not say.
std::optional<FreeMemory> ReadFreeMemory(Io& io);

// Processors whose time the cgroups let this process have (cpu.max, cpu.cfs_quota_us), the least of all; nothing without a limit.
std::optional<double> ReadCpuQuota(Io& io);

}  // namespace autoscheme

#endif  // AUTOSCHEME_BASE_SYSTEM_LIMITS_H_
