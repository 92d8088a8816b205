// How both files are written: two-space indent, one layer on one line, shortest doubles that read back to the same
// value.
#pragma once

#include <rapidjson/prettywriter.h>
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "base/json.h"
#include "base/utf8.h"

namespace autoscheme {

using LineWriter = rapidjson::Writer<rapidjson::StringBuffer>;        // all on one line
using PageWriter = rapidjson::PrettyWriter<rapidjson::StringBuffer>;  // a line for every member

// The number as text. JSON has no NaN or infinity: those come as the strings "NaN", "Infinity" and "-Infinity".
std::string DoubleToJson(double value);

template <typename Writer>
void PutString(Writer* writer, absl::string_view text) {
  const std::string utf8 = ToUtf8(text);
  writer->String(utf8.data(), static_cast<rapidjson::SizeType>(utf8.size()));
}
template <typename Writer>
void PutKey(Writer* writer, absl::string_view text) {
  const std::string utf8 = ToUtf8(text);
  writer->Key(utf8.data(), static_cast<rapidjson::SizeType>(utf8.size()));
}
template <typename Writer>
void PutDouble(Writer* writer, double value) {
  const std::string text = DoubleToJson(value);
  writer->RawValue(text.data(), text.size(), rapidjson::kNumberType);
}

// Members of an object that are numbers.
template <typename Writer>
void PutDoubles(Writer* writer, std::initializer_list<std::pair<const char*, double>> members) {
  for (const auto& [key, value] : members) {
    writer->Key(key);
    PutDouble(writer, value);
  }
}

// A whole file: its name of format and version, then the members that `fill` writes.
template <typename Fill>
std::string JsonFile(const char* format, const Fill& fill) {
  rapidjson::StringBuffer buffer;
  PageWriter page(buffer);
  page.SetIndent(' ', 2);
  page.StartObject();
  page.Key("format");
  page.String(format);
  page.Key("version");
  page.Int(1);
  fill(&page);
  page.EndObject();
  return std::string(buffer.GetString(), buffer.GetSize()) + "\n";
}

// An object or array that stays on one line of the page: what `fill` writes, braces included.
template <typename Fill>
void PutLine(PageWriter* page, rapidjson::Type type, const Fill& fill) {
  rapidjson::StringBuffer buffer;
  LineWriter line(buffer);
  fill(&line);
  page->RawValue(buffer.GetString(), buffer.GetSize(), type);
}

}  // namespace autoscheme
