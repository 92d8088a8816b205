// Turns the JSON events of a safetensors header into tensors, without a tree of the whole text in between.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "autoscheme/tensor.h"

namespace autoscheme {

// One tensor as the header tells it; begin and end count from the start of the data.
struct HeaderEntry {
  TensorInfo tensor;          // name, dtype and shape; the rest is for later
  std::string unknown_dtype;  // set when the dtype is none that we know
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Handler for rapidjson::Reader with kParseNumbersAsStringsFlag. Checks what one entry can show by itself: structure,
// types, missing and repeated fields, names, rank and the size of each dimension. When an event function has returned
// false, status() says why.
class HeaderHandler {
 public:
  static constexpr size_t kMaxTensors = 1000000;
  static constexpr size_t kMaxNameBytes = 1024;
  static constexpr size_t kMaxRank = 8;
  static constexpr int64_t kMaxDim = int64_t{1} << 48;
  static constexpr int kMaxDepth = 64;

  const absl::Status& status() const { return status_; }
  std::vector<HeaderEntry> TakeEntries() && { return std::move(entries_); }

  bool Null();
  bool Bool(bool) { return Scalar("a boolean"); }
  bool Int(int) { return Scalar("a number"); }
  bool Uint(unsigned) { return Scalar("a number"); }
  bool Int64(int64_t) { return Scalar("a number"); }
  bool Uint64(uint64_t) { return Scalar("a number"); }
  bool Double(double) { return Scalar("a number"); }
  bool RawNumber(const char* text, unsigned length, bool copy);
  bool String(const char* text, unsigned length, bool copy);
  bool Key(const char* text, unsigned length, bool copy);
  bool StartObject();
  bool EndObject(unsigned members);
  bool StartArray();
  bool EndArray(unsigned elements);

 private:
  enum class State {
    kStart,          // nothing seen
    kTop,            // in the header's object
    kMetadataValue,  // after the key "__metadata__"
    kMetadata,       // in its object
    kEntryValue,     // after a tensor's name
    kEntry,          // in a tensor's object
    kDtype,
    kShape,
    kOffsets,  // after one of the three keys
    kShapeItems,
    kOffsetItems,  // in the array
    kSkip,         // in the value of an unknown field
    kDone,
  };

  bool Fail(absl::Status status);
  bool Malformed(absl::string_view why);
  bool Scalar(absl::string_view what);  // any value that is neither object nor array
  bool Wrong(absl::string_view found);  // a value of a wrong type for the state
  bool TopKey(absl::string_view name);
  bool FieldKey(absl::string_view name);
  bool Dimension(absl::string_view digits);
  bool Offset(absl::string_view digits);
  std::string Subject() const;  // 'tensor "w"', for messages

  State state_ = State::kStart;
  int skip_depth_ = 0;  // open arrays and objects inside an unknown field
  bool seen_metadata_ = false;
  bool seen_dtype_ = false, seen_shape_ = false, seen_offsets_ = false;
  size_t offset_count_ = 0;
  absl::flat_hash_set<std::string> metadata_keys_;
  std::vector<HeaderEntry> entries_;
  absl::Status status_;
};

}  // namespace autoscheme
