// What CheckSpec refuses, and by which words.
#include <catch2/catch.hpp>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "model/decoder_spec.h"

namespace autoscheme {
namespace {

// Two blocks; 4 heads of 8 numbers, 2 key heads, hidden size 32, width 48, a norm for every head.
ModelSpec Described() {
  const Json config = ParseJson(R"({"model_type": "qwen3", "hidden_size": 32, "intermediate_size": 48,
      "num_hidden_layers": 2, "vocab_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
      "max_position_embeddings": 64})",
                                "config.json")
                          .value();
  return ReadModelSpec(config).value();
}

// q, k and v from one linear, gate and up from another, learned positions.
ModelSpec Fused() {
  ModelSpec spec = Described();
  const Json none;
  const DecoderBuilder decoder(none, "");
  spec.input.positions = static_cast<int>(spec.others.size());
  spec.others.push_back({"positions.weight", {64, 32}});
  for (BlockSpec& block : spec.blocks) {
    Attention& a = std::get<Attention>(block.sublayers[0].branches[0].body);
    Mlp& m = std::get<Mlp>(block.sublayers[1].branches[0].body);
    block.linears.clear();
    BlockBuilder builder(decoder, block);
    builder.Linear("qkv", 64, 32, false, ""), builder.Linear("out", 32, 32, false, "");
    builder.Linear("up", 96, 32, false, ""), builder.Linear("down", 32, 48, false, "");
    a.inputs = Attention::kGrouped, a.q = 0, a.k = a.v = -1, a.out = 1;
    m.fused = true, m.gate = -1, m.up = 2, m.down = 3;
  }
  return spec;
}

struct Parts {
  ModelSpec& spec;
  BlockSpec& block = spec.blocks[1];
  Sublayer &first = block.sublayers[0], &second = block.sublayers[1];
  Attention& attention = std::get<Attention>(first.branches[0].body);
  Mlp& mlp = std::get<Mlp>(second.branches[0].body);
  Norm& before = first.branches[0].before;
};

struct Case {
  std::function<void(const Parts&)> change;
  std::string words;  // behind "architecture "qwen3": "
};

void CheckRefused(const ModelSpec& described, const std::vector<Case>& cases) {
  REQUIRE(CheckSpec(described) == absl::OkStatus());
  for (const Case& c : cases) {
    ModelSpec spec = described;
    c.change({spec});
    const absl::Status status = CheckSpec(spec);
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(status.message() == "architecture \"qwen3\": " + c.words);
  }
}

const double kNan = std::numeric_limits<double>::quiet_NaN();
const std::string kBlock = "block \"model.layers.1\": ";

TEST_CASE("CheckSpec: linears that do not fit") {
  const std::string q = kBlock + "linear \"self_attn.q_proj\": ", o = kBlock + "linear \"self_attn.o_proj\": ";
  const std::string down = kBlock + "linear \"mlp.down_proj\": ";
  CheckRefused(
      Described(),
      {
          {[](const Parts& p) { p.attention.q = 7; }, kBlock + "attention.q is linear 7, expected 0 to 6"},
          {[](const Parts& p) { p.attention.out = -1; }, kBlock + "attention.out is linear -1, expected 0 to 6"},
          {[](const Parts& p) { p.block.linears[0].out_features = 48; }, q + "out_features is 48, expected 32 (heads x "
                                                                             "head_dim)"},
          {[](const Parts& p) { p.block.linears[0].in_features = 31; }, q + "in_features is 31, expected 32 "
                                                                            "(hidden_size)"},
          {[](const Parts& p) { p.block.linears[2].out_features = 32; },
           kBlock + "linear \"self_attn.v_proj\": out_features is 32, expected 16 (kv_heads x head_dim)"},
          {[](const Parts& p) { p.block.linears[3].in_features = 16; }, o + "in_features is 16, expected 32 (heads x "
                                                                            "head_dim)"},
          {[](const Parts& p) { p.mlp.width = 40; }, kBlock + "linear \"mlp.gate_proj\": out_features is 48, expected "
                                                              "40 (mlp.width)"},
          {[](const Parts& p) { p.block.linears[6].out_features = 8; }, down + "out_features is 8, expected 32 "
                                                                               "(hidden_size)"},
          {[](const Parts& p) { p.mlp.gate = p.mlp.up; }, kBlock + "linear \"mlp.gate_proj\" is read 0 times, expected "
                                                                   "once"},
          {[](const Parts& p) { p.mlp.fused = true; }, kBlock + "mlp.gate is linear 4, expected none: up is fused"},
          {[](const Parts& p) { p.attention.v = p.attention.k; }, kBlock + "linear \"self_attn.k_proj\" is read 2 "
                                                                           "times, expected once"},
          {[](const Parts& p) { p.block.linears[1].name = "self_attn.q_proj"; },
           kBlock + "two tensors are named \"model.layers.1.self_attn.q_proj.weight\""},
          {[](const Parts& p) { p.block.linears[1].name = ""; }, kBlock + "a tensor or linear has no name"},
          {[](const Parts& p) { p.spec.blocks[0].name = "model.layers.1"; },
           kBlock + "two tensors are named \"model.layers.1.self_attn.q_proj.weight\""},
      });
}

TEST_CASE("CheckSpec: linears that give several parts") {
  const std::string qkv = kBlock + "linear \"qkv\": ";
  CheckRefused(
      Fused(),
      {
          {[](const Parts& p) { p.block.linears[0].out_features = 32; },
           qkv + "out_features is 32, expected 64 ((heads + 2 x kv_heads) x head_dim)"},
          {[](const Parts& p) { p.attention.k = 1; },
           kBlock + "attention.k is linear 1, expected none: q gives q, k and v"},
          {[](const Parts& p) { p.block.linears[2].out_features = 48; },
           kBlock + "linear \"up\": out_features is 48, expected 96 (2 x mlp.width)"},
          {[](const Parts& p) {
             p.spec.others[1].shape = {63, 32};
           },
           "input.positions, tensor \"positions.weight\": shape is [63, 32], expected [64, 32]"},
          {[](const Parts& p) { p.spec.max_positions = 0; }, "max_positions is 0, expected 1 to 1073741824"},
          {[](const Parts& p) { p.spec.input.first_position = -1; }, "input.first_position is -1, expected 0 or more"},
      });
}

TEST_CASE("CheckSpec: attention that cannot be computed") {
  CheckRefused(
      Described(),
      {
          {[](const Parts& p) { p.attention.kv_heads = 3; },
           kBlock + "attention.heads is 4, expected a multiple of kv_heads (3)"},
          {[](const Parts& p) { p.attention.heads = 0; }, kBlock + "attention.heads is 0, expected 1 to 1073741824"},
          {[](const Parts& p) { p.attention.window = -1; }, kBlock + "attention.window is -1, expected 0 or more"},
          {[](const Parts& p) { p.attention.softcap = kNan; }, kBlock + "attention.softcap is nan, expected 0 or more"},
          {[](const Parts& p) { p.attention.rotary.table = 1; }, kBlock + "rotary.table is 1, expected -1 to 0"},
          {[](const Parts& p) { p.attention.rotary.dims = 4; }, kBlock + "rotary.dims is 4, expected 8 (dims of its "
                                                                         "table)"},
          {[](const Parts& p) { p.attention.rotary.query_growth = -1; },
           kBlock + "rotary.query_growth is -1, expected 0 or more"},
          {[](const Parts& p) { p.attention.rotary = {}, p.attention.rotary.query_growth = 0.1; },
           kBlock + "rotary.query_growth is 0.1, expected 0: there is no rotation"},
          {[](const Parts& p) {
             p.spec.tables.push_back({{}, 16}), p.attention.rotary = {1, 16};
           },
           kBlock + "rotary.dims is 16, expected at most head_dim (8)"},
          {[](const Parts& p) { p.spec.tables[0].dims = 7; },
           "rotary table 0: dims is 7, expected an even number, at least 2"},
          {[](const Parts& p) { p.spec.tables[0].rope.type = "round"; }, "rotary table 0: type \"round\" is not known"},
          {[](const Parts& p) { p.spec.tables[0].rope.theta = 0; },
           "rotary table 0: theta is 0, expected a positive number"},
          {[](const Parts& p) { p.spec.tables[0].rope.type = "dynamic"; },
           "rotary table 0: original_max_positions is 0, expected a positive number"},
          {[](const Parts& p) {
             p.spec.tables[0].rope.type = "longrope", p.spec.tables[0].rope.original_max_positions = 8;
           },
           "rotary table 0: number of longrope factors is 0, expected 4 (dims / 2)"},
          {[](const Parts& p) {
             RopeConfig& rope = p.spec.tables[0].rope;
             rope.type = "longrope", rope.original_max_positions = 8;
             rope.short_factors = {1, 1, 1, 1}, rope.long_factors = {1, 1, 0, 1};
           },
           "rotary table 0: longrope factor is 0, expected a positive number"},
          {[](const Parts& p) {
             p.spec.tables[0].rope.type = "llama3", p.spec.tables[0].rope.original_max_positions = 8;
           },
           "rotary table 0: high_freq_factor is 1, expected more than low_freq_factor"},
      });
}

TEST_CASE("CheckSpec: norms that do not fit") {
  const std::string before = kBlock + "sublayer 0, before";
  CheckRefused(
      Described(),
      {
          {[](const Parts& p) { p.before.weight = 9; }, before + " is tensor 9, expected 0 to 3"},
          {[](const Parts& p) { p.before.weight = -1; }, before + ": a norm of kind kRms needs a weight"},
          {[](const Parts& p) { p.before.bias = 0; }, before + ": a norm of kind kRms has no bias"},
          {[](const Parts& p) { p.before.eps = 0; }, before + ": eps is 0, expected a positive number"},
          {[](const Parts& p) { p.before.parts = 2; }, before + ": only norms of heads have parts"},
          {[](const Parts& p) { p.first.after_sum.parts = 2; }, kBlock + "sublayer 0, after_sum: parts need a weight"},
          {[](const Parts& p) {
             p.attention.q_norm = {Norm::kLayer};
             p.attention.q_norm.parts = 4;
           },
           kBlock + "q_norm: parts need a weight"},
          {[](const Parts& p) { p.attention.q_norm.parts = 3; }, kBlock + "q_norm: parts is 3, expected 4 (heads)"},
          {[](const Parts& p) { p.attention.k_norm.parts = 2; },
           kBlock + "k_norm, part 1 is tensor 4, expected 0 to 3"},
          {[](const Parts& p) { p.before.kind = Norm::kNone; }, before + ": it has tensors, but its kind is kNone"},
          {[](const Parts& p) {
             p.before = {Norm::kLayer, -1, 0};
           },
           before + ": a bias or an offset needs a weight"},
          {[](const Parts& p) { p.before = {}; }, kBlock + "tensor \"input_layernorm.weight\" is never read"},
          {[](const Parts& p) { p.block.params[p.before.weight].shape = {31}; },
           before + ", tensor \"input_layernorm.weight\": shape is [31], expected [32]"},
          {[](const Parts& p) { p.second.branches[0].before = p.before; },
           kBlock + "tensor \"input_layernorm.weight\" is read by sublayers 0 and 1, expected one"},
          {[](const Parts& p) {
             p.block.params[p.attention.k_norm.weight].shape = {4, 8};
           },
           kBlock + "k_norm, tensor \"self_attn.k_norm.weight\": shape is [4, 8], expected [8] or [16] or [2, 8]"},
          {[](const Parts& p) {
             p.attention.q_norm.kind = Norm::kLayer, p.block.params[p.attention.q_norm.weight].shape = {4, 8};
           },
           kBlock + "q_norm: a norm of kind kLayer with a weight for each head must be plain"},
      });
}

TEST_CASE("CheckSpec: sublayers, ends and sizes") {
  CheckRefused(
      Described(),
      {
          {[](const Parts& p) { p.spec.hidden_size = 0; }, "hidden_size is 0, expected 1 to 1073741824"},
          {[](const Parts& p) { p.spec.vocab_size = 17; }, "head: out_features is 16, expected 17 (vocab_size)"},
          {[](const Parts& p) { p.spec.blocks.clear(); }, "it has no blocks"},
          {[](const Parts& p) { p.block.sublayers.clear(); }, kBlock + "it needs a name and a sublayer"},
          {[](const Parts& p) { p.first.branches.clear(); }, kBlock + "sublayer 0 has no branch"},
          {[](const Parts& p) { p.second.scale = 0; }, kBlock + "sublayer 1: scale is 0, expected a positive number"},
          {[](const Parts& p) { p.spec.input.width = 16; },
           "input.width is 16, expected 32 (hidden_size: there is no projection)"},
          {[](const Parts& p) { p.spec.input.embedding = ""; }, "a tensor or linear has no name"},
          {[](const Parts& p) { p.spec.input.positions = 5; }, "input.positions is tensor 5, expected 0 to 0"},
          {[](const Parts& p) { p.spec.head.in_features = 16; },
           "head: in_features is 16, expected 32 (hidden_size: there is no projection)"},
          {[](const Parts& p) { p.spec.head.transposed = true; }, "head: its weight must not be stored transposed"},
          {[](const Parts& p) {
             p.spec.head.in_features = 16, p.spec.output.projection = 1, p.spec.others.push_back({"out", {16, 32}});
           },
           "head: in_features is 16, expected 32 (input.width: it may be tied)"},
          {[](const Parts& p) {
             p.spec.others.push_back({"extra", {4}});
           },
           "tensor \"extra\" is never read"},
          {[](const Parts& p) { p.spec.output.multiplier = 0; }, "output.multiplier is 0, expected a positive number"},
      });
}

}  // namespace
}  // namespace autoscheme
