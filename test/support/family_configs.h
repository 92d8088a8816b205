// The configs of the golden models (test/golden/families), eight times as wide, for tests that measure memory.
#pragma once

#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "support/temp_dir.h"

namespace autoscheme {

// Names of the folders, sorted.
inline std::vector<std::string> GoldenFamilies() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(AUTOSCHEME_GOLDEN_DIR "/families")) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Multiplies widths by 8, those of MLPs by 16, and lengths and the vocabulary by 4; lists of a number for each
// frequency follow.
inline void Widen(JsonValue& object, rapidjson::Document::AllocatorType& memory) {
  static const std::set<std::string> kWidths = {"hidden_size", "n_embd", "word_embed_proj_dim", "head_dim",
                                                "rotary_dim"};
  static const std::set<std::string> kInner = {"intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"};
  static const std::set<std::string> kLengths = {"max_position_embeddings", "original_max_position_embeddings",
                                                 "n_positions", "sliding_window", "vocab_size"};
  for (auto& member : object.GetObject()) {
    const std::string key = member.name.GetString();
    JsonValue& value = member.value;
    if (value.IsObject()) Widen(value, memory);
    if (value.IsInt() && kWidths.count(key) == 1) value.SetInt(value.GetInt() * 8);
    if (value.IsInt() && kInner.count(key) == 1) value.SetInt(value.GetInt() * 16);
    if (value.IsInt() && kLengths.count(key) == 1) value.SetInt(value.GetInt() * 4);
    if (key == "mrope_section") {
      for (JsonValue& part : value.GetArray()) part.SetInt(part.GetInt() * 8);
    }
    if (key != "long_factor" && key != "short_factor") continue;
    const rapidjson::SizeType count = value.Size();
    for (rapidjson::SizeType i = count; i < 8 * count; ++i) value.PushBack(value[i % count].GetDouble(), memory);
  }
}

inline std::string WideConfig(const std::string& family) {
  const std::string path = AUTOSCHEME_GOLDEN_DIR "/families/" + family + "/model/config.json";
  Json config = ParseJson(Slurp(path), path).value();
  Widen(config, config.GetAllocator());
  rapidjson::StringBuffer text;
  rapidjson::Writer<rapidjson::StringBuffer> writer(text);
  config.Accept(writer);
  return text.GetString();
}

}  // namespace autoscheme
