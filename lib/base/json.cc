#include "base/json.h"

#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <cmath>
#include <limits>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/charconv.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/io.h"
#include "base/utf8.h"

namespace autoscheme {
namespace {

using rapidjson::SizeType;

constexpr size_t kMaxDepth = 64;

// Passes RapidJSON's events on to the document and stops at what RapidJSON would let through.
class StrictHandler {
 public:
  StrictHandler(Json& json, NonFiniteNumbers non_finite) : json_(json), non_finite_(non_finite) {}

  bool Null() { return json_.Null(); }
  bool Bool(bool b) { return json_.Bool(b); }
  // Numbers arrive as text (RawNumber), because conversion must be exact and know no locale.
  bool Int(int i) { return json_.Int(i); }
  bool Uint(unsigned i) { return json_.Uint(i); }
  bool Int64(int64_t i) { return json_.Int64(i); }
  bool Uint64(uint64_t i) { return json_.Uint64(i); }
  bool Double(double d) { return json_.Double(d); }

  bool RawNumber(const char* text, SizeType length, bool) {
    const absl::string_view number(text, length);
    if (absl::ascii_isalpha(static_cast<unsigned char>(number.back()))) return NotFinite(number);
    if (number.find_first_of(".eE") == absl::string_view::npos) {
      int64_t i;
      uint64_t u;
      if (absl::SimpleAtoi(number, &i)) return json_.Int64(i);
      if (absl::SimpleAtoi(number, &u)) return json_.Uint64(u);
    }
    double value = 0;
    const absl::from_chars_result result = absl::from_chars(number.data(), number.data() + number.size(), value);
    // A result out of range is infinite or denormal; the latter is as near as a double can come.
    if (!std::isfinite(value) || (result.ec != std::errc() && result.ec != std::errc::result_out_of_range)) {
      return Stop(absl::StrCat("the number ", Quoted(number), " is out of the range of a double"));
    }
    return json_.Double(value);
  }

  bool String(const char* text, SizeType length, bool copy) {
    return CheckText(text, length) && json_.String(text, length, copy);
  }

  bool Key(const char* text, SizeType length, bool copy) {
    if (!CheckText(text, length)) return false;
    if (!keys_[objects_ - 1].emplace(text, length).second) {
      return Stop(absl::StrCat("duplicate key ", Quoted(absl::string_view(text, length))));
    }
    return json_.Key(text, length, copy);
  }

  bool StartObject() {
    if (!Enter() || !json_.StartObject()) return false;
    if (++objects_ > keys_.size()) keys_.emplace_back();
    return true;
  }
  bool EndObject(SizeType members) {
    keys_[--objects_].clear();
    --depth_;
    return json_.EndObject(members);
  }
  bool StartArray() { return Enter() && json_.StartArray(); }
  bool EndArray(SizeType elements) {
    --depth_;
    return json_.EndArray(elements);
  }

  const std::string& why() const { return why_; }

 private:
  bool NotFinite(absl::string_view number) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (non_finite_ == NonFiniteNumbers::kRefuse || absl::EndsWith(number, "Inf")) {
      return Stop(absl::StrCat(number, " is no number of JSON"));
    }
    if (absl::EndsWith(number, "NaN")) return json_.Double(std::numeric_limits<double>::quiet_NaN());
    return json_.Double(number[0] == '-' ? -kInfinity : kInfinity);
  }
  bool Stop(std::string why) {
    why_ = std::move(why);
    return false;
  }
  bool Enter() {
    if (++depth_ > kMaxDepth) return Stop(absl::StrCat("nested deeper than ", kMaxDepth, " levels"));
    return true;
  }
  // RapidJSON checks raw bytes, but lets a lone \udc00 through.
  bool CheckText(const char* text, SizeType length) {
    return IsValidUtf8(absl::string_view(text, length)) || Stop("an escape is half of a surrogate pair");
  }

  Json& json_;
  const NonFiniteNumbers non_finite_;
  std::string why_;
  size_t depth_ = 0;
  size_t objects_ = 0;                                  // how many are open
  std::vector<absl::flat_hash_set<std::string>> keys_;  // by open object; kept for reuse
};

absl::string_view TypeName(const JsonValue& value) {
  switch (value.GetType()) {
    case rapidjson::kNullType: return "null";
    case rapidjson::kFalseType:
    case rapidjson::kTrueType: return "a boolean";
    case rapidjson::kObjectType: return "an object";
    case rapidjson::kArrayType: return "an array";
    case rapidjson::kStringType: return "a string";
    case rapidjson::kNumberType: return "a number";
  }
  return "an unknown type";
}

// "line 3, column 14": lines and columns from 1, columns in characters, as editors count them.
std::string PlaceInText(absl::string_view text, size_t offset) {
  size_t line = 1, column = 1;
  for (const char c : text.substr(0, offset)) {
    const bool continues = (static_cast<unsigned char>(c) & 0xc0) == 0x80;  // not the first byte of a UTF-8 character
    if (c == '\n') {
      ++line, column = 1;
    } else if (!continues) {
      ++column;
    }
  }
  return absl::StrCat("line ", line, ", column ", column);
}

absl::Status NotJson(absl::string_view text, const std::string& what, absl::string_view why, size_t offset) {
  return absl::DataLossError(absl::StrCat(what, " is not valid JSON: ", why, " at ", PlaceInText(text, offset)));
}

// RapidJSON's words, made to stand within a sentence.
std::string ErrorText(rapidjson::ParseErrorCode code) {
  std::string text(absl::StripSuffix(rapidjson::GetParseError_En(code), "."));
  if (!text.empty()) text[0] = absl::ascii_tolower(static_cast<unsigned char>(text[0]));
  return text;
}

absl::Status Absent(const char* key, const std::string& what) {
  return absl::NotFoundError(absl::StrCat(what, " has no ", Quoted(key)));
}

absl::Status WrongType(const JsonValue& value, const char* key, const std::string& what, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(what, ": ", Quoted(key), " is ", TypeName(value), ", not ", wanted));
}

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text, const std::string& what, NonFiniteNumbers non_finite) {
  // RapidJSON takes a zero byte for the end of the text.
  if (const size_t nul = text.find('\0'); nul != absl::string_view::npos) return NotJson(text, what, "a NUL byte", nul);
  if (absl::StartsWith(text, "\xef\xbb\xbf")) {
    return NotJson(text, what, "a byte order mark (save it as UTF-8 without one)", 0);
  }
  constexpr unsigned kFlags = rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag |
                              rapidjson::kParseNumbersAsStringsFlag | rapidjson::kParseNanAndInfFlag;
  Json json;
  StrictHandler handler(json, non_finite);
  rapidjson::MemoryStream stream(text.data(), text.size());
  rapidjson::Reader reader;
  rapidjson::ParseResult result;
  auto parse = [&](rapidjson::Document&) {
    result = reader.Parse<kFlags>(stream, handler);
    return !result.IsError();
  };
  json.Populate(parse);
  if (result.IsError()) {
    return NotJson(text, what, handler.why().empty() ? ErrorText(result.Code()) : handler.why(), result.Offset());
  }
  return json;
}

const JsonValue* JsonFind(const JsonValue& object, absl::string_view key) {
  if (!object.IsObject()) return nullptr;
  const auto member = object.FindMember(JsonValue(rapidjson::StringRef(key.data(), static_cast<SizeType>(key.size()))));
  if (member == object.MemberEnd() || member->value.IsNull()) return nullptr;
  return &member->value;
}

absl::StatusOr<int64_t> JsonInt(const JsonValue& object, const char* key, const std::string& what) {
  const JsonValue* value = JsonFind(object, key);
  if (value == nullptr) return Absent(key, what);
  if (!value->IsNumber()) return WrongType(*value, key, what, "an integer");
  if (value->IsInt64()) return value->GetInt64();
  const double number = value->GetDouble();
  // 2^63 itself does not fit. A double beyond 2^53 may already have been rounded.
  if (value->IsDouble() && std::abs(number) <= 9007199254740992.0 && number == std::trunc(number)) {
    return static_cast<int64_t>(number);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", Quoted(key), " is ", number, ", not an integer in the range of 64 bits"));
}

absl::StatusOr<double> JsonDouble(const JsonValue& object, const char* key, const std::string& what) {
  const JsonValue* value = JsonFind(object, key);
  if (value == nullptr) return Absent(key, what);
  if (!value->IsNumber()) return WrongType(*value, key, what, "a number");
  const double number = value->GetDouble();
  if (!std::isfinite(number)) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", Quoted(key), " is ", number, ", not a finite number"));
  }
  return number;
}

absl::StatusOr<bool> JsonBool(const JsonValue& object, const char* key, const std::string& what) {
  const JsonValue* value = JsonFind(object, key);
  if (value == nullptr) return Absent(key, what);
  if (!value->IsBool()) return WrongType(*value, key, what, "a boolean");
  return value->GetBool();
}

absl::StatusOr<std::string> JsonString(const JsonValue& object, const char* key, const std::string& what) {
  const JsonValue* value = JsonFind(object, key);
  if (value == nullptr) return Absent(key, what);
  if (!value->IsString()) return WrongType(*value, key, what, "a string");
  return std::string(JsonText(*value));
}

absl::StatusOr<int64_t> JsonIntOr(const JsonValue& object, const char* key, int64_t fallback, const std::string& what) {
  return JsonFind(object, key) == nullptr ? fallback : JsonInt(object, key, what);
}

absl::StatusOr<double> JsonDoubleOr(const JsonValue& object, const char* key, double fallback,
                                    const std::string& what) {
  return JsonFind(object, key) == nullptr ? fallback : JsonDouble(object, key, what);
}

absl::StatusOr<bool> JsonBoolOr(const JsonValue& object, const char* key, bool fallback, const std::string& what) {
  return JsonFind(object, key) == nullptr ? fallback : JsonBool(object, key, what);
}

absl::StatusOr<std::string> JsonStringOr(const JsonValue& object, const char* key, std::string fallback,
                                         const std::string& what) {
  return JsonFind(object, key) == nullptr ? std::move(fallback) : JsonString(object, key, what);
}

}  // namespace autoscheme
