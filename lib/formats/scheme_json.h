// Schemes as JSON: the twelve fields under the reference's names.
#pragma once

#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "autoscheme/scheme.h"
#include "base/json.h"

namespace autoscheme {

// A preset's name, or an object: "scheme" (a preset to start from; without it a 4-bit symmetric int with groups of
// 128), "name", and any of the twelve fields, which override; null is unset. Gaps are filled by docs/algorithm.md 3.2,
// so the result has every act_* field; a GGUF preset ignores overrides. rotation_config may only be null or {}. `what`
// names the source in messages. INVALID_ARGUMENT names the field and what it may be.
absl::StatusOr<Scheme> SchemeFromJson(const JsonValue& value, const std::string& what);

// A list of the above, without duplicates (docs/algorithm.md 3.3); also an object {"name": {...}, ...} of named ones.
absl::StatusOr<std::vector<Scheme>> SchemesFromJson(const JsonValue& value, const std::string& what);

// The fields alone, as they stand: no defaults, no checks beyond types. Unknown members are left alone.
absl::Status ReadSchemeFields(const JsonValue& object, const std::string& what, Scheme* scheme);

// Fills unset fields as the reference does for schemes that a user gives as an object (docs/algorithm.md 3.2).
absl::Status ResolveScheme(Scheme* scheme);

// Writes the fields that are set as members of the object that the writer is in: "bits": 4, "group_size": 128 or
// [rows, cols], ... Neither the name nor the braces.
void WriteSchemeFields(const Scheme& scheme, rapidjson::Writer<rapidjson::StringBuffer>* writer);
// {"bits":4,...}
std::string SchemeToJson(const Scheme& scheme);

}  // namespace autoscheme
