// What a model family is: its config fields, its tensors, its forward pass. One small file and one registry line each.
#ifndef AUTOSCHEME_MODEL_ARCHITECTURE_H_
#define AUTOSCHEME_MODEL_ARCHITECTURE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/json.h"

namespace autoscheme {

// A linear layer of a block, named below the block: "self_attn.q_proj".
struct LinearSpec {
  std::string name;
  int64_t out_features = 0;
  int64_t in_features = 0;
  bool bias = false;
  int segment = 0;            // of the block, see Architecture::Segment
  bool ends_segment = false;  // only added to the segment's output: no gradient depends on the values of the product
  std::string gguf_name;      // llama.cpp's, below "blk.0." (of the head: whole): "attn_q"; empty if it has none
};

// A tensor that is not a quantizable weight (a norm): "input_layernorm.weight".
struct ParamSpec {
  std::string name;
  std::vector<int64_t> shape;
  int segment = 0;
};

struct BlockSpec {
  std::string name;                 // "model.layers.0"
  std::vector<LinearSpec> linears;  // in the reference's module order, which decides ties in selection
  std::vector<ParamSpec> params;
};

struct ModelSpec {
  std::string model_type;
  int64_t hidden_size = 0, vocab_size = 0, max_positions = 0;
  bool tied_head = false;        // what the config says; unset key = decided by the tensors present
  bool tied_head_given = false;
  std::string embedding;         // "model.embed_tokens.weight", [vocab, hidden]
  LinearSpec head;               // "lm_head"
  std::vector<ParamSpec> others;  // final norm, ...
  std::vector<BlockSpec> blocks;
  std::vector<std::string> warnings;  // what config.json says twice or in vain, one sentence each
};

// What a block's forward asks of whoever runs it: the linears (quantized or not) and the small tensors.
class BlockOps {
 public:
  virtual ~BlockOps() = default;
  // x [..., in] -> [..., out] of the block's `index`-th linear, bias included.
  virtual at::Tensor Linear(int index, const at::Tensor& x) = 0;
  // A ParamSpec's tensor in compute dtype.
  virtual const at::Tensor& Param(absl::string_view name) = 0;
  // Architecture::PositionTables for the run's sequence length.
  virtual const at::Tensor& position_tables() const = 0;
};

// Immutable after creation: free to share between threads.
class Architecture {
 public:
  virtual ~Architecture() = default;
  virtual const ModelSpec& spec() const = 0;
  // Whatever depends on positions alone (rotary cos and sin), float32; may be undefined.
  virtual at::Tensor PositionTables(int64_t) const { return {}; }
  // Rows of the embedding [batch, seq, hidden] -> input of block 0. `ops` gives the tensors of ModelSpec::others.
  virtual at::Tensor Embed(const at::Tensor& rows, BlockOps&) const { return rows; }
  // A block is computed in segments, one after the other (attention, MLP). What one hands to the next is all that the
  // next needs, so a sweep may stop, store and differentiate between any two. The same number for every block.
  virtual int segments() const { return 1; }
  // [batch, seq, hidden] -> same. Differentiable in x where autograd is on. `ops` has the segment's linears and params.
  virtual at::Tensor Segment(int block, int segment, const at::Tensor& x, BlockOps& ops) const = 0;
  // Output of the last block -> input of the head.
  virtual at::Tensor FinalNorm(const at::Tensor& x, BlockOps& ops) const = 0;
  // For the memory plan, values of the compute dtype per token.
  struct Activations {
    // What waits for the backward pass where the graph of one segment's forward pass is kept: not what ops.h makes again.
    int64_t kept = 0;
    int64_t graph = 0;    // what the graph holds where it is differentiated at once: that and what could be made again from it
    int64_t passing = 0;  // what the busiest moment of the backward pass holds beside `graph`
  };
  // With `quantized_inputs` a graph holds every linear's input twice.
  virtual Activations ActivationsPerToken(int segment, bool quantized_inputs) const = 0;
  // Bytes that a segment holds beside that for a moment: forward for every row of the batch that a thread is at, backward in
  // every thread.
  struct Scratch {
    int64_t shared = 0;  // forward, once
    int64_t forward = 0;
    int64_t forward_outside = 0;  // of `forward`: what LibTorch allocates for itself, not from the pool of the run's tensors
    int64_t backward = 0;
  };
  virtual Scratch ScratchBytes(int /*segment*/, int64_t /*seqlen*/) const { return {}; }
};

using ArchitectureFactory = absl::StatusOr<std::unique_ptr<Architecture>> (*)(const Json& config);

// One line per model_type; registry.cc holds the table.
struct ArchitectureEntry {
  const char* model_type;
  ArchitectureFactory create;
};
absl::Span<const ArchitectureEntry> ArchitectureRegistry();

// By config.json's model_type. UNIMPLEMENTED names it and lists what is supported.
absl::StatusOr<std::unique_ptr<Architecture>> CreateArchitecture(const Json& config);

}  // namespace autoscheme

#endif  // AUTOSCHEME_MODEL_ARCHITECTURE_H_
