#include "checkpoint/header_handler.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/utf8.h"

namespace autoscheme {
namespace {

// Plain digits only: "-1", "1.0" and "1e0" are no sizes.
bool ParseSize(absl::string_view digits, uint64_t* value) {
  return !digits.empty() && digits.find_first_not_of("0123456789") == absl::string_view::npos &&
         absl::SimpleAtoi(digits, value);
}

bool HasControlBytes(absl::string_view text) {
  return std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

}  // namespace

bool HeaderHandler::Null() {
  if (state_ == State::kMetadataValue) {  // as good as absent
    state_ = State::kTop;
    return true;
  }
  return Scalar("null");
}

bool HeaderHandler::RawNumber(const char* text, unsigned length, bool) {
  const absl::string_view digits(text, length);
  if (state_ == State::kShapeItems) return Dimension(digits);
  if (state_ == State::kOffsetItems) return Offset(digits);
  return Scalar("a number");
}

bool HeaderHandler::String(const char* text, unsigned length, bool) {
  const absl::string_view value(text, length);
  if (!IsValidUtf8(value)) return Malformed("an escape is half of a surrogate pair");
  if (state_ == State::kMetadata) return true;
  if (state_ != State::kDtype) return Scalar("a string");
  if (const std::optional<Dtype> dtype = DtypeFromName(value)) {
    entries_.back().tensor.dtype = *dtype;
  } else {
    entries_.back().unknown_dtype = value.empty() ? " " : std::string(value.substr(0, 64));
  }
  state_ = State::kEntry;
  return true;
}

bool HeaderHandler::Key(const char* text, unsigned length, bool) {
  const absl::string_view name(text, length);
  if (!IsValidUtf8(name)) return Malformed("an escape is half of a surrogate pair");
  switch (state_) {
    case State::kTop: return TopKey(name);
    case State::kEntry: return FieldKey(name);
    case State::kMetadata:
      if (metadata_keys_.emplace(name).second) return true;
      return Malformed(absl::StrCat("duplicate key ", Quoted(name), " in __metadata__"));
    default: return true;  // inside an unknown field
  }
}

bool HeaderHandler::TopKey(absl::string_view name) {
  if (name == "__metadata__") {
    if (seen_metadata_) return Malformed("__metadata__ appears twice");
    seen_metadata_ = true;
    state_ = State::kMetadataValue;
    return true;
  }
  if (name.size() > kMaxNameBytes) {
    return Fail(absl::ResourceExhaustedError(absl::StrCat("the tensor name ", Quoted(name), " has ", name.size(),
                                                          " bytes; at most ", kMaxNameBytes, " are accepted")));
  }
  if (HasControlBytes(name)) {
    return Malformed(absl::StrCat("the tensor name ", Quoted(name), " contains a control character"));
  }
  if (entries_.size() == kMaxTensors) {
    return Fail(absl::ResourceExhaustedError(
        absl::StrCat("more than ", kMaxTensors, " tensors, which is the limit for a file")));
  }
  entries_.emplace_back();
  entries_.back().tensor.name = std::string(name);
  seen_dtype_ = seen_shape_ = seen_offsets_ = false;
  state_ = State::kEntryValue;
  return true;
}

bool HeaderHandler::FieldKey(absl::string_view name) {
  bool* seen = nullptr;
  if (name == "dtype") {
    seen = &seen_dtype_;
    state_ = State::kDtype;
  } else if (name == "shape") {
    seen = &seen_shape_;
    state_ = State::kShape;
  } else if (name == "data_offsets") {
    seen = &seen_offsets_;
    state_ = State::kOffsets;
    offset_count_ = 0;
  } else {
    skip_depth_ = 0;
    state_ = State::kSkip;
    return true;
  }
  if (*seen) return Malformed(absl::StrCat(Subject(), " has two fields ", Quoted(name)));
  *seen = true;
  return true;
}

bool HeaderHandler::StartObject() {
  switch (state_) {
    case State::kStart: state_ = State::kTop; return true;
    case State::kMetadataValue: state_ = State::kMetadata; return true;
    case State::kEntryValue: state_ = State::kEntry; return true;
    case State::kSkip: break;
    default: return Wrong("an object");
  }
  // The header's object and the entry's are two levels themselves.
  if (++skip_depth_ + 2 <= kMaxDepth) return true;
  return Fail(absl::ResourceExhaustedError(absl::StrCat(Subject(), " is nested deeper than ", kMaxDepth, " levels")));
}

bool HeaderHandler::EndObject(unsigned) {
  switch (state_) {
    case State::kTop: state_ = State::kDone; return true;
    case State::kMetadata:
      metadata_keys_.clear();
      state_ = State::kTop;
      return true;
    case State::kEntry: {
      const char* missing = !seen_dtype_ ? "dtype" : !seen_shape_ ? "shape" : !seen_offsets_ ? "data_offsets" : nullptr;
      if (missing != nullptr) return Malformed(absl::StrCat(Subject(), " has no field ", Quoted(missing)));
      state_ = State::kTop;
      return true;
    }
    default:
      if (--skip_depth_ == 0) state_ = State::kEntry;
      return true;
  }
}

bool HeaderHandler::StartArray() {
  switch (state_) {
    case State::kShape: state_ = State::kShapeItems; return true;
    case State::kOffsets: state_ = State::kOffsetItems; return true;
    case State::kSkip: break;
    default: return Wrong("an array");
  }
  if (++skip_depth_ + 2 <= kMaxDepth) return true;
  return Fail(absl::ResourceExhaustedError(absl::StrCat(Subject(), " is nested deeper than ", kMaxDepth, " levels")));
}

bool HeaderHandler::EndArray(unsigned) {
  if (state_ == State::kSkip) {
    if (--skip_depth_ == 0) state_ = State::kEntry;
    return true;
  }
  if (state_ == State::kOffsetItems && offset_count_ != 2) {
    return Malformed(absl::StrCat(Subject(), " has ", offset_count_, " data_offsets, not 2"));
  }
  state_ = State::kEntry;
  return true;
}

bool HeaderHandler::Scalar(absl::string_view what) {
  if (state_ != State::kSkip) return Wrong(what);
  if (skip_depth_ == 0) state_ = State::kEntry;
  return true;
}

bool HeaderHandler::Dimension(absl::string_view digits) {
  std::vector<int64_t>& shape = entries_.back().tensor.shape;
  if (shape.size() == kMaxRank) {
    return Fail(absl::ResourceExhaustedError(
        absl::StrCat(Subject(), " has more than ", kMaxRank, " dimensions, which is the limit")));
  }
  uint64_t value = 0;
  if (!ParseSize(digits, &value)) {
    return Malformed(
        absl::StrCat(Subject(), " has the dimension ", Quoted(digits), ", not a size in the range of 64 bits"));
  }
  if (value > static_cast<uint64_t>(kMaxDim)) {
    return Fail(absl::ResourceExhaustedError(
        absl::StrCat(Subject(), " has the dimension ", value, "; at most ", kMaxDim, " is accepted")));
  }
  shape.push_back(static_cast<int64_t>(value));
  return true;
}

bool HeaderHandler::Offset(absl::string_view digits) {
  if (offset_count_ == 2) return Malformed(absl::StrCat(Subject(), " has more than 2 data_offsets"));
  HeaderEntry& entry = entries_.back();
  uint64_t& offset = offset_count_++ == 0 ? entry.begin : entry.end;
  if (ParseSize(digits, &offset)) return true;
  return Malformed(
      absl::StrCat(Subject(), " has the data offset ", Quoted(digits), ", not a size in the range of 64 bits"));
}

bool HeaderHandler::Wrong(absl::string_view found) {
  switch (state_) {
    case State::kStart: return Malformed(absl::StrCat("the header is ", found, ", not an object"));
    case State::kMetadataValue: return Malformed(absl::StrCat("__metadata__ is ", found, ", not an object"));
    case State::kMetadata: return Malformed(absl::StrCat("a value in __metadata__ is ", found, ", not a string"));
    case State::kEntryValue: return Malformed(absl::StrCat(Subject(), " is ", found, ", not an object"));
    case State::kDtype: return Malformed(absl::StrCat(Subject(), ": dtype is ", found, ", not a string"));
    case State::kShape: return Malformed(absl::StrCat(Subject(), ": shape is ", found, ", not an array"));
    case State::kOffsets: return Malformed(absl::StrCat(Subject(), ": data_offsets is ", found, ", not an array"));
    case State::kShapeItems: return Malformed(absl::StrCat(Subject(), ": a dimension is ", found, ", not a number"));
    case State::kOffsetItems: return Malformed(absl::StrCat(Subject(), ": a data offset is ", found, ", not a number"));
    default: return Malformed(absl::StrCat("unexpectedly ", found));
  }
}

bool HeaderHandler::Fail(absl::Status status) {
  status_ = std::move(status);
  return false;
}

bool HeaderHandler::Malformed(absl::string_view why) {
  return Fail(absl::DataLossError(absl::StrCat("the header is malformed: ", why)));
}

std::string HeaderHandler::Subject() const {
  return entries_.empty() ? "the header" : absl::StrCat("tensor ", Quoted(entries_.back().tensor.name));
}

}  // namespace autoscheme
