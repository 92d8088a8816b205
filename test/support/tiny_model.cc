#include "support/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>

namespace autoscheme {
namespace {

// Standard normal numbers that are the same with every standard library (std::normal_distribution is not).
class Normal {
 public:
  explicit Normal(uint64_t seed) : state_(seed * 2654435761 + 0x9e3779b97f4a7c15) {}

  uint64_t Bits() {  // splitmix64
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  double Uniform() { return (static_cast<double>(Bits() >> 11) + 0.5) / 9007199254740992.0; }
  double operator()() {  // Box-Muller
    return std::sqrt(-2 * std::log(Uniform())) * std::cos(6.283185307179586 * Uniform());
  }

 private:
  uint64_t state_;
};

uint32_t FloatBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

uint32_t RoundToEven(uint32_t bits, int dropped) {
  return (bits + (1u << (dropped - 1)) - 1 + (bits >> dropped & 1)) >> dropped;
}

// Zero for what half precision cannot hold as a normal number; the weights are far from its upper end.
uint16_t HalfBits(float value) {
  const uint32_t bits = FloatBits(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  if (std::abs(value) < 6.2e-5f) return static_cast<uint16_t>(sign);
  return static_cast<uint16_t>(sign | (RoundToEven(bits & 0x7fffffff, 13) - (112u << 10)));
}

void Append(float value, const std::string& dtype, std::string* bytes) {
  uint32_t bits = FloatBits(value);
  int size = 4;
  if (dtype == "BF16") {
    bits = RoundToEven(bits, 16);
    size = 2;
  } else if (dtype == "F16") {
    bits = HalfBits(value);
    size = 2;
  } else if (dtype != "F32") {
    throw std::runtime_error("TinyModel: unknown dtype " + dtype);
  }
  for (int i = 0; i < size; ++i) *bytes += static_cast<char>(bits >> (8 * i));
}

void WriteFile(const std::string& path, const std::string& contents) {
  std::ofstream out(path, std::ios::binary);
  out << contents;
  out.close();
  if (!out) throw std::runtime_error("cannot write " + path);
}

int64_t HeadDim(const TinyModel& model) { return model.head_dim != 0 ? model.head_dim : model.hidden / model.heads; }

}  // namespace

TinyModel WideTinyModel() {
  TinyModel model;
  model.hidden = 128, model.heads = 4, model.kv_heads = 2, model.intermediate = 256, model.std_dev = 0.08;
  return model;
}

std::vector<RawTensor> MakeTinyTensors(const TinyModel& m) {
  Normal normal(m.seed);
  std::vector<RawTensor> tensors;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape, double mean = 0) {
    RawTensor tensor{name, m.dtype, shape, ""};
    int64_t count = 1;
    for (int64_t dim : shape) count *= dim;
    for (int64_t i = 0; i < count; ++i) {
      Append(static_cast<float>(mean + m.std_dev * normal()), m.dtype, &tensor.bytes);
    }
    tensors.push_back(std::move(tensor));
  };
  const int64_t q = m.heads * HeadDim(m), kv = m.kv_heads * HeadDim(m);

  add("model.embed_tokens.weight", {m.vocab, m.hidden});
  for (int block = 0; block < m.blocks; ++block) {
    const std::string prefix = "model.layers." + std::to_string(block) + ".";
    add(prefix + "input_layernorm.weight", {m.hidden}, 1);
    for (const auto& [name, rows] : {std::pair{"q_proj", q}, {"k_proj", kv}, {"v_proj", kv}}) {
      add(prefix + "self_attn." + name + ".weight", {rows, m.hidden});
      if (m.model_type == "qwen2") add(prefix + "self_attn." + name + ".bias", {rows});
    }
    if (m.model_type == "qwen3") {
      add(prefix + "self_attn.q_norm.weight", {HeadDim(m)}, 1);
      add(prefix + "self_attn.k_norm.weight", {HeadDim(m)}, 1);
    }
    add(prefix + "self_attn.o_proj.weight", {m.hidden, q});
    add(prefix + "post_attention_layernorm.weight", {m.hidden}, 1);
    add(prefix + "mlp.gate_proj.weight", {m.intermediate, m.hidden});
    add(prefix + "mlp.up_proj.weight", {m.intermediate, m.hidden});
    add(prefix + "mlp.down_proj.weight", {m.hidden, m.intermediate});
  }
  add("model.norm.weight", {m.hidden}, 1);
  if (!m.tied) add("lm_head.weight", {m.vocab, m.hidden});
  if (m.zero_byte_tensor) add("model.extra", {0, m.hidden});
  return tensors;
}

void WriteTinyModel(const TinyModel& model, const std::string& dir) {
  WriteFile(dir + "/config.json", TinyConfig(model));
  WriteTinyWeights(MakeTinyTensors(model), model.shards, dir);
}

void WriteTinyWeights(const std::vector<RawTensor>& tensors, int shards, const std::string& dir) {
  if (shards <= 1) {
    WriteFile(dir + "/model.safetensors", SafetensorsBytes(tensors));
    return;
  }
  std::string map;
  size_t total = 0;
  const size_t count = tensors.size(), n = static_cast<size_t>(shards);
  for (size_t shard = 0; shard < n; ++shard) {
    char name[64];
    std::snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", static_cast<int>(shard) + 1, shards);
    const std::vector<RawTensor> part(tensors.begin() + static_cast<std::ptrdiff_t>(count * shard / n),
                                      tensors.begin() + static_cast<std::ptrdiff_t>(count * (shard + 1) / n));
    for (const RawTensor& tensor : part) {
      map += (map.empty() ? "" : ",\n") + ("    " + JsonQuoted(tensor.name)) + ": " + JsonQuoted(name);
      total += tensor.bytes.size();
    }
    WriteFile(dir + "/" + name, SafetensorsBytes(part));
  }
  WriteFile(dir + "/model.safetensors.index.json", "{\n  \"metadata\": {\"total_size\": " + std::to_string(total) +
                                                       "},\n  \"weight_map\": {\n" + map + "\n  }\n}\n");
}

std::string TinyConfig(const TinyModel& m) {
  static const std::map<std::string, std::string> kArchitectures = {{"llama", "LlamaForCausalLM"},
                                                                    {"mistral", "MistralForCausalLM"},
                                                                    {"qwen2", "Qwen2ForCausalLM"},
                                                                    {"qwen3", "Qwen3ForCausalLM"}};
  static const std::map<std::string, std::string> kDtypes = {
      {"BF16", "bfloat16"}, {"F16", "float16"}, {"F32", "float32"}};
  std::string json = "{\n";
  const auto add = [&](const std::string& key, const std::string& value) {
    json += (json.size() > 2 ? ",\n" : "") + ("  \"" + key) + "\": " + value;
  };
  const auto own = kArchitectures.find(m.model_type);
  const std::string own_class = own == kArchitectures.end() ? m.model_type : own->second;
  add("architectures", "[\"" + (m.architecture.empty() ? own_class : m.architecture) + "\"]");
  add("model_type", JsonQuoted(m.model_type));
  add("torch_dtype", "\"" + kDtypes.at(m.dtype) + "\"");
  add("hidden_act", "\"silu\"");
  add("hidden_size", std::to_string(m.hidden));
  add("intermediate_size", std::to_string(m.intermediate));
  add("max_position_embeddings", std::to_string(m.max_positions));
  add("num_attention_heads", std::to_string(m.heads));
  add("num_hidden_layers", std::to_string(m.blocks));
  add("num_key_value_heads", std::to_string(m.kv_heads));
  if (m.head_dim != 0 || m.model_type == "qwen3") add("head_dim", std::to_string(HeadDim(m)));
  add("rms_norm_eps", "1e-05");
  add("rope_theta", "10000.0");
  if (m.model_type == "llama") {
    add("attention_bias", "false");
    add("mlp_bias", "false");
  }
  if (m.model_type == "mistral") {
    add("sliding_window", m.sliding_window > 0 ? std::to_string(m.sliding_window) : "null");
  }
  if (m.model_type == "qwen2" || m.model_type == "qwen3") add("use_sliding_window", "false");
  if (m.model_type == "qwen3") add("attention_bias", "false");
  add("tie_word_embeddings", m.tied ? "true" : "false");
  add("vocab_size", std::to_string(m.vocab));
  if (!m.extra_config.empty()) json += ",\n  " + m.extra_config;
  return json + "\n}\n";
}

std::string TinyTokens(int64_t nsamples, int64_t seqlen, int64_t vocab, uint64_t seed) {
  Normal random(seed);
  std::string json = "{\"input_ids\": [";
  for (int64_t row = 0; row < nsamples; ++row) {
    json += row == 0 ? "[" : ", [";
    for (int64_t i = 0; i < seqlen; ++i) {
      json += (i == 0 ? "" : ", ") + std::to_string(random.Bits() % static_cast<uint64_t>(vocab));
    }
    json += "]";
  }
  return json + "]}\n";
}

}  // namespace autoscheme
