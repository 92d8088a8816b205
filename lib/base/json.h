// Strict JSON for everything we read: RapidJSON with the limits that hostile files call for.
#pragma once

#include <rapidjson/document.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autoscheme {

// A name of its own, so that public headers can declare it without RapidJSON.
struct Json : rapidjson::Document {
  using rapidjson::Document::Document;
};
using JsonValue = rapidjson::Value;

// Python writes NaN, Infinity and -Infinity as they stand, which JSON does not know.
enum class NonFiniteNumbers {
  kRefuse,
  kRead,  // for files in which such numbers may stand under keys that nobody uses; the accessors below still refuse
          // them
};

// Parses exactly one value: UTF-8 checked, no comments or trailing commas, depth at most 64, no duplicate keys in any
// object (compared after unescaping). `what` names the source in messages ("config.json of ...").
// Errors: DATA_LOSS with line and column. Whitespace around the value is fine.
absl::StatusOr<Json> ParseJson(absl::string_view text, const std::string& what,
                               NonFiniteNumbers non_finite = NonFiniteNumbers::kRefuse);

// Typed access to a member of an object, with messages that name `what`, the key, the type found and the type wanted.
// Absent or null: NOT_FOUND for the first form, `fallback` for the second. Wrong type: INVALID_ARGUMENT.
// Integers may be written 4096.0. Numbers must be finite.
absl::StatusOr<int64_t> JsonInt(const JsonValue& object, const char* key, const std::string& what);
absl::StatusOr<double> JsonDouble(const JsonValue& object, const char* key, const std::string& what);
absl::StatusOr<bool> JsonBool(const JsonValue& object, const char* key, const std::string& what);
absl::StatusOr<std::string> JsonString(const JsonValue& object, const char* key, const std::string& what);
absl::StatusOr<int64_t> JsonIntOr(const JsonValue& object, const char* key, int64_t fallback, const std::string& what);
absl::StatusOr<double> JsonDoubleOr(const JsonValue& object, const char* key, double fallback, const std::string& what);
absl::StatusOr<bool> JsonBoolOr(const JsonValue& object, const char* key, bool fallback, const std::string& what);
absl::StatusOr<std::string> JsonStringOr(const JsonValue& object, const char* key, std::string fallback,
                                         const std::string& what);
// The characters of a string, the name of a member too; NULs may be among them. Borrowed from `text`.
inline absl::string_view JsonText(const JsonValue& text) { return {text.GetString(), text.GetStringLength()}; }
// The member, or null when absent or JSON null.
const JsonValue* JsonFind(const JsonValue& object, absl::string_view key);

}  // namespace autoscheme
