#include "model/dense_decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "nn/attention.h"
#include "nn/ops.h"

namespace autoscheme {
namespace {

constexpr char kWhat[] = "config.json";
constexpr char kFullAttention[] = "full_attention", kSlidingAttention[] = "sliding_attention";
// Caps on what a config may ask for, far above any published model: counts size containers before tensors are checked.
constexpr int64_t kMaxBlocks = 10'000;
constexpr int64_t kMaxWidth = int64_t{1} << 24;

// Order of BlockSpec::linears.
enum LinearIndex { kQ, kK, kV, kO, kGate, kUp, kDown };
enum SegmentIndex { kAttention, kMlp, kSegments };

class DenseDecoder : public Architecture {
 public:
  explicit DenseDecoder(DenseDecoderConfig config) : config_(std::move(config)) {
    spec_.model_type = config_.model_type;
    spec_.hidden_size = config_.hidden;
    spec_.vocab_size = config_.vocab;
    spec_.max_positions = config_.max_positions;
    spec_.tied_head = config_.tied_head;
    spec_.tied_head_given = config_.tied_head_given;
    spec_.embedding = "model.embed_tokens.weight";
    spec_.head = {"lm_head", config_.vocab, config_.hidden, false, 0, false, "output"};
    spec_.others = {{"model.norm.weight", {config_.hidden}}};
    for (int64_t i = 0; i < config_.blocks; ++i) spec_.blocks.push_back(DescribeBlock(i));
    spec_.warnings = config_.warnings;
  }

  const ModelSpec& spec() const override { return spec_; }

  at::Tensor PositionTables(int64_t seqlen) const override {
    return RopeTables(config_.rope, config_.head_dim, seqlen);
  }

  int segments() const override { return kSegments; }

  at::Tensor Segment(int block, int segment, const at::Tensor& x, BlockOps& ops) const override {
    if (segment == kAttention) {
      const NormedBranches in = RmsNormBranches(x, ops.Param("input_layernorm.weight"), config_.rms_norm_eps, 3);
      return Residual(in.x, Attention(block, in.normed, ops));
    }
    const NormedBranches in = RmsNormBranches(x, ops.Param("post_attention_layernorm.weight"), config_.rms_norm_eps, 2);
    const at::Tensor gate = ops.Linear(kGate, in.normed[0]);
    return Residual(in.x, ops.Linear(kDown, SwiGlu(gate, ops.Linear(kUp, in.normed[1]))));
  }

  at::Tensor FinalNorm(const at::Tensor& x, BlockOps& ops) const override {
    return RmsNorm(x, ops.Param("model.norm.weight"), config_.rms_norm_eps);
  }

  Activations ActivationsPerToken(int segment, bool quantized_inputs) const override {
    const int64_t q = config_.heads * config_.head_dim, kv = config_.kv_heads * config_.head_dim;
    const int64_t hidden = config_.hidden, inner = config_.intermediate;
    const int64_t copies = quantized_inputs ? 2 : 1;
    if (segment == kAttention) {
      // Kept: the input; q, k and v; attention's output. In a graph the normed input too. Then the segment's output and its
      // gradient; the gradients of q, k, v and attention's output, or of the normed input from each of the three.
      const int64_t normed_heads = config_.qk_norm ? q + kv : 0, kept = hidden + 2 * q + 2 * kv + normed_heads;
      return {kept, kept + copies * hidden + (copies - 1) * q, 2 * hidden + std::max(2 * q + 2 * kv, 3 * hidden)};
    }
    // Kept: the input; gate and up. In a graph the normed input and the product of gate and up too. Then the segment's output
    // and its gradient, and two gradients of the inner width beyond what is freed before them.
    const int64_t kept = hidden + 2 * inner;
    return {kept, kept + copies * (hidden + inner), 2 * hidden + 2 * inner};
  }

  Scratch ScratchBytes(int segment, int64_t seqlen) const override {
    if (segment != kAttention) return {};
    Scratch most;
    for (const int64_t window : {*std::min_element(config_.window.begin(), config_.window.end()),
                                 *std::max_element(config_.window.begin(), config_.window.end())}) {
      const AttentionShape shape{config_.heads, config_.kv_heads, config_.head_dim, window};
      most.shared = std::max(most.shared, AttentionMaskBytes(shape, seqlen));
      most.forward = std::max(most.forward, AttentionForwardBytes(shape, seqlen));
      most.forward_outside = std::max(most.forward_outside, AttentionKernelBytes(shape, seqlen));
      most.backward = std::max(most.backward, AttentionBackwardBytes(shape, seqlen));
    }
    return most;
  }

 private:
  BlockSpec DescribeBlock(int64_t i) const {
    const DenseDecoderConfig& c = config_;
    const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    BlockSpec block;
    block.name = absl::StrCat("model.layers.", i);
    block.linears = {{"self_attn.q_proj", q, c.hidden, c.qkv_bias, kAttention, false, "attn_q"},
                     {"self_attn.k_proj", kv, c.hidden, c.qkv_bias, kAttention, false, "attn_k"},
                     {"self_attn.v_proj", kv, c.hidden, c.qkv_bias, kAttention, false, "attn_v"},
                     {"self_attn.o_proj", c.hidden, q, c.o_bias, kAttention, true, "attn_output"},
                     {"mlp.gate_proj", c.intermediate, c.hidden, c.mlp_bias, kMlp, false, "ffn_gate"},
                     {"mlp.up_proj", c.intermediate, c.hidden, c.mlp_bias, kMlp, false, "ffn_up"},
                     {"mlp.down_proj", c.hidden, c.intermediate, c.mlp_bias, kMlp, true, "ffn_down"}};
    block.params = {{"input_layernorm.weight", {c.hidden}, kAttention}, {"post_attention_layernorm.weight", {c.hidden}, kMlp}};
    if (c.qk_norm) {
      block.params.push_back({"self_attn.q_norm.weight", {c.head_dim}, kAttention});
      block.params.push_back({"self_attn.k_norm.weight", {c.head_dim}, kAttention});
    }
    return block;
  }

  at::Tensor Attention(int index, const std::vector<at::Tensor>& x, BlockOps& ops) const {
    at::Tensor q = ops.Linear(kQ, x[0]), k = ops.Linear(kK, x[1]), v = ops.Linear(kV, x[2]);
    if (config_.qk_norm) {
      q = NormHeads(q, ops.Param("self_attn.q_norm.weight"));
      k = NormHeads(k, ops.Param("self_attn.k_norm.weight"));
    }
    return ops.Linear(kO, CausalAttention(q, k, v, ops.position_tables(), AttentionOf(index)));
  }
  // Every head on its own.
  at::Tensor NormHeads(const at::Tensor& x, const at::Tensor& weight) const {
    return RmsNorm(x.view({x.size(0), x.size(1), -1, config_.head_dim}), weight, config_.rms_norm_eps).view(x.sizes());
  }
  AttentionShape AttentionOf(int block) const {
    return {config_.heads, config_.kv_heads, config_.head_dim, config_.window[block]};
  }

  DenseDecoderConfig config_;
  ModelSpec spec_;
};

absl::StatusOr<int64_t> Positive(const Json& config, const char* key, int64_t max) {
  AUTOSCHEME_ASSIGN_OR_RETURN(int64_t value, JsonInt(config, key, kWhat));
  if (value < 1 || value > max) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: ", key, " is ", value, ", must be between 1 and ", max));
  }
  return value;
}

absl::StatusOr<int64_t> PositiveOr(const Json& config, const char* key, int64_t max, int64_t fallback) {
  if (JsonFind(config, key) == nullptr) return fallback;
  return Positive(config, key, max);
}

// Keys of other families that would change the numbers. These families ignore them, here as in transformers; a model
// that was made with them is another one.
std::vector<std::string> ForeignKeys(const Json& config) {
  constexpr const char* kOffAtZero[] = {"attention_multiplier",
                                        "attn_logit_softcapping",
                                        "clip_qkv",
                                        "final_logit_softcapping",
                                        "no_rope_layer_interval",
                                        "no_rope_layers",
                                        "qk_layernorm",
                                        "query_pre_attn_scalar",
                                        "rope_traditional",
                                        "use_qk_norm"};
  constexpr const char* kOffAtOne[] = {"embedding_multiplier", "logit_scale", "logits_scaling", "residual_multiplier",
                                       "rotary_pct",           "scale_depth", "scale_emb"};
  std::vector<std::string> found;
  const auto look = [&](const char* key, double off) {
    const JsonValue* value = JsonFind(config, key);
    if (value == nullptr || value->IsFalse() || (value->IsNumber() && value->GetDouble() == off)) return;
    found.push_back(key);
  };
  for (const char* key : kOffAtZero) look(key, 0);
  for (const char* key : kOffAtOne) look(key, 1);
  return found;
}

}  // namespace

absl::StatusOr<DenseDecoderConfig> ReadDenseDecoderConfig(const Json& config, const std::string& model_type,
                                                          int64_t default_head_dim) {
  DenseDecoderConfig c;
  c.model_type = model_type;
  AUTOSCHEME_ASSIGN_OR_RETURN(c.hidden, Positive(config, "hidden_size", kMaxWidth));
  AUTOSCHEME_ASSIGN_OR_RETURN(c.intermediate, Positive(config, "intermediate_size", kMaxWidth));
  AUTOSCHEME_ASSIGN_OR_RETURN(c.blocks, Positive(config, "num_hidden_layers", kMaxBlocks));
  AUTOSCHEME_ASSIGN_OR_RETURN(c.vocab, Positive(config, "vocab_size", kMaxWidth));
  AUTOSCHEME_ASSIGN_OR_RETURN(c.heads, Positive(config, "num_attention_heads", kMaxWidth));
  AUTOSCHEME_ASSIGN_OR_RETURN(c.kv_heads, PositiveOr(config, "num_key_value_heads", kMaxWidth, c.heads));
  if (c.heads % c.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: num_attention_heads (", c.heads,
                                                   ") is not a multiple of num_key_value_heads (", c.kv_heads, ")"));
  }
  if (JsonFind(config, "head_dim") != nullptr) {
    AUTOSCHEME_ASSIGN_OR_RETURN(c.head_dim, Positive(config, "head_dim", kMaxWidth));
  } else if (default_head_dim > 0) {
    c.head_dim = default_head_dim;
  } else if (c.hidden % c.heads == 0) {
    c.head_dim = c.hidden / c.heads;
  } else {
    return absl::InvalidArgumentError(absl::StrCat("config.json: hidden_size (", c.hidden,
                                                   ") is not a multiple of num_attention_heads (", c.heads,
                                                   ") and head_dim is not given"));
  }
  if (c.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: head_dim is ", c.head_dim, ", rotary embedding needs an even one"));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(c.max_positions, PositiveOr(config, "max_position_embeddings", int64_t{1} << 40, 0));
  AUTOSCHEME_ASSIGN_OR_RETURN(c.rms_norm_eps, JsonDoubleOr(config, "rms_norm_eps", 1e-6, kWhat));
  if (!(c.rms_norm_eps > 0)) return absl::InvalidArgumentError("config.json: rms_norm_eps must be positive");
  AUTOSCHEME_ASSIGN_OR_RETURN(std::string activation, JsonStringOr(config, "hidden_act", "silu", kWhat));
  if (activation != "silu" && activation != "swish") {
    return absl::UnimplementedError(
        absl::StrCat("config.json: hidden_act ", Quoted(activation), " is not supported for ", model_type, "; known: silu"));
  }
  c.tied_head_given = JsonFind(config, "tie_word_embeddings") != nullptr;
  AUTOSCHEME_ASSIGN_OR_RETURN(c.tied_head, JsonBoolOr(config, "tie_word_embeddings", false, kWhat));
  c.window.assign(c.blocks, 0);
  if (const std::vector<std::string> foreign = ForeignKeys(config); !foreign.empty()) {
    c.warnings.push_back(
        absl::StrCat("config.json: a ", model_type, " model has no ", FirstNames(foreign),
                     ", ignored here as in transformers; if it was made with that, these are not its numbers"));
  }
  return c;
}

absl::StatusOr<int64_t> ReadSlidingWindow(const Json& config) {
  const int64_t unmentioned = config.HasMember("sliding_window") ? 0 : 4096;
  AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t window, JsonIntOr(config, "sliding_window", unmentioned, kWhat));
  if (window >= 0) return window;
  return absl::InvalidArgumentError(
      absl::StrCat("config.json: sliding_window is ", window, ", must be positive or null"));
}

absl::StatusOr<bool> ReadLayerTypes(const Json& config, int64_t sliding_window, DenseDecoderConfig& decoder) {
  const JsonValue* types = JsonFind(config, "layer_types");
  if (types == nullptr) return false;
  if (!types->IsArray() || static_cast<int64_t>(types->Size()) != decoder.blocks) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: layer_types must be a list of num_hidden_layers (", decoder.blocks, ") names"));
  }
  for (int64_t i = 0; i < decoder.blocks; ++i) {
    const JsonValue& type = (*types)[static_cast<rapidjson::SizeType>(i)];
    const absl::string_view name = type.IsString() ? absl::string_view(type.GetString(), type.GetStringLength()) : "";
    if (name != kFullAttention && name != kSlidingAttention) {
      return absl::UnimplementedError(absl::StrCat("config.json: layer_types[", i, "] is ", Quoted(name),
                                                   "; known: ", kFullAttention, ", ", kSlidingAttention));
    }
    if (name == kSlidingAttention && sliding_window < 1) {
      return absl::InvalidArgumentError(absl::StrCat("config.json: layer_types[", i, "] is ", kSlidingAttention,
                                                     ", but sliding_window is null, or use_sliding_window false"));
    }
    decoder.window[i] = name == kSlidingAttention ? sliding_window : 0;
  }
  return true;
}

absl::Status ReadQwenWindows(const Json& config, DenseDecoderConfig& decoder) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const bool used, JsonBoolOr(config, "use_sliding_window", false, kWhat));
  AUTOSCHEME_ASSIGN_OR_RETURN(int64_t window, ReadSlidingWindow(config));
  if (!used) window = 0;
  AUTOSCHEME_ASSIGN_OR_RETURN(const bool by_type, ReadLayerTypes(config, window, decoder));
  if (by_type || window == 0) return absl::OkStatus();
  AUTOSCHEME_ASSIGN_OR_RETURN(int64_t first, JsonIntOr(config, "max_window_layers", 28, kWhat));
  for (int64_t i = 0; i < decoder.blocks; ++i) decoder.window[i] = i >= first ? window : 0;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Architecture>> MakeDenseDecoder(const Json& config, DenseDecoderConfig decoder) {
  std::vector<std::string> attention_types;
  const auto full = [](int64_t window) { return window == 0; };
  if (std::any_of(decoder.window.begin(), decoder.window.end(), full)) attention_types.push_back(kFullAttention);
  if (!std::all_of(decoder.window.begin(), decoder.window.end(), full)) attention_types.push_back(kSlidingAttention);
  AUTOSCHEME_ASSIGN_OR_RETURN(decoder.rope, ReadRopeConfig(config, attention_types, &decoder.warnings));
  return std::make_unique<DenseDecoder>(std::move(decoder));
}

}  // namespace autoscheme
