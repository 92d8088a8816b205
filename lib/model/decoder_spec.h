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

// A linear layer of a block, named below the block: "self_attn.q_proj".
struct LinearSpec {
  std::string name;
  int64_t out_features = 0;
  int64_t in_features = 0;
  bool bias = false;
  std::string gguf_name;  // llama.cpp's, below "blk.0." (the head's: whole): "attn_q"; empty if it has none
  int sublayer = 0;       // the one that reads it; set by Finish
};

// A tensor that is not a quantizable weight (a norm): "input_layernorm.weight".
struct ParamSpec {
  std::string name;
  std::vector<int64_t> shape;
  int sublayer = 0;  // set by Finish
};

// The parts. Integers index the block's linears or params; -1 = none.

// x / rms(x) * weight.
struct Norm {
  int weight = -1;
  double eps = 1e-6;
};

// Causal attention over whole rotated heads, scores divided by sqrt(head_dim).
struct Attention {
  int q = -1, k = -1, v = -1, out = -1;
  Norm q_norm, k_norm;  // for every head
  int64_t heads = 1, kv_heads = 1, head_dim = 2;
  int64_t window = 0;  // > 0: a query sees itself and the window - 1 positions before it
};

// down(silu(gate) * up).
struct GatedMlp {
  int gate = -1, up = -1, down = -1;
  int64_t width = 0;
};

// body(before(x)).
struct Branch {
  Norm before;
  std::variant<Attention, GatedMlp> body;
};

// y = x + the sum of its branches. What one sublayer hands to the next is all that the next needs, so a sweep may stop,
// save and differentiate between any two.
struct Sublayer {
  std::vector<Branch> branches;
};

struct BlockSpec {
  std::string name;                 // "model.layers.0"
  std::vector<LinearSpec> linears;  // in the reference's module order, which decides ties in selection
  std::vector<ParamSpec> params;
  std::vector<Sublayer> sublayers;
};

struct ModelSpec {
  std::string model_type;
  int64_t hidden_size = 0, vocab_size = 0, max_positions = 0;
  bool tied_head = false;  // what the config says; unset key = decided by the tensors present
  bool tied_head_given = false;
  std::string embedding;          // "model.embed_tokens.weight", [vocab, hidden]
  LinearSpec head;                // "lm_head"
  std::vector<ParamSpec> others;  // tensors outside the blocks: the final norm
  Norm final_norm;                // its weight indexes `others`
  RopeConfig rope;
  int64_t rotary_dims = 0;
  std::vector<BlockSpec> blocks;
  std::vector<std::string> warnings;  // what config.json says twice or in vain, one sentence each
};

// The linears and params of a sublayer, in the order in which they are used.
std::vector<int> LinearsOf(const Sublayer& sublayer);
std::vector<int> ParamsOf(const Sublayer& sublayer);
// The last product of each branch. It alone reads its input, and is only added to what the sublayer hands on, so no
// gradient depends on its values.
std::vector<int> LastProducts(const Sublayer& sublayer);
// Sets the sublayers of linears and params.
void Finish(BlockSpec& block);

// Makes a ModelSpec from config.json. A family is one function and one line in registry.cc.
using Family = absl::StatusOr<ModelSpec> (*)(const Json& config);

// Finds the family by config.json's model_type. UNIMPLEMENTED names it and lists what is supported.
absl::StatusOr<ModelSpec> ReadModelSpec(const Json& config);

}  // namespace autoscheme
