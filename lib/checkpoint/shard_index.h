// model.safetensors.index.json: which shard holds which tensor.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/io.h"

namespace autoscheme {

struct ShardIndex {
  std::vector<std::string> shards;                 // file names without folder, sorted
  absl::flat_hash_map<std::string, int> shard_of;  // tensor name -> index into shards

  int ShardOf(absl::string_view tensor) const;  // -1 for one that is not listed
};

// Errors: NOT_FOUND, DATA_LOSS (malformed), INVALID_ARGUMENT (a shard name that is not a plain file name),
// RESOURCE_EXHAUSTED (more than 64 MiB or 1,000,000 tensors).
absl::StatusOr<ShardIndex> ReadShardIndex(Io& io, const std::string& path);

}  // namespace autoscheme
