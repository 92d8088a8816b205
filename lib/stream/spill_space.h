// SpillSpace: spill files as one growing room that is handed out in spans and taken back.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"
#include "stream/spill_file.h"

namespace autoscheme {

// Grows by one preallocated file for all spans of a request that do not fit in what was given back, so that the same
// spans taken and returned again and again use the disk, and a descriptor, once. One thread at a time.
class SpillSpace {
 public:
  struct Place {
    int file = -1;  // -1: none
    uint64_t offset = 0;
    uint64_t bytes = 0;
  };

  SpillSpace(const Context& context, std::string dir, std::string what)
      : context_(context), dir_(std::move(dir)), what_(std::move(what)) {}

  // One place per size, all or none. RESOURCE_EXHAUSTED with the bytes that the disk lacks.
  absl::StatusOr<std::vector<Place>> Take(absl::Span<const uint64_t> sizes);
  void Return(const Place& place);
  SpillFile& file(const Place& place) { return files_[place.file].spill; }

 private:
  struct SpaceFile {
    SpillFile spill;
    std::map<uint64_t, uint64_t> free;  // offset -> bytes, whole alignment units, never touching each other
  };
  Place TakeFree(uint64_t bytes);

  const Context context_;
  const std::string dir_, what_;
  std::vector<SpaceFile> files_;
};

}  // namespace autoscheme
