#include "base/system_limits.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace autoscheme {
namespace {

using absl::string_view;

// The kernel makes these texts while they are read, so their size is not known before. "" for one that is not there.
std::string ReadText(Io& io, const std::string& path) {
  constexpr size_t kMostBytes = size_t{16} << 20;
  std::string text;
  const int fd = RetryInterrupted([&] { return io.Open(path.c_str(), O_RDONLY | O_CLOEXEC, 0); });
  if (fd < 0) return text;
  char part[4096];
  while (text.size() < kMostBytes) {
    const ssize_t n =
        RetryInterrupted([&] { return io.Pread(fd, part, sizeof(part), static_cast<off_t>(text.size())); });
    if (n <= 0) break;
    text.append(part, static_cast<size_t>(n));
  }
  io.Close(fd);
  return text;
}

std::vector<string_view> Words(string_view line) {
  return absl::StrSplit(line, absl::ByAnyChar(" \t\n"), absl::SkipEmpty());
}

// The number of a file that holds one; nothing for "max" and for "-1".
std::optional<uint64_t> ReadNumber(Io& io, const std::string& path) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(ReadText(io, path), &number)) return std::nullopt;
  return number;
}

// The number after `name` in a text of lines "name number" or "name: number kB".
std::optional<uint64_t> NumberOf(string_view text, string_view name) {
  for (const string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<string_view> words = Words(line);
    uint64_t number = 0;
    if (words.size() < 2 || words[0] != name || !absl::SimpleAtoi(words[1], &number)) continue;
    return words.size() > 2 && words[2] == "kB" ? number * 1024 : number;
  }
  return std::nullopt;
}

// In mountinfo blanks and the like are written as octal numbers: "\040".
std::string Unescaped(string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) { return i + at < text.size() && text[i + at] >= '0' && text[i + at] <= '7'; };
    if (text[i] == '\\' && digit(1) && digit(2) && digit(3)) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

struct Mount {
  std::string root, folder;  // which group of its hierarchy is seen, and where
};

// Mounts of the unified hierarchy, or of the one of version 1 that has `controller`.
std::vector<Mount> Mounts(string_view mountinfo, bool unified, string_view controller) {
  std::vector<Mount> mounts;
  for (const string_view line : absl::StrSplit(mountinfo, '\n')) {
    const std::vector<string_view> words = Words(line);
    const size_t dash = absl::c_find(words, "-") - words.begin();
    if (dash < 6 || dash + 3 >= words.size() || words[dash + 1] != (unified ? "cgroup2" : "cgroup")) continue;
    const std::vector<string_view> options = absl::StrSplit(words[dash + 3], ',');
    if (unified || absl::c_linear_search(options, controller))
      mounts.push_back({Unescaped(words[3]), Unescaped(words[4])});
  }
  return mounts;
}

// The part of a group's path below the group that a mount shows; nothing if the group is not below it.
std::optional<string_view> Below(string_view root, string_view group) {
  if (root == "/") return group == "/" ? "" : group;
  if (!absl::ConsumePrefix(&group, root) || (!group.empty() && group[0] != '/')) return std::nullopt;
  return group;
}

// A folder of a group, and whose files it holds.
struct Group {
  std::string folder;
  bool unified;
};

// The process's own groups and those above them, as far as they can be seen. Some systems have both versions mounted.
std::vector<Group> Groups(Io& io, string_view controller) {
  const std::string mountinfo = ReadText(io, "/proc/self/mountinfo"), own = ReadText(io, "/proc/self/cgroup");
  std::vector<Group> groups;
  for (const string_view line : absl::StrSplit(own, '\n', absl::SkipEmpty())) {
    const std::vector<string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));  // number, controllers, path
    if (parts.size() != 3 || !absl::StartsWith(parts[2], "/")) continue;
    const bool unified = parts[1].empty();
    const std::vector<string_view> controllers = absl::StrSplit(parts[1], ',');
    if (!unified && !absl::c_linear_search(controllers, controller)) continue;
    if (absl::StartsWith(parts[2], "/..")) continue;  // outside of what this namespace shows
    const std::vector<Mount> mounts = Mounts(mountinfo, unified, controller);
    bool found = false;
    for (const Mount& mount : mounts) {
      const std::optional<string_view> below = Below(mount.root, parts[2]);
      if (!below.has_value()) continue;
      found = true;
      std::string folder = absl::StrCat(mount.folder, *below);
      while (true) {
        groups.push_back({folder, unified});
        if (folder.size() <= mount.folder.size()) break;
        folder.resize(folder.rfind('/'));
      }
    }
    // Within a namespace a mount from outside shows a group above the own one, under a path that cannot be compared.
    for (const Mount& mount : mounts) {
      if (!found && absl::StartsWith(mount.root, "/..")) groups.push_back({mount.folder, unified});
    }
  }
  return groups;
}

// What a group leaves of its tightest limit; nothing if it has none.
std::optional<uint64_t> LeftBy(Io& io, const Group& group) {
  const auto path = [&](const char* name) { return absl::StrCat(group.folder, "/memory.", name); };
  const std::string stat = ReadText(io, path("stat"));
  std::optional<uint64_t> limit;
  const auto take = [&](std::optional<uint64_t> other) {
    if (other.has_value()) limit = std::min(limit.value_or(*other), *other);
  };
  if (group.unified) {
    take(ReadNumber(io, path("max")));
    take(ReadNumber(io, path("high")));  // beyond it a process is slowed down to a crawl
  } else {
    take(ReadNumber(io, path("limit_in_bytes")));
    take(NumberOf(stat, "hierarchical_memory_limit"));  // also of groups above that cannot be seen
  }
  if (!limit.has_value()) return std::nullopt;
  const uint64_t used = ReadNumber(io, path(group.unified ? "current" : "usage_in_bytes")).value_or(0);
  // The page cache of files is given up when memory is wanted, as in the kernel's own MemAvailable.
  uint64_t reclaimable = 0;
  for (const char* kind : {"inactive_file", "active_file"}) {
    reclaimable += NumberOf(stat, group.unified ? kind : absl::StrCat("total_", kind)).value_or(0);
  }
  const uint64_t busy = used - std::min(used, reclaimable);
  return *limit - std::min(*limit, busy);
}

}  // namespace

std::optional<FreeMemory> ReadFreeMemory(Io& io) {
  std::optional<FreeMemory> free;
  if (const auto bytes = NumberOf(ReadText(io, "/proc/meminfo"), "MemAvailable:")) free = FreeMemory{*bytes, ""};
  for (const Group& group : Groups(io, "memory")) {
    const std::optional<uint64_t> left = LeftBy(io, group);
    if (left.has_value() && (!free.has_value() || *left < free->bytes)) free = FreeMemory{*left, group.folder};
  }
  return free;
}

std::optional<double> ReadCpuQuota(Io& io) {
  std::optional<double> least;
  for (const Group& group : Groups(io, "cpu")) {
    std::string text;
    if (group.unified) {
      text = ReadText(io, absl::StrCat(group.folder, "/cpu.max"));
    } else {
      text = absl::StrCat(ReadText(io, absl::StrCat(group.folder, "/cpu.cfs_quota_us")), " ",
                          ReadText(io, absl::StrCat(group.folder, "/cpu.cfs_period_us")));
    }
    const std::vector<string_view> words = Words(text);
    int64_t quota = 0, period = 0;
    if (words.size() != 2 || !absl::SimpleAtoi(words[0], &quota) || !absl::SimpleAtoi(words[1], &period)) continue;
    if (quota <= 0 || period <= 0) continue;
    const double processors = static_cast<double>(quota) / static_cast<double>(period);
    least = std::min(least.value_or(processors), processors);
  }
  return least;
}

ProcessMemory ReadProcessMemory() {
  const std::string text = ReadText(Io::Posix(), "/proc/self/status");
  const auto number = [&](string_view name) { return NumberOf(text, name).value_or(0); };
  return {number("VmRSS:"), number("VmHWM:"), number("RssAnon:"), number("RssFile:")};
}

ProcessReads ReadProcessReads() {
  const std::string text = ReadText(Io::Posix(), "/proc/self/io");
  return {NumberOf(text, "read_bytes:").value_or(0), NumberOf(text, "rchar:").value_or(0)};
}

}  // namespace autoscheme
