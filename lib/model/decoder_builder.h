// DecoderBuilder: what the files of the families share when they read config.json and describe a decoder.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "model/decoder_spec.h"

namespace autoscheme {

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

class DecoderBuilder;

// One block while it is described. Linears must be added in the reference's module order.
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

// Reads keys of config.json; absent and null are the same. The first error is kept and Finish returns it, so that a
// family reads straight on; what is read after it is harmless but means nothing.
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
  // Warns of keys of other families that would change the numbers, but for those in `known`.
  void WarnOfForeignKeys(const std::vector<const char*>& known = {});
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
  // By layer_types, or by use_sliding_window and max_window_layers.
  std::vector<int64_t> QwenWindows();

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

}  // namespace autoscheme
