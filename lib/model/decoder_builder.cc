#include "model/decoder_builder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "checkpoint/header_handler.h"
#include "model/rope.h"

namespace autoscheme {
namespace {

constexpr char kWhat[] = "config.json";
constexpr char kFullAttention[] = "full_attention", kSlidingAttention[] = "sliding_attention";
// Caps on what a config may ask for, far above any published model: counts size containers before tensors are checked.
constexpr int64_t kMaxBlocks = 10'000;
constexpr int64_t kMaxCount = int64_t{1} << 24;

struct NamedActivation {
  const char* name;
  Activation activation;
};
constexpr NamedActivation kActivations[] = {
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"gelu", Activation::kGelu},
    {"gelu_new", Activation::kGeluNew},
    {"gelu_fast", Activation::kGeluNew},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"quick_gelu", Activation::kQuickGelu},
    {"relu", Activation::kRelu},
    {"relu2", Activation::kSquaredRelu},
};

}  // namespace

int BlockBuilder::Linear(const std::string& name, int64_t out, int64_t in, bool bias, const std::string& gguf_name) {
  LinearSpec linear;
  linear.name = name, linear.out_features = out, linear.in_features = in;
  linear.bias = bias, linear.gguf_name = gguf_name;
  block_.linears.push_back(std::move(linear));
  return static_cast<int>(block_.linears.size()) - 1;
}

Norm BlockBuilder::MakeNorm(const NormStyle& style, const std::string& name, std::vector<int64_t> shape) {
  const auto add = [&](bool there, const char* suffix) {
    if (!there) return -1;
    block_.params.push_back({absl::StrCat(name, suffix), shape});
    return static_cast<int>(block_.params.size()) - 1;
  };
  const int weight = add(style.weight, ".weight"), bias = add(style.bias, ".bias");
  return {style.kind, weight, bias, style.eps, style.offset, style.wide, style.plain};
}

Norm BlockBuilder::MakeNorm(const NormStyle& style, const std::string& name) {
  return MakeNorm(style, name, {decoder_.hidden});
}

Norm BlockBuilder::MakeNormOfHeads(NormStyle style, const std::string& name, int64_t heads) {
  style.weight = true, style.bias = false;
  Norm norm = MakeNorm(style, absl::StrCat(name, ".0"), {decoder_.head_dim});
  // A block of more is refused by EachBlock.
  for (int64_t head = 1; head < heads && block_.params.size() <= HeaderHandler::kMaxTensors; ++head) {
    MakeNorm(style, absl::StrCat(name, ".", head), {decoder_.head_dim});
  }
  norm.parts = static_cast<int>(heads);
  return norm;
}

Attention BlockBuilder::MakeAttention(const AttentionNames& names) {
  Attention a;
  a.heads = decoder_.heads, a.kv_heads = decoder_.kv_heads, a.head_dim = decoder_.head_dim;
  const int64_t q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim, hidden = decoder_.hidden;
  const bool fused = names.k.empty();
  if (fused) a.inputs = Attention::kConcatenated;
  for (const char* linear = names.order; *linear != '\0'; ++linear) {
    if (*linear == 'q' && fused) a.q = Linear(names.q, q + 2 * kv, hidden, names.bias, "attn_qkv");
    if (*linear == 'q' && !fused) a.q = Linear(names.q, q, hidden, names.bias, "attn_q");
    if (*linear == 'k' && !fused) a.k = Linear(names.k, kv, hidden, names.bias, "attn_k");
    if (*linear == 'v' && !fused) a.v = Linear(names.v, kv, hidden, names.bias, "attn_v");
    if (*linear == 'o') a.out = Linear(names.out, hidden, q, names.out_bias, "attn_output");
  }
  return a;
}

Mlp BlockBuilder::MakeMlp(Activation activation, const MlpNames& names) {
  Mlp m;
  m.activation = activation, m.width = decoder_.width, m.fused = names.fused;
  const int64_t hidden = decoder_.hidden;
  if (!names.gate.empty()) m.gate = Linear(names.gate, m.width, hidden, names.bias, "ffn_gate");
  m.up = Linear(names.up, m.fused ? 2 * m.width : m.width, hidden, names.bias, "ffn_up");
  m.down = Linear(names.down, hidden, m.width, names.bias, "ffn_down");
  return m;
}

void BlockBuilder::Add(const Norm& before, std::variant<Attention, Mlp> body, const Norm& after) {
  AddParallel({{before, std::move(body), after}});
}

void BlockBuilder::AddParallel(std::vector<Branch> branches, bool residual_last) {
  Sublayer sublayer;
  sublayer.branches = std::move(branches), sublayer.residual_last = residual_last;
  block_.sublayers.push_back(std::move(sublayer));
}

DecoderBuilder::DecoderBuilder(const Json& config, std::string model_type) : config(config) {
  spec.model_type = std::move(model_type);
}

void DecoderBuilder::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

template <typename Value>
Value DecoderBuilder::Or(absl::StatusOr<Value> read, Value harmless) {
  if (read.ok()) return *std::move(read);
  Fail(read.status());
  return harmless;
}

bool DecoderBuilder::Has(const char* key) const { return JsonFind(config, key) != nullptr; }

int64_t DecoderBuilder::Count(const char* key) {
  const int64_t value = Or<int64_t>(JsonInt(config, key, kWhat), 1);
  if (value >= 1 && value <= kMaxCount) return value;
  Fail(absl::InvalidArgumentError(
      absl::StrCat("config.json: ", key, " is ", value, ", must be between 1 and ", kMaxCount)));
  return 1;
}

int64_t DecoderBuilder::Count(const char* key, int64_t fallback) { return Has(key) ? Count(key) : fallback; }
int64_t DecoderBuilder::Int(const char* key, int64_t fallback) {
  return Or<int64_t>(JsonIntOr(config, key, fallback, kWhat), fallback);
}
double DecoderBuilder::Double(const char* key, double fallback) {
  return Or<double>(JsonDoubleOr(config, key, fallback, kWhat), fallback);
}
double DecoderBuilder::Positive(const char* key, double fallback) {
  const double value = Double(key, fallback);
  if (!(value > 0)) Fail(absl::InvalidArgumentError(absl::StrCat("config.json: ", key, " must be positive")));
  return value;
}
double DecoderBuilder::NotNegative(const char* key, double fallback) {
  const double value = Double(key, fallback);
  if (!(value >= 0)) Fail(absl::InvalidArgumentError(absl::StrCat("config.json: ", key, " must not be negative")));
  return value;
}
double DecoderBuilder::NotNegativeOrNull(const char* key, double fallback) {
  return NotNegative(key, config.HasMember(key) ? 0 : fallback);
}
bool DecoderBuilder::Bool(const char* key, bool fallback) {
  return Or<bool>(JsonBoolOr(config, key, fallback, kWhat), fallback);
}
std::string DecoderBuilder::Text(const char* key, const std::string& fallback) {
  return Or<std::string>(JsonStringOr(config, key, fallback, kWhat), fallback);
}

std::vector<bool> DecoderBuilder::Flags(const char* key) {
  const JsonValue* list = JsonFind(config, key);
  if (list == nullptr || (list->IsArray() && list->Empty())) return {};
  std::vector<bool> flags;
  for (rapidjson::SizeType i = 0; list->IsArray() && i < list->Size(); ++i) {
    const JsonValue& value = (*list)[i];
    if (value.IsInt() || value.IsBool()) flags.push_back(value.IsBool() ? value.GetBool() : value.GetInt() != 0);
  }
  if (static_cast<int64_t>(flags.size()) != blocks) {
    Fail(absl::InvalidArgumentError(
        absl::StrCat("config.json: ", key, " must be a list of num_hidden_layers (", blocks, ") numbers")));
    flags.assign(blocks, false);
  }
  return flags;
}

Activation DecoderBuilder::ActivationOf(const char* key, const std::string& fallback) {
  const std::string name = Text(key, fallback);
  for (const NamedActivation& known : kActivations) {
    if (name == known.name) return known.activation;
  }
  const auto append = [](std::string* out, const NamedActivation& known) { out->append(known.name); };
  Fail(absl::UnimplementedError(absl::StrCat("config.json: ", key, " ", Quoted(name), " is not supported for ",
                                             spec.model_type, "; known: ", absl::StrJoin(kActivations, ", ", append))));
  return Activation::kSilu;
}

void DecoderBuilder::RefuseUnless(bool as_supported, const char* key, const std::string& why) {
  if (as_supported) return;
  Fail(absl::UnimplementedError(absl::StrCat("config.json: ", key, " of a ", spec.model_type, " model: ", why)));
}

void DecoderBuilder::SetHeadDim(int64_t given) {
  if (kv_heads < 1 || heads % kv_heads != 0) {
    Fail(absl::InvalidArgumentError(absl::StrCat("config.json: num_attention_heads (", heads,
                                                 ") is not a multiple of num_key_value_heads (", kv_heads, ")")));
    kv_heads = heads;
  }
  if (heads < 1) {
    Fail(absl::InvalidArgumentError(absl::StrCat("config.json: num_attention_heads is ", heads, ", must be positive")));
    heads = kv_heads = 1;
  }
  head_dim = given > 0 ? given : hidden / heads;
  if (given <= 0 && hidden % heads != 0) {
    Fail(absl::InvalidArgumentError(absl::StrCat("config.json: hidden_size (", hidden,
                                                 ") is not a multiple of num_attention_heads (", heads,
                                                 ") and head_dim is not given")));
  }
}

void DecoderBuilder::ReadCommonKeys(int64_t default_head_dim) {
  hidden = Count("hidden_size");
  width = Count("intermediate_size");
  blocks = Count("num_hidden_layers");
  spec.vocab_size = Count("vocab_size");
  heads = Count("num_attention_heads");
  kv_heads = Count("num_key_value_heads", heads);
  SetHeadDim(Has("head_dim") ? Count("head_dim") : default_head_dim);
  spec.max_positions = Int("max_position_embeddings", 0);
  if (Has("max_position_embeddings") && spec.max_positions < 1) Count("max_position_embeddings");
  SetEnds("model.embed_tokens", "lm_head");
}

void DecoderBuilder::ReadGptKeys() {
  hidden = Count("n_embd"), blocks = Count("n_layer"), heads = kv_heads = Count("n_head");
  spec.vocab_size = Count("vocab_size"), spec.max_positions = Count("n_positions");
  width = Count("n_inner", 4 * hidden);
  SetHeadDim(0);
  SetEnds("transformer.wte", "lm_head");
}

void DecoderBuilder::SetEnds(const std::string& embedding, const std::string& head) {
  spec.hidden_size = hidden;
  spec.input.embedding = absl::StrCat(embedding, ".weight"), spec.input.width = hidden;
  spec.head.name = head, spec.head.out_features = spec.vocab_size, spec.head.in_features = hidden;
  spec.head.gguf_name = "output";
}

void DecoderBuilder::ReadTie(bool fallback) {
  spec.tied_head_given = Has("tie_word_embeddings");
  spec.tied_head = Bool("tie_word_embeddings", fallback);
}

NormStyle DecoderBuilder::Rms(const char* key, double fallback) {
  NormStyle style;
  style.eps = Positive(key, fallback);
  return style;
}

NormStyle DecoderBuilder::Layer(const char* key, double fallback, bool bias) {
  NormStyle style;
  style.kind = Norm::kLayer, style.eps = Positive(key, fallback), style.bias = bias;
  return style;
}

int DecoderBuilder::Other(const std::string& name, std::vector<int64_t> shape) {
  spec.others.push_back({name, std::move(shape)});
  return static_cast<int>(spec.others.size()) - 1;
}

void DecoderBuilder::FinalNorm(const NormStyle& style, const std::string& name) {
  Norm& norm = spec.output.norm;
  norm = {style.kind, -1, -1, style.eps, style.offset, style.wide, style.plain};
  if (style.weight) norm.weight = Other(absl::StrCat(name, ".weight"), {hidden});
  if (style.bias) norm.bias = Other(absl::StrCat(name, ".bias"), {hidden});
}

Rotary DecoderBuilder::MakeRotary(const RotaryOptions& options, const std::string& attention_type) {
  for (const auto& [type, rotary] : rotaries_) {
    if (type == attention_type) return rotary;
  }
  RopeDefaults defaults = options;
  defaults.max_positions = spec.max_positions;
  RotaryTable table;
  double part = 1;
  std::vector<std::string> warnings;
  absl::StatusOr<RopeConfig> rope = ReadRopeConfig(config, attention_type, defaults, &part, &warnings);
  for (std::string& warning : warnings) {  // those of an object that all attention types share are said once
    if (std::find(spec.warnings.begin(), spec.warnings.end(), warning) == spec.warnings.end()) Warn(std::move(warning));
  }
  if (!rope.ok()) {
    Fail(rope.status());
    return {};
  }
  table.rope = *std::move(rope);
  table.dims = static_cast<int64_t>(static_cast<double>(head_dim) * part);
  if (table.rope.type == "dynamic" && table.dims == 2) {
    Fail(absl::InvalidArgumentError("config.json: rope type dynamic needs more than two numbers of a head that turn"));
    return {};
  }
  if (table.dims < 2 || table.dims % 2 != 0) {
    Fail(absl::InvalidArgumentError(absl::StrCat("config.json: of a head of ", head_dim, " numbers ", table.dims,
                                                 " would turn; rotary embedding needs an even number of them")));
    return {};
  }
  for (const auto* factors : {&table.rope.short_factors, &table.rope.long_factors}) {
    if (table.rope.type == "longrope" && static_cast<int64_t>(factors->size()) != table.dims / 2) {
      Fail(absl::InvalidArgumentError(absl::StrCat("config.json: rope type longrope has ", factors->size(),
                                                   " factors for ", table.dims / 2, " frequencies")));
      return {};
    }
  }
  auto same = std::find_if(spec.tables.begin(), spec.tables.end(), [&](const RotaryTable& other) {
    return other.dims == table.dims && other.rope == table.rope;
  });
  const int index = static_cast<int>(same - spec.tables.begin());
  Rotary rotary{index, table.dims, options.interleaved, options.wide};
  if (table.rope.query_growth != 0) {
    rotary.query_growth = table.rope.query_growth, rotary.growth_length = table.rope.original_max_positions;
  }
  if (same == spec.tables.end()) spec.tables.push_back(std::move(table));
  rotaries_.emplace_back(attention_type, rotary);
  return rotary;
}

int64_t DecoderBuilder::SlidingWindow(int64_t unmentioned) {
  reads_window_ = true;
  const int64_t window = Int("sliding_window", config.HasMember("sliding_window") ? 0 : unmentioned);
  if (window >= 0) return window;
  Fail(absl::InvalidArgumentError(
      absl::StrCat("config.json: sliding_window is ", window, ", must be positive or null")));
  return 0;
}

std::vector<int64_t> DecoderBuilder::WindowsByType(int64_t window) {
  reads_layer_types_ = true;
  const JsonValue* types = JsonFind(config, "layer_types");
  if (types == nullptr) return {};
  std::vector<int64_t> windows(blocks, 0);
  if (!types->IsArray() || static_cast<int64_t>(types->Size()) != blocks) {
    Fail(absl::InvalidArgumentError(
        absl::StrCat("config.json: layer_types must be a list of num_hidden_layers (", blocks, ") names")));
    return windows;
  }
  for (int64_t i = 0; i < blocks; ++i) {
    const JsonValue& type = (*types)[static_cast<rapidjson::SizeType>(i)];
    const absl::string_view name = type.IsString() ? JsonText(type) : "";
    if (name != kFullAttention && name != kSlidingAttention) {
      Fail(absl::UnimplementedError(absl::StrCat("config.json: layer_types[", i, "] is ", Quoted(name),
                                                 "; known: ", kFullAttention, ", ", kSlidingAttention)));
    }
    if (name == kSlidingAttention && window < 1) {
      Fail(absl::InvalidArgumentError(absl::StrCat("config.json: layer_types[", i, "] is ", kSlidingAttention,
                                                   ", but sliding_window is null, or use_sliding_window false")));
    }
    windows[i] = name == kSlidingAttention ? window : 0;
  }
  return windows;
}

std::vector<int64_t> DecoderBuilder::WindowsByPattern(int64_t window, int64_t pattern) {
  std::vector<int64_t> windows = WindowsByType(window);
  if (windows.empty() && window < 1 && pattern > 1) {
    Fail(absl::InvalidArgumentError(absl::StrCat("config.json: sliding_window is null, but ", pattern - 1, " of ",
                                                 pattern, " blocks of a ", spec.model_type,
                                                 " model are local; give a window, or "
                                                 "layer_types that are all ",
                                                 kFullAttention)));
  }
  for (int64_t i = static_cast<int64_t>(windows.size()); i < blocks; ++i) {
    windows.push_back(pattern > 0 && (i + 1) % pattern != 0 ? window : 0);
  }
  return windows;
}

void DecoderBuilder::EachBlock(const std::string& prefix,
                               const std::function<void(BlockBuilder&, int64_t index)>& describe) {
  if (blocks > kMaxBlocks) {
    Fail(absl::InvalidArgumentError(
        absl::StrCat("config.json: num_hidden_layers is ", blocks, ", must be between 1 and ", kMaxBlocks)));
  }
  size_t tensors = 0;
  for (int64_t i = 0; i < blocks && status_.ok(); ++i) {
    BlockSpec block;
    block.name = absl::StrCat(prefix, ".", i);
    BlockBuilder builder(*this, block);
    describe(builder, i);
    if (!status_.ok()) return;
    tensors += block.linears.size() + block.params.size();
    if (tensors > HeaderHandler::kMaxTensors) {
      return Fail(absl::InvalidArgumentError(absl::StrCat("config.json asks for more than ", HeaderHandler::kMaxTensors,
                                                          " tensors: at block ", i, " of ", blocks)));
    }
    spec.blocks.push_back(std::move(block));
  }
}

void DecoderBuilder::WarnOfWindows() {
  std::vector<std::string> found;
  if (!reads_window_ && Has("sliding_window")) found.push_back("sliding_window");
  const JsonValue* types = reads_layer_types_ ? nullptr : JsonFind(config, "layer_types");
  const bool is_list = types != nullptr && types->IsArray();
  if (is_list && std::any_of(types->Begin(), types->End(), [](const JsonValue& v) { return v != kFullAttention; })) {
    found.push_back("layer_types");
  }
  if (found.empty()) return;
  Warn(absl::StrCat("config.json: a ", spec.model_type, " model has no ", FirstNames(found),
                    ", ignored here as in transformers: every block attends to ",
                    reads_window_ ? "the same window" : "all"));
}

absl::StatusOr<ModelSpec> DecoderBuilder::Finish() {
  if (!status_.ok()) return status_;
  WarnOfWindows();
  // Some ways to scale frequencies are made for longer runs than the config names, where all tables are scaled so.
  double positions = spec.tables.empty() ? 0 : 1e15;
  for (const RotaryTable& table : spec.tables) {
    const bool longer = table.rope.type == "linear" || table.rope.type == "dynamic" || table.rope.type == "yarn";
    positions = std::min(positions, longer ? table.rope.factor * table.rope.original_max_positions : 0);
  }
  spec.max_positions = std::max(spec.max_positions, static_cast<int64_t>(positions));
  return std::move(spec);
}

// These families ignore such keys, here as in transformers; a model that was made with them is another one.
void WarnOfForeignKeys(DecoderBuilder& decoder, const std::vector<const char*>& known) {
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
    const JsonValue* value = JsonFind(decoder.config, key);
    const bool is_off = value == nullptr || value->IsFalse() || (value->IsNumber() && value->GetDouble() == off);
    const auto same = [&](const char* own) { return std::string(own) == key; };
    if (!is_off && std::none_of(known.begin(), known.end(), same)) found.push_back(key);
  };
  for (const char* key : kOffAtZero) look(key, 0);
  for (const char* key : kOffAtOne) look(key, 1);
  if (found.empty()) return;
  decoder.Warn(absl::StrCat("config.json: a ", decoder.spec.model_type, " model has no ", FirstNames(found),
                            ", ignored here as in transformers; if it was made with that, these are not its numbers"));
}

std::vector<int64_t> QwenWindows(DecoderBuilder& d) {
  const bool used = d.Bool("use_sliding_window", false);
  const int64_t given = d.SlidingWindow(4096), window = used ? given : 0;
  std::vector<int64_t> windows = d.WindowsByType(window);
  if (!windows.empty()) return windows;
  const int64_t first = d.Int("max_window_layers", 28);
  for (int64_t i = 0; i < d.blocks; ++i) windows.push_back(i >= first ? window : 0);
  return windows;
}

}  // namespace autoscheme
