#include "model/text_defaults.h"

#include <cstdint>

namespace autoscheme {
namespace {

// Zeros are left to the family.
struct Defaults {
  const char* type;
  int64_t vocab, hidden, width, blocks, heads, kv_heads, positions;
  double eps = 0, theta = 0;
};
constexpr Defaults kDefaults[] = {
    {"gemma3_text", 262208, 2304, 9216, 26, 8, 4, 131072},
    {"llama", 32000, 4096, 11008, 32, 32, 0, 2048},
    {"ministral3", 131072, 4096, 14336, 34, 32, 8, 262144},
    {"mistral", 32000, 4096, 14336, 32, 32, 8, 131072},
    {"qwen2", 151936, 4096, 22016, 32, 32, 32, 32768},
    {"qwen2_vl", 152064, 8192, 29568, 80, 64, 8, 32768, 1e-5, 1e6},
    {"qwen2_5_vl", 152064, 8192, 29568, 80, 64, 8, 32768, 1e-5, 1e6},
    {"qwen3", 151936, 4096, 22016, 32, 32, 32, 32768},
    {"qwen3_vl", 151936, 4096, 22016, 32, 32, 32, 128000, 1e-6, 5e6},
};

}  // namespace

void AddTextDefaults(const std::string& type, Json& text) {
  for (const Defaults& d : kDefaults) {
    if (type != d.type) continue;
    const auto add = [&](const char* key, auto value) {
      if (value == 0 || text.HasMember(key)) return;
      text.AddMember(JsonValue(key, text.GetAllocator()), JsonValue(value), text.GetAllocator());
    };
    add("vocab_size", d.vocab), add("hidden_size", d.hidden), add("intermediate_size", d.width);
    add("num_hidden_layers", d.blocks), add("num_attention_heads", d.heads), add("num_key_value_heads", d.kv_heads);
    add("max_position_embeddings", d.positions), add("rms_norm_eps", d.eps);
    if (JsonFind(text, "rope_parameters") == nullptr) add("rope_theta", d.theta);
  }
}

}  // namespace autoscheme
