// Writes safetensors files for tests: well-formed ones from tensors, malformed ones from raw header text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace autoscheme {

struct RawTensor {
  std::string name;
  std::string dtype;  // "BF16"
  std::vector<int64_t> shape;
  std::string bytes;  // shape x dtype of them
};

// The bytes of a file with these tensors in this order.
inline std::string SafetensorsBytes(const std::vector<RawTensor>& tensors);

// 8 bytes of header length, the header as given, the data as given.
inline std::string SafetensorsRaw(const std::string& header, const std::string& data = "") {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i));
  return out + header + data;
}

// `text` as a JSON string: only quotes, backslashes and control characters need escaping.
inline std::string JsonQuoted(const std::string& text) {
  static const char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20) {
      out += std::string("\\u00") + kHex[byte >> 4] + kHex[byte & 15];
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out + '"';
}

inline std::string SafetensorsBytes(const std::vector<RawTensor>& tensors) {
  std::string header = "{", data;
  for (const RawTensor& tensor : tensors) {
    if (header.size() > 1) header += ',';
    header += JsonQuoted(tensor.name) + ":{\"dtype\":\"" + tensor.dtype + "\",\"shape\":[";
    for (size_t i = 0; i < tensor.shape.size(); ++i) header += (i == 0 ? "" : ",") + std::to_string(tensor.shape[i]);
    header += "],\"data_offsets\":[" + std::to_string(data.size()) + ',';
    data += tensor.bytes;
    header += std::to_string(data.size()) + "]}";
  }
  header += '}';
  while (header.size() % 8 != 0) header += ' ';
  return SafetensorsRaw(header, data);
}

}  // namespace autoscheme
