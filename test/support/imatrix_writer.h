// Importance matrices in llama.cpp's two formats, byte by byte.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace autoscheme {

using ImatrixRows = std::vector<std::pair<std::string, std::vector<float>>>;

template <typename T>
void PutRaw(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}
inline void PutFloats(std::string& out, const std::vector<float>& values) {
  out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

inline std::string LegacyImatrix(const ImatrixRows& rows) {
  std::string out;
  PutRaw(out, static_cast<int32_t>(rows.size()));
  for (const auto& [name, values] : rows) {
    PutRaw(out, static_cast<int32_t>(name.size()));
    out += name;
    PutRaw(out, int32_t{5});  // calls
    PutRaw(out, static_cast<int32_t>(values.size()));
    PutFloats(out, values);
  }
  PutRaw(out, int32_t{5});  // last call
  PutRaw(out, int32_t{4});
  return out + "data";
}

// `counts`: of each tensor, one for each of its experts.
inline std::string GgufImatrix(const ImatrixRows& rows, const std::string& type = "imatrix",
                               const std::vector<float>& counts = {512}) {
  std::string out = "GGUF";
  const auto text = [&](const std::string& s) {
    PutRaw(out, static_cast<uint64_t>(s.size()));
    out += s;
  };
  PutRaw(out, uint32_t{3});
  PutRaw(out, static_cast<uint64_t>(2 * rows.size()));
  PutRaw(out, uint64_t{3});
  text("general.type"), PutRaw(out, uint32_t{8}), text(type);
  text("imatrix.datasets"), PutRaw(out, uint32_t{9}), PutRaw(out, uint32_t{8}), PutRaw(out, uint64_t{1}), text("data");
  text("imatrix.chunk_count"), PutRaw(out, uint32_t{4}), PutRaw(out, uint32_t{5});
  constexpr uint64_t kAlignment = 32;
  uint64_t offset = 0;
  std::string data;
  const auto tensor = [&](const std::string& name, const std::vector<float>& values) {
    text(name);
    PutRaw(out, uint32_t{2});
    const uint64_t rows = values.size() % counts.size() == 0 ? counts.size() : 1;
    PutRaw(out, static_cast<uint64_t>(values.size() / rows)), PutRaw(out, rows);
    PutRaw(out, uint32_t{0});  // float32
    PutRaw(out, offset);
    PutFloats(data, values);
    offset = (data.size() + kAlignment - 1) / kAlignment * kAlignment;
    if (offset > data.size()) data.resize(offset);
  };
  for (const auto& [name, values] : rows) {
    tensor(name + ".in_sum2", values);
    tensor(name + ".counts", counts);
  }
  out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment);
  return out + data.substr(0, data.size() - kAlignment +
                                  4 * counts.size());  // the last number of the last tensor ends the file
}

}  // namespace autoscheme
