#include "checkpoint/shard_index.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "checkpoint/file_kind.h"
#include "checkpoint/header_handler.h"
#include "checkpoint/hub_cache.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMaxIndexBytes = uint64_t{64} << 20;

}  // namespace

int ShardIndex::ShardOf(absl::string_view tensor) const {
  const auto found = shard_of.find(tensor);
  return found == shard_of.end() ? -1 : found->second;
}

absl::StatusOr<ShardIndex> ReadShardIndex(Io& io, const std::string& path) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string text, ReadFileToString(io, path, kMaxIndexBytes));
  AUTOSCHEME_ASSIGN_OR_RETURN(const Json json, ParseJsonFile(text, path));
  const JsonValue* map = JsonFind(json, "weight_map");
  if (map == nullptr || !map->IsObject()) {
    return absl::DataLossError(absl::StrCat(Quoted(path), " has no object \"weight_map\""));
  }
  if (map->MemberCount() > HeaderHandler::kMaxTensors) {
    return absl::ResourceExhaustedError(absl::StrCat(Quoted(path), " lists ", map->MemberCount(), " tensors; at most ",
                                                     HeaderHandler::kMaxTensors, " are accepted"));
  }

  ShardIndex index;
  for (const auto& entry : map->GetObject()) {
    if (!entry.value.IsString()) {
      return absl::DataLossError(
          absl::StrCat(Quoted(path), ": the shard of tensor ", Quoted(JsonText(entry.name)), " is not a string"));
    }
    const absl::string_view shard = JsonText(entry.value);
    if (!IsPlainFileName(shard) || !absl::EndsWith(shard, ".safetensors")) {
      return absl::InvalidArgumentError(absl::StrCat(Quoted(path), ": tensor ", Quoted(JsonText(entry.name)),
                                                     " is placed in ", Quoted(shard),
                                                     ", not the plain name of a .safetensors file in the same folder"));
    }
    index.shards.emplace_back(shard);
  }
  std::sort(index.shards.begin(), index.shards.end());
  index.shards.erase(std::unique(index.shards.begin(), index.shards.end()), index.shards.end());

  index.shard_of.reserve(map->MemberCount());
  for (const auto& entry : map->GetObject()) {
    const auto shard = std::lower_bound(index.shards.begin(), index.shards.end(), JsonText(entry.value));
    index.shard_of.emplace(JsonText(entry.name), static_cast<int>(shard - index.shards.begin()));
  }
  return index;
}

}  // namespace autoscheme
