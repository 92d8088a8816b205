#include "checkpoint/calibration_json.h"

#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "checkpoint/token_rows.h"

namespace autoscheme {
namespace {

// What a file holds under one name, row by row.
struct Column {
  std::string name;
  std::vector<const JsonValue*> rows;  // null where a row lacks it
  bool is_list = true;                 // else there are no rows
};

absl::StatusOr<std::vector<Column>> Columns(const JsonValue& json, const std::string& path);
absl::StatusOr<Calibration> ReadIds(const Column& column, const std::string& path);
absl::Status CheckCompanion(const Column& column, const std::string& path, const Calibration& calibration,
                            const CalibrationPart& part);
absl::Status NoIds(const std::vector<Column>& columns, const std::string& path);

absl::Status Refused(const std::string& path, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(Quoted(path), problem, "; ", kAcceptedTokens));
}

}  // namespace

absl::StatusOr<Calibration> CalibrationFromJson(const JsonValue& json, const std::string& path,
                                                const CalibrationPart& part, const Context& context) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::vector<Column> columns, Columns(json, path));
  const Column* ids = nullptr;
  for (const Column& column : columns) {
    if (column.name == "input_ids") ids = &column;
  }
  if (ids == nullptr) return NoIds(columns, path);
  AUTOSCHEME_ASSIGN_OR_RETURN(Calibration calibration, ReadIds(*ids, path));
  std::vector<std::string> unused;
  for (const Column& column : columns) {
    if (CompanionCheck::Knows(column.name)) {
      AUTOSCHEME_RETURN_IF_ERROR(CheckCompanion(column, path, calibration, part));
    } else if (&column != ids) {
      unused.push_back(column.name);
    }
  }
  WarnOfUnused(context, path, unused);
  return calibration;
}

bool IsJsonLines(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  const size_t end = text.find('\n');
  return end != absl::string_view::npos && (text[0] == '{' || text[0] == '[') &&
         ParseJson(text.substr(0, end), "").ok();
}

namespace {

absl::StatusOr<std::vector<Column>> Columns(const JsonValue& json, const std::string& path) {
  std::vector<Column> columns;
  if (json.IsObject()) {
    for (const auto& member : json.GetObject()) {
      if (member.value.IsNull()) continue;
      Column column{std::string(JsonText(member.name)), {}, member.value.IsArray()};
      if (column.is_list) {
        for (const JsonValue& row : member.value.GetArray()) column.rows.push_back(&row);
      }
      columns.push_back(std::move(column));
    }
    return columns;
  }
  if (!json.IsArray())
    return Refused(path, " is neither a list of lists of token ids nor an object whose \"input_ids\" is one");
  if (json.Empty() || !json[0].IsObject()) {
    columns.push_back({"input_ids", {}, true});
    for (const JsonValue& row : json.GetArray()) columns[0].rows.push_back(&row);
    return columns;
  }
  absl::flat_hash_map<std::string, size_t> index;
  for (rapidjson::SizeType row = 0; row < json.Size(); ++row) {
    if (!json[row].IsObject()) return Refused(path, absl::StrCat(": row ", row, " is not an object, as row 0 is"));
    for (const auto& member : json[row].GetObject()) {
      if (member.value.IsNull()) continue;
      const auto [at, is_new] = index.try_emplace(std::string(JsonText(member.name)), columns.size());
      if (is_new) columns.push_back({at->first, {}, true});
      columns[at->second].rows.resize(row, nullptr);
      columns[at->second].rows.push_back(&member.value);
    }
  }
  for (Column& column : columns) column.rows.resize(json.Size(), nullptr);
  return columns;
}

absl::Status NoIds(const std::vector<Column>& columns, const std::string& path) {
  std::string found;
  for (const Column& column : columns) {
    if (found.size() > 100) break;
    absl::StrAppend(&found, found.empty() ? ", but " : ", ", Quoted(column.name));
  }
  return Refused(path, absl::StrCat(" has no \"input_ids\"", found));
}

// 77.0 is 77. Beyond 2^53 a double may already have been rounded.
std::optional<int64_t> WholeNumber(const JsonValue& value) {
  if (value.IsInt64()) return value.GetInt64();
  if (!value.IsDouble()) return std::nullopt;
  const double number = value.GetDouble();
  if (std::abs(number) > 9007199254740992.0 || number != std::trunc(number)) return std::nullopt;
  return static_cast<int64_t>(number);
}

std::string Found(const JsonValue& value) {
  if (const std::optional<int64_t> whole = WholeNumber(value)) return absl::StrCat(*whole);
  if (value.IsNumber()) return absl::StrCat(value.GetDouble());
  return "not a number";
}

// Shape of nested lists, by the first of each.
std::vector<int64_t> ShapeOf(const Column& column) {
  std::vector<int64_t> shape = {static_cast<int64_t>(column.rows.size())};
  for (const JsonValue* list = column.rows[0]; list != nullptr && list->IsArray(); list = &(*list)[0]) {
    shape.push_back(list->Size());
    if (list->Empty()) break;
  }
  return shape;
}

absl::StatusOr<Calibration> ReadIds(const Column& column, const std::string& path) {
  if (!column.is_list) return Refused(path, ": \"input_ids\" is not a list");
  if (column.rows.empty()) return absl::InvalidArgumentError(absl::StrCat(Quoted(path), " holds no rows of token ids"));
  const JsonValue* first = column.rows[0];
  if (first != nullptr && first->IsNumber()) return BadTokenShape(path, ShapeOf(column));
  if (first != nullptr && first->IsArray() && !first->Empty() && (*first)[0].IsArray())
    return BadTokenShape(path, ShapeOf(column));
  if (first != nullptr && first->IsString())
    return Refused(path, " holds text, not token ids: encode it with the model's tokenizer");

  Calibration calibration;
  for (const JsonValue* row : column.rows) {
    const int64_t number = calibration.nsamples++;
    if (row == nullptr || !row->IsArray() || row->Empty()) {
      return absl::InvalidArgumentError(absl::StrCat(Quoted(path), ": row ", number,
                                                     row == nullptr   ? " has no \"input_ids\""
                                                     : row->IsArray() ? " is empty"
                                                                      : " is not a list of token ids"));
    }
    if (number == 0) {
      calibration.seqlen = row->Size();
      calibration.ids.reserve(column.rows.size() * row->Size());
    }
    if (row->Size() != calibration.seqlen) {
      return absl::InvalidArgumentError(absl::StrCat(Quoted(path), ": row ", number, " has ", row->Size(),
                                                     " token ids, row 0 has ", calibration.seqlen,
                                                     "; all rows must be equally long"));
    }
    int64_t at = 0;
    for (const JsonValue& value : row->GetArray()) {
      const std::optional<int64_t> id = WholeNumber(value);
      if (!id.has_value() || *id < 0 || *id > std::numeric_limits<int32_t>::max()) {
        return BadTokenId(path, number, at, Found(value));
      }
      calibration.ids.push_back(static_cast<int32_t>(*id));
      ++at;
    }
  }
  return calibration;
}

absl::Status CheckCompanion(const Column& column, const std::string& path, const Calibration& calibration,
                            const CalibrationPart& part) {
  CompanionCheck check(path, column.name, calibration, part);
  if (!column.is_list) return check.BadShape("no rows");
  if (static_cast<int64_t>(column.rows.size()) != calibration.nsamples)
    return check.BadShape(absl::StrCat(column.rows.size(), " rows"));
  for (int64_t number = 0; number < calibration.nsamples; ++number) {
    const JsonValue* row = column.rows[number];
    if (row == nullptr) continue;
    if (!row->IsArray()) return check.BadShape(absl::StrCat("no list at row ", number));
    if (row->Size() != calibration.seqlen) return check.BadShape(absl::StrCat(row->Size(), " values in row ", number));
    int64_t at = 0;
    for (const JsonValue& value : row->GetArray()) {
      if (!value.IsNumber() && !value.IsBool())
        return check.BadShape(absl::StrCat("no number at row ", number, ", column ", at));
      check.See(number, at, value.IsBool() ? (value.GetBool() ? 1 : 0) : value.GetDouble());
      ++at;
    }
  }
  return check.Finish();
}

}  // namespace
}  // namespace autoscheme
