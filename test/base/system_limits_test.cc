#include "base/system_limits.h"

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "support/made_system.h"

namespace autoscheme {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

const std::string kMeminfo = "MemTotal:       16777216 kB\nMemFree:         1000000 kB\nMemAvailable:    8388608 kB\n";
const std::string kV2Mount =
    "25 1 0:22 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 "
    "rw,nsdelegate\n";
const std::string kV1Mounts =
    "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

void LeavesFree(std::map<std::string, std::string> files, uint64_t bytes, const std::string& cgroup) {
  files.emplace("/proc/meminfo", kMeminfo);
  MadeSystem system(files);
  const auto free = ReadFreeMemory(system);
  REQUIRE(free.has_value());
  CHECK(free->bytes == bytes);
  CHECK(free->cgroup == cgroup);
}

TEST_CASE("Without a limit of a group the system's memory is free") {
  LeavesFree({}, 8 * kGiB, "");
  LeavesFree({{"/proc/self/cgroup", "0::/user.slice\n"},
              {"/proc/self/mountinfo", kV2Mount},
              {"/sys/fs/cgroup/user.slice/memory.max", "max\n"},
              {"/sys/fs/cgroup/user.slice/memory.current", "5\n"}},
             8 * kGiB, "");
  LeavesFree({{"/proc/self/cgroup", "4:memory:/a\n0::/\n"},
              {"/proc/self/mountinfo", kV1Mounts},
              {"/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n"},
              {"/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "1000000\n"}},
             8 * kGiB, "");
  MadeSystem nothing({});
  CHECK_FALSE(ReadFreeMemory(nothing).has_value());
}

TEST_CASE("A group of version 2 leaves its limit less what it uses, without the page cache of files") {
  const auto group = [](const std::string& max, const std::string& high, const std::string& current,
                        const std::string& stat) {
    return std::map<std::string, std::string>{{"/proc/self/cgroup", "0::/a.slice/b.scope\n"},
                                              {"/proc/self/mountinfo", kV2Mount},
                                              {"/sys/fs/cgroup/a.slice/b.scope/memory.max", max},
                                              {"/sys/fs/cgroup/a.slice/b.scope/memory.high", high},
                                              {"/sys/fs/cgroup/a.slice/b.scope/memory.current", current},
                                              {"/sys/fs/cgroup/a.slice/b.scope/memory.stat", stat}};
  };
  const std::string folder = "/sys/fs/cgroup/a.slice/b.scope";
  LeavesFree(group("1073741824\n", "max\n", "300000000\n",
                   "anon 7\nfile 500000000\ninactive_file 100000000\nactive_file 50000000\n"),
             kGiB - 150000000, folder);
  LeavesFree(group("1073741824\n", "800000000\n", "300000000\n", ""), 500000000, folder);
  LeavesFree(group("1073741824\n", "max\n", "1073741824\n", "inactive_file 0\n"), 0, folder);
  LeavesFree(group("1000\n", "max\n", "2000\n", "inactive_file 5000\n"), 1000, folder);
  LeavesFree(group("68719476736\n", "max\n", "0\n", ""), 8 * kGiB, "");  // more than the system has
}

TEST_CASE("Groups above the own one count, whichever leaves the least") {
  const std::map<std::string, std::string> files = {{"/proc/self/cgroup", "0::/a/b/c\n"},
                                                    {"/proc/self/mountinfo", kV2Mount},
                                                    {"/sys/fs/cgroup/a/memory.max", "2000000000\n"},
                                                    {"/sys/fs/cgroup/a/memory.current", "1900000000\n"},
                                                    {"/sys/fs/cgroup/a/b/memory.max", "1500000000\n"},
                                                    {"/sys/fs/cgroup/a/b/memory.current", "0\n"},
                                                    {"/sys/fs/cgroup/a/b/c/memory.max", "max\n"}};
  LeavesFree(files, 100000000, "/sys/fs/cgroup/a");
}

TEST_CASE("Groups of version 1 are found by their controller, hybrid systems have both") {
  std::map<std::string, std::string> files = {
      {"/proc/self/cgroup", "9:name=systemd:/x\n4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/init.scope\n"},
      {"/proc/self/mountinfo", kV1Mounts + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"},
      {"/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1073741824\n"},
      {"/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "500000000\n"},
      {"/sys/fs/cgroup/memory/docker/abc/memory.stat",
       "cache 5\ninactive_file 1\nhierarchical_memory_limit 1073741824\ntotal_inactive_file "
       "200000000\ntotal_active_file 50000000\n"}};
  LeavesFree(files, kGiB - 250000000, "/sys/fs/cgroup/memory/docker/abc");
  files["/sys/fs/cgroup/unified/init.scope/memory.max"] = "400000000";
  LeavesFree(files, 400000000, "/sys/fs/cgroup/unified/init.scope");
}

TEST_CASE("In a container the mount shows the own group as its root, and a limit above it shows in the statistics") {
  const std::string mount = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro master:11 - cgroup cgroup rw,memory\n";
  LeavesFree({{"/proc/self/cgroup", "4:memory:/docker/abc/inner\n"},
              {"/proc/self/mountinfo", mount},
              {"/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "9223372036854771712\n"},
              {"/sys/fs/cgroup/memory/inner/memory.usage_in_bytes", "100\n"},
              {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"},
              {"/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n"},
              {"/sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 500000000\n"}},
             499999000, "/sys/fs/cgroup/memory");
  // With a namespace of its own; and with one around which the mount was made.
  const std::map<std::string, std::string> limit = {{"/sys/fs/cgroup/memory.max", "600000000\n"}};
  for (const std::string root : {"/", "/../.."}) {
    auto files = limit;
    files["/proc/self/cgroup"] = "0::/\n";
    files["/proc/self/mountinfo"] = "30 23 0:26 " + root + " /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
    LeavesFree(files, 600000000, "/sys/fs/cgroup");
  }
  auto outside = limit;
  outside["/proc/self/cgroup"] = "0::/../other\n";
  outside["/proc/self/mountinfo"] = kV2Mount;
  LeavesFree(outside, 8 * kGiB, "");
}

TEST_CASE("A mount of part of the groups counts only if the own one is in it, and folders may have blanks") {
  LeavesFree(
      {{"/proc/self/cgroup", "0::/ab\n"},
       {"/proc/self/mountinfo",
        "30 23 0:26 /a /sys/a rw - cgroup2 cgroup2 rw\n31 23 0:26 / /sys/my\\040groups rw - cgroup2 cgroup2 rw\n"},
       {"/sys/a/b/memory.max", "1\n"},
       {"/sys/a/memory.max", "1\n"},
       {"/sys/my groups/ab/memory.max", "700000000\n"}},
      700000000, "/sys/my groups/ab");
}

TEST_CASE("A mount table longer than any buffer is read to its end") {
  std::string mounts;
  for (int i = 0; i < 2000; ++i)
    mounts += std::to_string(i + 100) + " 1 0:99 / /layers/" + std::to_string(i) + " rw - overlay overlay rw\n";
  LeavesFree({{"/proc/self/cgroup", "0::/\n"},
              {"/proc/self/mountinfo", mounts + kV2Mount},
              {"/sys/fs/cgroup/memory.max", "500\n"}},
             500, "/sys/fs/cgroup");
}

TEST_CASE("The quota of processors is the least of the own group and those above") {
  const auto quota = [](const std::map<std::string, std::string>& files) {
    MadeSystem system(files);
    return ReadCpuQuota(system);
  };
  CHECK_FALSE(quota({}).has_value());
  std::map<std::string, std::string> v2 = {{"/proc/self/cgroup", "0::/a/b\n"},
                                           {"/proc/self/mountinfo", kV2Mount},
                                           {"/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"}};
  CHECK_FALSE(quota(v2).has_value());
  v2["/sys/fs/cgroup/a/cpu.max"] = "150000 100000\n";
  CHECK(quota(v2) == 1.5);
  v2["/sys/fs/cgroup/a/b/cpu.max"] = "50000 100000\n";
  CHECK(quota(v2) == 0.5);
  std::map<std::string, std::string> v1 = {{"/proc/self/cgroup", "2:cpu,cpuacct:/j\n"},
                                           {"/proc/self/mountinfo", kV1Mounts},
                                           {"/sys/fs/cgroup/cpu,cpuacct/j/cpu.cfs_quota_us", "-1\n"},
                                           {"/sys/fs/cgroup/cpu,cpuacct/j/cpu.cfs_period_us", "100000\n"}};
  CHECK_FALSE(quota(v1).has_value());
  v1["/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us"] = "400000\n";
  v1["/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us"] = "100000\n";
  CHECK(quota(v1) == 4);
}

TEST_CASE("This machine says what is free") {
  const auto free = ReadFreeMemory(Io::Posix());
  REQUIRE(free.has_value());
  CHECK(free->bytes > 0);
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
