#include "model/decoder_config.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

constexpr char kWhat[] = "config.json";
constexpr char kFullAttention[] = "full_attention", kSlidingAttention[] = "sliding_attention";
// Caps on what a config may ask for, far above any published model: counts size containers before tensors are checked.
constexpr int64_t kMaxBlocks = 10'000;
constexpr int64_t kMaxWidth = int64_t{1} << 24;

BlockSpec Describe(const DecoderConfig& c, int64_t i) {
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  BlockSpec block;
  block.name = absl::StrCat("model.layers.", i);
  block.linears = {{"self_attn.q_proj", q, c.hidden, c.qkv_bias, "attn_q"},
                   {"self_attn.k_proj", kv, c.hidden, c.qkv_bias, "attn_k"},
                   {"self_attn.v_proj", kv, c.hidden, c.qkv_bias, "attn_v"},
                   {"self_attn.o_proj", c.hidden, q, c.o_bias, "attn_output"},
                   {"mlp.gate_proj", c.intermediate, c.hidden, c.mlp_bias, "ffn_gate"},
                   {"mlp.up_proj", c.intermediate, c.hidden, c.mlp_bias, "ffn_up"},
                   {"mlp.down_proj", c.hidden, c.intermediate, c.mlp_bias, "ffn_down"}};
  const auto norm = [&](const char* name, int64_t width) {
    block.params.push_back({name, {width}});
    return Norm{static_cast<int>(block.params.size()) - 1, c.rms_norm_eps};
  };
  Attention attention{0, 1, 2, 3, {}, {}, c.heads, c.kv_heads, c.head_dim, c.window[i]};
  const Norm before_attention = norm("input_layernorm.weight", c.hidden);
  const Norm before_mlp = norm("post_attention_layernorm.weight", c.hidden);
  if (c.qk_norm) {
    attention.q_norm = norm("self_attn.q_norm.weight", c.head_dim);
    attention.k_norm = norm("self_attn.k_norm.weight", c.head_dim);
  }
  block.sublayers = {{{{before_attention, attention}}}, {{{before_mlp, GatedMlp{4, 5, 6, c.intermediate}}}}};
  Finish(block);
  return block;
}

absl::StatusOr<int64_t> Positive(const Json& config, const char* key, int64_t max) {
  AUTOSCHEME_ASSIGN_OR_RETURN(int64_t value, JsonInt(config, key, kWhat));
  if (value < 1 || value > max) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", key, " is ", value, ", must be between 1 and ", max));
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

absl::StatusOr<DecoderConfig> ReadDecoderConfig(const Json& config, const std::string& model_type,
                                                int64_t default_head_dim) {
  DecoderConfig c;
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
    return absl::UnimplementedError(absl::StrCat("config.json: hidden_act ", Quoted(activation),
                                                 " is not supported for ", model_type, "; known: silu"));
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

absl::StatusOr<bool> ReadLayerTypes(const Json& config, int64_t sliding_window, DecoderConfig& decoder) {
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

absl::Status ReadQwenWindows(const Json& config, DecoderConfig& decoder) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const bool used, JsonBoolOr(config, "use_sliding_window", false, kWhat));
  AUTOSCHEME_ASSIGN_OR_RETURN(int64_t window, ReadSlidingWindow(config));
  if (!used) window = 0;
  AUTOSCHEME_ASSIGN_OR_RETURN(const bool by_type, ReadLayerTypes(config, window, decoder));
  if (by_type || window == 0) return absl::OkStatus();
  AUTOSCHEME_ASSIGN_OR_RETURN(int64_t first, JsonIntOr(config, "max_window_layers", 28, kWhat));
  for (int64_t i = 0; i < decoder.blocks; ++i) decoder.window[i] = i >= first ? window : 0;
  return absl::OkStatus();
}

absl::StatusOr<ModelSpec> MakeDecoder(const Json& config, DecoderConfig decoder) {
  std::vector<std::string> attention_types;
  const auto full = [](int64_t window) { return window == 0; };
  if (std::any_of(decoder.window.begin(), decoder.window.end(), full)) attention_types.push_back(kFullAttention);
  if (!std::all_of(decoder.window.begin(), decoder.window.end(), full)) attention_types.push_back(kSlidingAttention);
  ModelSpec spec;
  AUTOSCHEME_ASSIGN_OR_RETURN(spec.rope, ReadRopeConfig(config, attention_types, &decoder.warnings));
  spec.model_type = decoder.model_type;
  spec.hidden_size = decoder.hidden;
  spec.vocab_size = decoder.vocab;
  spec.max_positions = decoder.max_positions;
  spec.tied_head = decoder.tied_head;
  spec.tied_head_given = decoder.tied_head_given;
  spec.embedding = "model.embed_tokens.weight";
  spec.head = {"lm_head", decoder.vocab, decoder.hidden, false, "output"};
  spec.others = {{"model.norm.weight", {decoder.hidden}}};
  spec.final_norm = {0, decoder.rms_norm_eps};
  spec.rotary_dims = decoder.head_dim;
  for (int64_t i = 0; i < decoder.blocks; ++i) spec.blocks.push_back(Describe(decoder, i));
  spec.warnings = std::move(decoder.warnings);
  return spec;
}

}  // namespace autoscheme
