// A model folder on disk: its config, its shards, and where every tensor lies. Headers only; weights are read by
// others. Or a config.json alone, with the tensors that its model would have.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"
#include "autoscheme/tensor.h"
#include "base/io.h"
#include "base/json.h"

namespace autoscheme {

// One opened file of tensors. The descriptor stays open so that what was validated is what will be read.
struct Shard {
  File file;
  std::string name;  // file name without folder
};

// Immutable after Open: free to share between threads. Opening checks every shard's header against its size (by the
// strict rules of safetensors.h) and reads no weight byte. The index says which shards to open, and which one counts
// where a tensor lies in several; where it disagrees with them otherwise, they count, with a warning.
class Checkpoint {
 public:
  // `model`: a folder, or a repo id resolved in the local Hugging Face cache (hub_cache.h).
  // Read are model.safetensors, else the shards of the index, else a set of shards (model_folder.h).
  // Errors: NOT_FOUND (no folder, config.json or weights; lists every missing shard), DATA_LOSS (truncated or malformed
  // file; a tensor in two shards without a word of the index), INVALID_ARGUMENT (unsafe shard name; several snapshots
  // or sets), RESOURCE_EXHAUSTED (beyond a limit), UNIMPLEMENTED (only weights in another format, which are named).
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const Context& context, const std::string& model);

  // A checkpoint without weights, of the text of a config.json that lies at `path`, or in no file if that is empty: it
  // has the tensors that `tensors_of` names (dtype and shape are set), at the places that they would have in the one
  // file that safetensors makes of them. Errors: DATA_LOSS (malformed JSON), INVALID_ARGUMENT (absurdly large), those
  // of `tensors_of`.
  using TensorsOf = std::function<absl::StatusOr<std::vector<TensorInfo>>(const Json& config)>;
  static absl::StatusOr<std::unique_ptr<Checkpoint>> FromConfig(std::string text, const std::string& path,
                                                                const TensorsOf& tensors_of);
  static constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;
  bool has_weights() const { return !shards_.empty(); }
  // FAILED_PRECONDITION where there are none: for what reads weights, before it does anything.
  absl::Status CheckHasWeights() const;

  const std::string& directory() const { return directory_; }  // without weights: the path of config.json
  const Json& config() const { return config_; }               // an object
  const std::string& config_text() const { return config_text_; }
  absl::Span<const Shard> shards() const { return shards_; }
  // Paths of what Open has read and Read will: config.json, the index, the shards.
  const std::vector<std::string>& files() const { return files_; }
  // Whether the folder holds an index of shards that was not read because there is a model.safetensors.
  bool index_ignored() const { return index_ignored_; }
  // All tensors, sorted by name.
  absl::Span<const TensorInfo> tensors() const { return tensors_; }
  const TensorInfo* Find(absl::string_view name) const;  // null if absent

  // Reads out.size() bytes of a tensor, from its byte `offset_in_tensor` on. Large reads leave nothing in the page
  // cache. DATA_LOSS or UNAVAILABLE with tensor, shard and offset; INVALID_ARGUMENT for a range outside the tensor.
  absl::Status Read(const TensorInfo& tensor, uint64_t offset_in_tensor, absl::Span<std::byte> out) const;
  // Bytes that Read has delivered since Open. Thread-safe.
  uint64_t bytes_read() const;
  // Whether a read of the shards past the page cache has been refused: learned by one stream, used by the later ones.
  // Thread-safe. RefuseDirect is true for the one call that finds it out.
  bool direct_refused() const { return direct_refused_; }
  bool RefuseDirect() const { return !direct_refused_.exchange(true); }

 private:
  friend class CheckpointBuilder;
  Checkpoint() = default;
  std::string directory_, config_text_;
  Json config_;
  std::vector<std::string> files_;
  std::vector<Shard> shards_;
  std::vector<TensorInfo> tensors_;
  bool index_ignored_ = false;
  mutable std::atomic<uint64_t> bytes_read_{0};
  mutable std::atomic<bool> direct_refused_{false};
};

}  // namespace autoscheme
