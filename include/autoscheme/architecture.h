// Teaches the library a model: what a decoder is, as plain data, a builder that makes it from config.json, and aliases.
// examples/architecture.cc is a whole program. Everything here belongs to its caller; one thread at a time. since 0.1
#ifndef AUTOSCHEME_ARCHITECTURE_H_
#define AUTOSCHEME_ARCHITECTURE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autoscheme {

struct Json;  // config.json, an object; a host reads it by the accessors of DecoderBuilder

// ---- the description ----

// A linear layer of a block, named below the block: "self_attn.q_proj". Its tensors are NAME.weight and NAME.bias.
struct LinearSpec {
  std::string name;
  int64_t out_features = 0;
  int64_t in_features = 0;
  bool bias = false;
  bool transposed = false;  // stored as [in_features, out_features], GPT-2's Conv1D
  std::string gguf_name;    // llama.cpp's, below "blk.0." (the head's: whole): "attn_q"; empty if it has none
  int sublayer = 0;         // the one that reads it; set by the library
};

// A tensor that is not a quantizable weight (a norm): "input_layernorm.weight".
struct ParamSpec {
  std::string name;
  std::vector<int64_t> shape;
  int sublayer = 0;  // set by the library
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
    return kind == other.kind && weight == other.weight && bias == other.bias && eps == other.eps &&
           offset == other.offset && wide == other.wide && plain == other.plain && parts == other.parts;
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

// What config.json says of the frequencies of a rotary embedding.
struct RopeConfig {
  double theta = 10000.0;
  std::string type = "default";  // "default", "linear", "llama3", "dynamic", "yarn" or "longrope"
  double factor = 1, low_freq_factor = 1, high_freq_factor = 1;
  double original_max_positions = 0;     // all but default: those the model was first trained for
  double attention_scale = 1;            // yarn, longrope: of cos and sin
  double beta_fast = 32, beta_slow = 1;  // yarn: rotations over those positions between which frequencies are blended
  bool truncate = true;                  // yarn: to whole frequencies
  double query_growth = 0;               // see Rotary
  std::vector<double> short_factors, long_factors;  // longrope: by frequency, for runs up to those positions and beyond

  bool operator==(const RopeConfig& other) const;
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
  std::string family;  // the built-in model_type that it was described by; set by Open, empty for a host's own
  int64_t hidden_size = 0, vocab_size = 0, max_positions = 0;
  bool tied_head = false;  // what the config says, or means in its family by saying nothing
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

// ---- making one from config.json ----

// How the norms of a family are made; a place makes a Norm of it by naming its tensors.
struct NormStyle {
  Norm::Kind kind = Norm::kRms;
  double eps = 1e-6;
  bool weight = true, bias = false;
  double offset = 0;
  bool wide = false, plain = false;
};

// Names of linears below the block. An empty `k` means that `q` gives q, k and v together. `order`: that of the
// modules, one letter for each linear, "o" for `out`; those that are not there are passed over.
struct AttentionNames {
  std::string q = "self_attn.q_proj", k = "self_attn.k_proj", v = "self_attn.v_proj", out = "self_attn.o_proj";
  bool bias = false, out_bias = false;
  const char* order = "qkvo";
};
// An empty `gate` means that there is none, or with `fused` that `up` gives both.
struct MlpNames {
  std::string gate = "mlp.gate_proj", up = "mlp.up_proj", down = "mlp.down_proj";
  bool bias = false, fused = false;
};

// What a family means where the config says nothing.
struct RopeDefaults {
  double theta = 10000.0;
  double part = 1;              // share of a head's numbers that turns
  bool may_be_partial = false;  // whether another part can be asked for
  const char* part_key = "partial_rotary_factor";
  // Where set, this key gives the theta and nothing is scaled, unless the object that decides is nested by attention
  // type.
  const char* theta_key = nullptr;
  int64_t max_positions = 0;  // max_position_embeddings
  bool queries_grow = false;  // llama_4_scaling_beta must be there
};

class DecoderBuilder;

// One block while it is described. Linears must be added in the order in which transformers' modules have them, which
// decides ties in selection. What a Make function returns is for this block alone, and is in it once it is added.
class BlockBuilder {
 public:
  BlockBuilder(const DecoderBuilder& decoder, BlockSpec& block) : decoder_(decoder), block_(block) {}

  int Linear(const std::string& name, int64_t out, int64_t in, bool bias, const std::string& gguf_name);
  // Tensors NAME.weight and NAME.bias of `shape`, as far as the style has them.
  Norm MakeNorm(const NormStyle& style, const std::string& name, std::vector<int64_t> shape);
  Norm MakeNorm(const NormStyle& style, const std::string& name);  // as wide as hidden states
  // A norm of every head by a weight of its own, [head_dim]: NAME.0.weight, NAME.1.weight, ... No bias.
  Norm MakeNormOfHeads(NormStyle style, const std::string& name, int64_t heads);
  // Attention with the decoder's heads; norms, windows, rotation and scales are the caller's to set.
  Attention MakeAttention(const AttentionNames& names = {});
  Mlp MakeMlp(Activation activation, const MlpNames& names = {});
  // One sublayer of one branch, or of several that read one input.
  void Add(const Norm& before, std::variant<Attention, Mlp> body, const Norm& after = {});
  void AddParallel(std::vector<Branch> branches, bool residual_last = false);
  BlockSpec& block() { return block_; }

 private:
  const DecoderBuilder& decoder_;
  BlockSpec& block_;
};

// Reads keys of config.json, which is borrowed; absent and null are the same. The first error is kept and Finish
// returns it, so that a family reads straight on; what is read after it is harmless but means nothing.
class DecoderBuilder {
 public:
  DecoderBuilder(const Json& config, std::string model_type);

  bool Has(const char* key) const;
  // At least 1; without a fallback it must be there.
  int64_t Count(const char* key);
  int64_t Count(const char* key, int64_t fallback);
  int64_t Int(const char* key, int64_t fallback);
  double Double(const char* key, double fallback);
  double Positive(const char* key, double fallback);
  double NotNegative(const char* key, double fallback);
  // The same where null, unlike a missing key, means 0.
  double NotNegativeOrNull(const char* key, double fallback);
  bool Bool(const char* key, bool fallback);
  std::string Text(const char* key, const std::string& fallback);
  // A list of num_hidden_layers numbers, as whether they are not 0; empty if there is none.
  std::vector<bool> Flags(const char* key);
  // hidden_act and the like, by transformers' names.
  Activation ActivationOf(const char* key, const std::string& fallback);
  void Warn(std::string sentence) { spec.warnings.push_back(std::move(sentence)); }
  void Fail(absl::Status status);
  // UNIMPLEMENTED, "config.json: KEY is ...", where a key that would change the numbers is set to another value.
  void RefuseUnless(bool as_supported, const char* key, const std::string& why);

  // hidden_size, num_hidden_layers, ..., as most families spell them, and the names of embedding, head and ends.
  // Without a head_dim key it is `head_dim`, or hidden / heads where that is 0.
  void ReadCommonKeys(int64_t head_dim = 0);
  // The same as GPT-2 and GPT-J spell them.
  void ReadGptKeys();
  void SetHeadDim(int64_t given);  // `given`, or hidden / heads where that is 0
  // The same of hidden, blocks, heads, .. that the family has set itself, and of the names of the ends.
  void SetEnds(const std::string& embedding, const std::string& head);
  void ReadTie(bool fallback);

  NormStyle Rms(const char* key = "rms_norm_eps", double fallback = 1e-6);
  NormStyle Layer(const char* key, double fallback, bool bias);
  // A tensor outside the blocks: index into ModelSpec::others.
  int Other(const std::string& name, std::vector<int64_t> shape);
  void FinalNorm(const NormStyle& style, const std::string& name);

  // Rotation of heads in attention of that type ("full_attention", "sliding_attention"). One set of options serves each
  // type; the number of positions is set here.
  struct RotaryOptions : RopeDefaults {
    bool interleaved = false, wide = false;
  };
  Rotary MakeRotary(const RotaryOptions& options, const std::string& attention_type = "full_attention");

  // sliding_window; 0 where the config says null. A config that does not mention it means `unmentioned`.
  int64_t SlidingWindow(int64_t unmentioned);
  // By layer_types: blocks of sliding_attention get `window`, which must then be there; empty if there is no such key.
  std::vector<int64_t> WindowsByType(int64_t window);
  // By layer_types; without it every `pattern`-th block is global and the others have the window, which must then be
  // there (0: all are global).
  std::vector<int64_t> WindowsByPattern(int64_t window, int64_t pattern);

  // Names the blocks PREFIX.0, PREFIX.1, ...
  void EachBlock(const std::string& prefix, const std::function<void(BlockBuilder&, int64_t index)>& describe);
  absl::StatusOr<ModelSpec> Finish();

  const Json& config;
  ModelSpec spec;
  int64_t hidden = 1, width = 1, blocks = 1, heads = 1, kv_heads = 1, head_dim = 2;

 private:
  template <typename Value>
  Value Or(absl::StatusOr<Value> read, Value harmless);
  // What a family without windows does not read.
  void WarnOfWindows();
  absl::Status status_;
  bool reads_window_ = false, reads_layer_types_ = false;
  std::vector<std::pair<std::string, Rotary>> rotaries_;  // by attention type
};

// ---- teaching it ----

// A model that a host describes. Context::architectures holds those that Open knows besides the built-in ones.
struct Architecture {
  // As config.json, or the text_config of a multimodal model, spells it. It goes before a built-in one of that name.
  std::string model_type;
  // Called by Open on its thread, once for each model of that type, with config.json or text_config; it must say the
  // same of the same config. What it returns is checked part by part (INVALID_ARGUMENT) before it is used; its failures
  // are returned by Open as they are. May be called by several threads at a time if those open models.
  std::function<absl::StatusOr<ModelSpec>(const Json& config)> describe;
};

// Architectures that are others under another name. `json` is one object or a list of them:
//
//     {"model_type": "mymodel", "as": "llama", "rename": {"their_key": "our_key"}, "set": {"key": value}}
//
// A config.json of model_type mymodel is then read as one of a llama: `rename`, one after the other, gives keys that
// it has another name; `set` adds or replaces keys; null is as good as no key, but for what has a meaning
// without a value, such as sliding_window, for which it means none. Both are about keys of config.json itself, not of
// objects in it, and not about names of tensors. `as` is a built-in type, a multimodal one too, one of `known`,
// or one that stands before it in the list. MetaSkeleton::model_type is the alias's. Errors: DATA_LOSS, with line and
// column, for what is no JSON; INVALID_ARGUMENT for an unknown or missing member, an unknown `as` and a model_type that
// another has, in the list or in `known`. Opening a model gives INVALID_ARGUMENT where config.json has both the key
// that is renamed and what it is to become.
absl::StatusOr<std::vector<Architecture>> ReadAliases(absl::string_view json,
                                                      const std::vector<Architecture>& known = {});

}  // namespace autoscheme

#endif  // AUTOSCHEME_ARCHITECTURE_H_
