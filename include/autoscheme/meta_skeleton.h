// MetaSkeleton: a model's structure, from config.json and tensor headers alone. No weight byte is read to build it, but
// where config.json ties the head to the embedding and the checkpoint has a tensor for each: these are then compared,
// in chunks. A config.json without weights will do: for what the model is, and for the plan of a run.
#ifndef AUTOSCHEME_META_SKELETON_H_
#define AUTOSCHEME_META_SKELETON_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"
#include "autoscheme/tensor.h"

namespace autoscheme {

class Checkpoint;  // lib/checkpoint/checkpoint.h
struct ModelSpec;  // architecture.h

// A linear layer: weight [out_features, in_features] (but see `transposed`), optional bias [out_features].
struct LinearLayer {
  // The module's name in transformers, "model.layers.0.self_attn.q_proj", whatever prefix the stored tensors have: a
  // recipe must find its module.
  std::string name;
  int64_t out_features = 0;
  int64_t in_features = 0;
  const TensorInfo* weight = nullptr;  // borrowed from the skeleton's checkpoint
  const TensorInfo* bias = nullptr;    // null when the layer has none
  int index = 0;                       // in the model's order, over all blocks; the head's is the last
  int sublayer = 0;                    // index in its block
  bool transposed = false;             // the weight is stored as [in_features, out_features]
  // Its product is only added to what the sublayer hands on, so no gradient depends on its values.
  bool last_product = false;
  const char* reason = nullptr;  // why it stays as it is unless one asks for it; null for a layer of a block
};

// One decoder block. Its sublayers (attention, MLP) are computed one after the other: the smallest units that can be
// in memory alone.
struct Block {
  std::string name;                                       // "model.layers.0"
  std::vector<const TensorInfo*> tensors;                 // everything the block needs, ordered by (shard, offset)
  std::vector<std::vector<const TensorInfo*>> sublayers;  // the same tensors by sublayer
  std::vector<LinearLayer> linears;                       // the quantizable ones, in the model's order
  std::vector<const TensorInfo*> params;                  // the others, by BlockSpec::params
  uint64_t bytes = 0;                                     // sum over tensors
};

// What a tensor of the checkpoint is in the model.
struct TensorRole {
  const TensorInfo* tensor = nullptr;  // borrowed from the skeleton's checkpoint
  int block = -1;                      // index of its block; -1 outside the blocks
  int position = 0;                    // in its block, in the order of computing; outside, 0 before the blocks, else 1
  int layer = -1;                      // LinearLayer::index of the layer whose weight or bias it is; -1: of none
  const char* reason = nullptr;        // why it is not quantized, "norm"; null for the weight of a block's layer
};

// Immutable after Open: free to share between threads.
class MetaSkeleton {
 public:
  // `model` is a folder, or a repo id ("org/name" or "org/name@revision") that is resolved in the local Hugging Face
  // cache. No network is ever used. What the folder says or holds in vain, such as tensors that the model does not
  // read, is named by warnings of the context. Errors: NOT_FOUND (folder, config.json, shards: all missing ones are
  // listed), DATA_LOSS (malformed or truncated file), INVALID_ARGUMENT (a config field or tensor shape is wrong),
  // UNIMPLEMENTED (an unknown architecture or an already quantized model; lists what is supported).
  //
  // `model` may also be a file named *.json, a config.json whose weights need not be there. The skeleton then has the
  // tensors that the config asks for, all in the type that it names (`dtype` or `torch_dtype`; where it names none that
  // weights can have, BF16 with a warning), as if they lay in one file; of a multimodal model the text decoder's. What
  // reads no weight works with it: SchemeGenerator's MakePlan, CheckTargets and Select. All else is
  // FAILED_PRECONDITION.
  static absl::StatusOr<std::unique_ptr<MetaSkeleton>> Open(const Context& context, const std::string& model);
  // The same of the text of a config.json.
  static absl::StatusOr<std::unique_ptr<MetaSkeleton>> FromConfig(const Context& context,
                                                                  absl::string_view config_json);
  ~MetaSkeleton();

  const std::string& model() const;               // as given to Open; "config.json" where only its text was
  const std::string& directory() const;           // the folder that was opened, or the config.json
  bool has_weights() const;                       // false where config.json alone was opened
  const std::vector<std::string>& files() const;  // what is read of it: config.json, the index, the shards
  // Names of the shards, which TensorInfo::shard indexes.
  const std::vector<std::string>& shards() const;
  const std::vector<std::string>& warnings() const;  // those that Open gave the context
  const std::string& model_type() const;             // "llama", "qwen3", ...
  // Hex hash over config.json and every tensor's name, dtype and shape: equal for equal structure. That of a
  // config.json alone is its folder's where the weights are named like the modules, in the config's type, and are all
  // the model has.
  const std::string& fingerprint() const;

  absl::Span<const Block> blocks() const;
  int64_t hidden_size() const;
  int64_t vocab_size() const;
  const TensorInfo* embedding() const;  // [vocab, hidden]
  // The output head's weight [vocab, hidden]; the embedding itself when tied.
  const LinearLayer& head() const;
  bool tied_head() const;
  // Tensors outside blocks, embedding and head that the forward pass needs (the final norm, ...).
  absl::Span<const TensorInfo* const> other_tensors() const;
  // Tensors of a multimodal checkpoint that the text decoder does not read. They are counted in the two totals.
  absl::Span<const TensorInfo* const> untouched_tensors() const;
  // All tensors of the model: those of the blocks in order, each block's by place in the file; then the embedding, the
  // head if it is not tied, the others and the untouched ones.
  absl::Span<const TensorRole> tensors() const;
  int64_t total_params() const;
  uint64_t total_bytes() const;
  // Longest sequence the model was made for (max_position_embeddings), 0 if it says none.
  int64_t max_positions() const;

  // Structure as JSON, for `autoscheme inspect --json` (docs/formats.md).
  std::string ToJson() const;

  // For the other stages.
  const Checkpoint& checkpoint() const;
  const ModelSpec& spec() const;

 private:
  struct Rep;
  static absl::StatusOr<std::unique_ptr<MetaSkeleton>> OpenConfig(const Context& host, const std::string& model,
                                                                  std::string text, const std::string& path);
  static absl::StatusOr<std::unique_ptr<MetaSkeleton>> Make(const Context& context, std::unique_ptr<Rep> rep);
  explicit MetaSkeleton(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

// model_type values that Open understands, sorted.
std::vector<std::string> SupportedModelTypes();

}  // namespace autoscheme

#endif  // AUTOSCHEME_META_SKELETON_H_
