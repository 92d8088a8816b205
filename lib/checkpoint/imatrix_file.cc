#include "checkpoint/imatrix_file.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/checked.h"
#include "base/count.h"
#include "base/io.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;
constexpr uint64_t kMaxName = 4096;

// Walks over the file's bytes. After the first read past the end everything is zero and failed() tells where that was.
class Cursor {
 public:
  explicit Cursor(absl::string_view bytes) : bytes_(bytes) {}
  bool failed() const { return failed_; }
  uint64_t offset() const { return offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }

  template <typename T>
  T Read() {
    T value{};
    if (const char* at = Take(sizeof(T))) std::memcpy(&value, at, sizeof(T));
    return value;
  }
  absl::string_view Bytes(uint64_t size) {
    const char* at = Take(size);
    return at == nullptr ? absl::string_view() : absl::string_view(at, size);
  }

 private:
  const char* Take(uint64_t size) {
    if (failed_ || size > left()) {
      failed_ = true;
      return nullptr;
    }
    const char* at = bytes_.data() + offset_;
    offset_ += size;
    return at;
  }
  absl::string_view bytes_;
  uint64_t offset_ = 0;
  bool failed_ = false;
};

class Parser {
 public:
  Parser(const std::string& path, absl::string_view bytes) : what_(Quoted(path)), bytes_(bytes), cursor_(bytes) {}

  absl::StatusOr<ImatrixFile> Parse() {
    AUTOSCHEME_RETURN_IF_ERROR(absl::StartsWith(bytes_, "GGUF") ? ParseGguf() : ParseLegacy());
    if (file_.empty()) return absl::DataLossError(absl::StrCat(what_, " holds no importance matrix"));
    return std::move(file_);
  }

 private:
  absl::Status Truncated() const {
    return absl::DataLossError(
        absl::StrCat(what_, " is no importance matrix of llama.cpp, or ends early: what should follow byte ",
                     cursor_.offset(), " does not fit into its ", Count(bytes_.size(), "byte")));
  }
  absl::Status Bad(absl::string_view problem) const {
    return absl::DataLossError(absl::StrCat(what_, ", before byte ", cursor_.offset(), ": ", problem));
  }

  static std::vector<float> Floats(absl::string_view bytes) {
    std::vector<float> values(bytes.size() / sizeof(float));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
    return values;
  }

  absl::Status Add(absl::string_view name, std::vector<float> values) {
    if (values.empty()) return absl::DataLossError(absl::StrCat(what_, ": ", Quoted(name), " has no channels"));
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::isfinite(values[i]) && values[i] >= 0) continue;
      return absl::DataLossError(absl::StrCat(what_, ": ", Quoted(name), " holds ", values[i], " for channel ", i,
                                              ", where a sum of squares belongs"));
    }
    if (!file_.emplace(std::string(name), std::move(values)).second)
      return Bad(absl::StrCat(Quoted(name), " is there twice"));
    return absl::OkStatus();
  }

  // int32 entries, then for each: name, int32 calls, values; then what was it made from, which is not looked at.
  absl::Status ParseLegacy() {
    const int32_t entries = cursor_.Read<int32_t>();
    if (cursor_.failed() || entries < 1 || static_cast<uint64_t>(entries) > bytes_.size() / 13) return Truncated();
    for (int32_t i = 0; i < entries; ++i) {
      const int32_t length = cursor_.Read<int32_t>();
      if (cursor_.failed() || length < 1 || static_cast<uint64_t>(length) > kMaxName) return Truncated();
      const absl::string_view name = cursor_.Bytes(length);
      cursor_.Read<int32_t>();
      const int32_t count = cursor_.Read<int32_t>();
      if (cursor_.failed() || count < 1) return Truncated();
      const absl::string_view values = cursor_.Bytes(static_cast<uint64_t>(count) * sizeof(float));
      if (cursor_.failed()) return Truncated();
      AUTOSCHEME_RETURN_IF_ERROR(Add(name, Floats(values)));
    }
    return absl::OkStatus();
  }

  absl::string_view String() {
    const uint64_t length = cursor_.Read<uint64_t>();
    return cursor_.Bytes(length);
  }

  // Size of a value type of GGUF; 0 for strings and arrays, -1 for what does not exist.
  static int ScalarBytes(uint32_t type) {
    constexpr int kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < 13 ? kBytes[type] : -1;
  }
  static constexpr uint32_t kUint32 = 4, kString = 8, kArray = 9;

  absl::Status SkipValue(uint32_t type) {
    if (type == kString) {
      String();
    } else if (type == kArray) {
      const uint32_t element = cursor_.Read<uint32_t>();
      const uint64_t count = cursor_.Read<uint64_t>();
      if (element == kArray || ScalarBytes(element) < 0)
        return Bad(absl::StrCat("an array of values of type ", element));
      if (element == kString) {
        for (uint64_t i = 0; i < count && !cursor_.failed(); ++i) String();
      } else {
        const auto bytes = CheckedMul(count, static_cast<uint64_t>(ScalarBytes(element)));
        cursor_.Bytes(bytes.value_or(~uint64_t{0}));
      }
    } else if (ScalarBytes(type) > 0) {
      cursor_.Bytes(ScalarBytes(type));
    } else {
      return Bad(absl::StrCat("a value of the unknown type ", type));
    }
    return cursor_.failed() ? Truncated() : absl::OkStatus();
  }

  struct GgufTensor {
    absl::string_view name;
    uint32_t type = 0;
    uint64_t offset = 0, bytes = 0;
  };

  absl::Status ParseGguf() {
    cursor_.Bytes(4);
    const uint32_t version = cursor_.Read<uint32_t>();
    const uint64_t tensors = cursor_.Read<uint64_t>(), pairs = cursor_.Read<uint64_t>();
    if (cursor_.failed()) return Truncated();
    if (version < 2 || version > 3) {
      return absl::UnimplementedError(
          absl::StrCat(what_, " is GGUF of version ", version, "; versions 2 and 3 are read"));
    }
    AUTOSCHEME_ASSIGN_OR_RETURN(const uint64_t alignment, ReadAlignment(pairs));
    AUTOSCHEME_ASSIGN_OR_RETURN(const std::vector<GgufTensor> all, ReadTensors(tensors));
    const uint64_t data = (cursor_.offset() + alignment - 1) / alignment * alignment;
    std::map<absl::string_view, const GgufTensor*> counts;
    for (const GgufTensor& tensor : all) {
      if (absl::EndsWith(tensor.name, ".counts")) counts[absl::StripSuffix(tensor.name, ".counts")] = &tensor;
    }
    for (const GgufTensor& sums : all) {
      absl::string_view name = sums.name;
      if (!absl::ConsumeSuffix(&name, ".in_sum2")) continue;
      AUTOSCHEME_ASSIGN_OR_RETURN(std::vector<float> values, TensorFloats(sums, data));
      const auto found = counts.find(name);
      if (found == counts.end()) return Bad(absl::StrCat(Quoted(name), " has sums and no counts"));
      AUTOSCHEME_ASSIGN_OR_RETURN(const std::vector<float> tokens, TensorFloats(*found->second, data));
      AUTOSCHEME_RETURN_IF_ERROR(AddSums(name, std::move(values), tokens));
    }
    return absl::OkStatus();
  }

  // Goes through the key-value pairs; where tensors begin is a multiple of the result.
  absl::StatusOr<uint64_t> ReadAlignment(uint64_t pairs) {
    uint64_t alignment = 32;
    for (uint64_t i = 0; i < pairs; ++i) {
      const absl::string_view key = String();
      const uint32_t type = cursor_.Read<uint32_t>();
      if (cursor_.failed()) return Truncated();
      if (key == "general.type" && type == kString) {
        const absl::string_view kind = String();
        if (!cursor_.failed() && kind != "imatrix") {
          return absl::InvalidArgumentError(absl::StrCat(what_, " is a GGUF file of type ", Quoted(kind),
                                                         ", not an importance matrix; llama-imatrix writes those"));
        }
      } else if (key == "general.alignment" && type == kUint32) {
        alignment = cursor_.Read<uint32_t>();
        if (alignment == 0 || alignment > (1 << 20)) return Bad(absl::StrCat("general.alignment is ", alignment));
      } else {
        AUTOSCHEME_RETURN_IF_ERROR(SkipValue(type));
      }
      if (cursor_.failed()) return Truncated();
    }
    return alignment;
  }

  absl::StatusOr<std::vector<GgufTensor>> ReadTensors(uint64_t tensors) {
    std::vector<GgufTensor> all;
    for (uint64_t i = 0; i < tensors; ++i) {
      GgufTensor tensor;
      tensor.name = String();
      const uint32_t dimensions = cursor_.Read<uint32_t>();
      if (cursor_.failed() || tensor.name.size() > kMaxName) return Truncated();
      if (dimensions > 4) return Bad(absl::StrCat(Quoted(tensor.name), " has ", dimensions, " dimensions"));
      std::optional<uint64_t> bytes = sizeof(float);
      for (uint32_t d = 0; d < dimensions; ++d) {
        const uint64_t size = cursor_.Read<uint64_t>();
        if (bytes.has_value()) bytes = CheckedMul(*bytes, size);
      }
      tensor.type = cursor_.Read<uint32_t>();
      tensor.offset = cursor_.Read<uint64_t>();
      if (cursor_.failed() || !bytes.has_value()) return Truncated();
      tensor.bytes = *bytes;
      all.push_back(tensor);
    }
    return all;
  }

  absl::Status AddSums(absl::string_view name, std::vector<float> values, const std::vector<float>& tokens) {
    if (tokens.empty() || values.size() % tokens.size() != 0) {
      return Bad(absl::StrCat(Quoted(name), " has ", values.size(), " sums and ", tokens.size(),
                              " counts, which do not divide them"));
    }
    // What saw no token is worth the same everywhere, as in the older format and where llama.cpp reads this one.
    const size_t width = values.size() / tokens.size();
    for (size_t row = 0; row < tokens.size(); ++row) {
      if (tokens[row] > 0) continue;
      std::fill_n(values.begin() + static_cast<int64_t>(row * width), width, 1.0f);
    }
    return Add(name, std::move(values));
  }

  // `data`: where the tensors begin.
  absl::StatusOr<std::vector<float>> TensorFloats(const GgufTensor& tensor, uint64_t data) const {
    if (tensor.type != 0) {
      return Bad(absl::StrCat(Quoted(tensor.name), " has the type ", tensor.type, "; importance matrices are float32"));
    }
    const auto begin = CheckedAdd(data, tensor.offset);
    const auto end = begin.has_value() ? CheckedAdd(*begin, tensor.bytes) : std::nullopt;
    if (!end.has_value() || *end > bytes_.size()) return Truncated();
    return Floats(bytes_.substr(*begin, tensor.bytes));
  }

  const std::string what_;
  const absl::string_view bytes_;
  Cursor cursor_;
  ImatrixFile file_;
};

}  // namespace

absl::StatusOr<ImatrixFile> ReadImatrixFile(const Context& context, const std::string& path) {
  AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string bytes, ReadFileToString(IoOf(context), path, kMaxFileBytes));
  return Parser(path, bytes).Parse();
}

}  // namespace autoscheme
