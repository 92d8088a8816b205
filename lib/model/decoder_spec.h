// What a model is, as plain data: its blocks, the parts that they are made of, and the tensors that these read.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "base/json.h"
#include "model/rope.h"

namespace autoscheme {

// A linear layer of a block, named below the block: "self_attn.q_proj". Its tensors are NAME.weight and NAME.bias.
struct LinearSpec {
  std::string name;
  int64_t out_features = 0;
  int64_t in_features = 0;
  bool bias = false;
  bool transposed = false;  // stored as [in_features, out_features], GPT-2's Conv1D
  std::string gguf_name;    // llama.cpp's, below "blk.0." (the head's: whole): "attn_q"; empty if it has none
  int sublayer = 0;         // the one that reads it; set by Finish
};

// A tensor that is not a quantizable weight (a norm): "input_layernorm.weight".
struct ParamSpec {
  std::string name;
  std::vector<int64_t> shape;
  int sublayer = 0;  // set by Finish
};

// The parts. Integers index the block's linears or params; -1 = none.

// kRms: x / rms(x), kLayer: (x - mean(x)) / deviation(x), over the last dimension; times (weight + offset), plus bias.
struct Norm {
  enum Kind { kNone, kRms, kLayer } kind = kNone;
  int weight = -1;  // [n], or [heads, n] where every head has its own; -1: all ones, kLayer alone
  int bias = -1;
  double eps = 1e-6;
  double offset = 0;   // 1 in Gemma
  bool wide = false;   // the weight is applied in float32, before the result is rounded to the compute dtype
  bool plain = false;  // kLayer: by plain operators in float32, as Cohere does, whose last bits are others
  int parts = 1;       // > 1: the weight [parts, n] is so many params from that index on, one for each head

  bool operator==(const Norm& other) const {
    return kind == other.kind && weight == other.weight && bias == other.bias && eps == other.eps;
  }
};

// Rotates the first `dims` numbers of every head by position. Halves: (x_i, x_{i + dims/2}) turn together; interleaved:
// (x_2i, x_{2i+1}).
struct Rotary {
  int table = -1;  // index into ModelSpec::tables; -1: no rotation
  int64_t dims = 0;
  bool interleaved = false;
  bool wide = false;  // in float32, rounded once, whatever the compute dtype
  // Queries are multiplied by 1 + query_growth ln(1 + floor(position / growth_length)) where that is not 0.
  double query_growth = 0, growth_length = 1;
};

// Causal attention. Query head h reads key head h / (heads / kv_heads).
struct Attention {
  // Where q, k and v come from: three linears; one linear `q` that gives all q, all k, all v; one that gives for every
  // key head its queries, its key and its value.
  enum Inputs { kSeparate, kConcatenated, kGrouped } inputs = kSeparate;
  int q = -1, k = -1, v = -1, out = -1;
  Norm q_norm, k_norm;  // over each head, or over all heads where the weight is as wide as they are
  int64_t heads = 1, kv_heads = 1, head_dim = 2;
  int64_t window = 0;  // > 0: a query sees itself and the window - 1 positions before it
  double scale = 0;    // factor of q k^T; 0: 1 / sqrt(head_dim)
  double softcap = 0;  // > 0: scores become softcap tanh(scores / softcap)
  double clip = 0;     // > 0: q, k and v are clamped to [-clip, clip]
  Rotary rotary;
};

enum class Activation { kSilu, kGelu, kGeluTanh, kGeluNew, kQuickGelu, kRelu, kSquaredRelu };

// down(activation(gate) * up), or down(activation(up)) where there is no gate.
struct Mlp {
  Activation activation = Activation::kSilu;
  int gate = -1, up = -1, down = -1;
  int64_t width = 0;
  bool fused = false;  // `up` gives gate and up, one after the other; `gate` is -1

  bool gated() const { return fused || gate >= 0; }
};

// after(body(before(x))).
struct Branch {
  Norm before;
  std::variant<Attention, Mlp> body;
  Norm after;
};

// y = after_sum(x + scale * the sum of its branches). What one sublayer hands to the next is all that the next needs,
// so a sweep may stop, save and differentiate between any two.
struct Sublayer {
  std::vector<Branch> branches;
  double scale = 1;
  Norm after_sum;
  bool residual_last = false;  // x is added to the sum of the branches, not the branches to x: other last bits
};

struct BlockSpec {
  std::string name;                 // "model.layers.0"
  std::vector<LinearSpec> linears;  // in the reference's module order, which decides ties in selection
  std::vector<ParamSpec> params;
  std::vector<Sublayer> sublayers;
};

// Frequencies of a rotary embedding over `dims` numbers of a head.
struct RotaryTable {
  RopeConfig rope;
  int64_t dims = 0;
};

// From ids to the input of the first block. Integers index ModelSpec::others; -1 = none.
struct Input {
  std::string embedding;  // "model.embed_tokens.weight", [vocab, width]
  int64_t width = 0;      // numbers in a row; the hidden size unless there is a projection
  double scale = 1;       // factor of the rows, rounded to the compute dtype
  int positions = -1;     // [positions + first_position, hidden], added by position
  int64_t first_position = 0;
  int projection = -1;  // [hidden, width]
};

// From the output of the last block to logits: cap(multiplier * head(projection(norm(x)))).
struct Output {
  Norm norm;            // weight and bias index ModelSpec::others
  int projection = -1;  // [head width, hidden]
  double multiplier = 1;
  double softcap = 0;  // > 0: logits become softcap tanh(logits / softcap)
};

struct ModelSpec {
  std::string model_type;
  int64_t hidden_size = 0, vocab_size = 0, max_positions = 0;
  bool tied_head = false;  // what the config says; unset key = decided by the tensors present
  bool tied_head_given = false;
  Input input;
  Output output;
  LinearSpec head;                // "lm_head"
  std::vector<ParamSpec> others;  // tensors outside the blocks, but for embedding and head
  std::vector<RotaryTable> tables;
  std::vector<BlockSpec> blocks;
  // The text decoder of a multimodal model: other tensors are untouched, not ignored.
  bool multimodal = false;
  std::vector<std::string> warnings;  // what config.json says twice or in vain, one sentence each
};

// The linears and params of a sublayer, in the order in which they are used.
std::vector<int> LinearsOf(const Sublayer& sublayer);
std::vector<int> ParamsOf(const Sublayer& sublayer);
// The last product of each branch whose result is only added to what the sublayer hands on, so that no gradient depends
// on its values: not where a norm follows.
std::vector<int> LastProducts(const Sublayer& sublayer);
// Sets the sublayers of linears and params.
void Finish(BlockSpec& block);

// Makes a ModelSpec from config.json. A family is one function and one line in registry.cc.
using Family = absl::StatusOr<ModelSpec> (*)(const Json& config);

// Finds the family by config.json's model_type. UNIMPLEMENTED names it and lists what is supported.
absl::StatusOr<ModelSpec> ReadModelSpec(const Json& config);

}  // namespace autoscheme
