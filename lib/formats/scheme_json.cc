#include "formats/scheme_json.h"

#include <limits>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "formats/data_types.h"

namespace autoscheme {
namespace {

using Writer = rapidjson::Writer<rapidjson::StringBuffer>;

// field(key, member) for each field of a scheme, const or not.
template <typename AnyScheme, typename Field>
void ForEachField(AnyScheme& s, const Field& field) {
  field("bits", s.bits);
  field("group_size", s.group);
  field("sym", s.sym);
  field("data_type", s.data_type);
  field("act_bits", s.act_bits);
  field("act_group_size", s.act_group);
  field("act_sym", s.act_sym);
  field("act_data_type", s.act_data_type);
  field("act_dynamic", s.act_dynamic);
  field("super_bits", s.super_bits);
  field("super_group_size", s.super_group_size);
}

absl::Status Read(const JsonValue& object, const char* key, const std::string& what, bool* value) {
  AUTOSCHEME_ASSIGN_OR_RETURN(*value, JsonBool(object, key, what));
  return absl::OkStatus();
}

absl::Status Read(const JsonValue& object, const char* key, const std::string& what, std::string* value) {
  AUTOSCHEME_ASSIGN_OR_RETURN(*value, JsonString(object, key, what));
  return absl::OkStatus();
}

absl::Status Read(const JsonValue& object, const char* key, const std::string& what, int* value) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t read, JsonInt(object, key, what));
  if (read < std::numeric_limits<int>::min() || read > std::numeric_limits<int>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", key, " is ", read, ", which is out of range"));
  }
  *value = static_cast<int>(read);
  return absl::OkStatus();
}

absl::Status Read(const JsonValue& object, const char* key, const std::string& what, GroupSize* group) {
  const JsonValue& value = *JsonFind(object, key);
  *group = GroupSize{0, 0};
  if (!value.IsArray()) return Read(object, key, what, &group->size);
  if (value.Size() != 2 || !value[0].IsInt() || !value[1].IsInt() || value[0].GetInt() <= 0 || value[1].GetInt() <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", key, " as a list must be two positive integers, [rows, columns]"));
  }
  *group = GroupSize{value[1].GetInt(), value[0].GetInt()};
  return absl::OkStatus();
}

template <typename Value>
absl::Status Read(const JsonValue& object, const char* key, const std::string& what, std::optional<Value>* value) {
  return Read(object, key, what, &value->emplace());
}

void Write(bool value, Writer* writer) { writer->Bool(value); }
void Write(int value, Writer* writer) { writer->Int(value); }
void Write(const std::string& value, Writer* writer) { writer->String(value); }
void Write(const GroupSize& group, Writer* writer) {
  if (group.rows == 0) {
    writer->Int(group.size);
    return;
  }
  writer->StartArray();
  writer->Int(group.rows);
  writer->Int(group.size);
  writer->EndArray();
}

template <typename Value>
void WriteField(const char* key, const Value& value, Writer* writer) {
  writer->Key(key);
  Write(value, writer);
}
template <typename Value>
void WriteField(const char* key, const std::optional<Value>& value, Writer* writer) {
  if (value.has_value()) WriteField(key, *value, writer);
}

// "mx_fp4" -> "mx_fp" with 4 bits (docs/algorithm.md 3.2); a name that goes on after its digits keeps them.
void ReconcileBits(std::string* data_type, int* bits) {
  for (const DataType& type : DataTypes()) {
    absl::string_view rest = *data_type;
    if (!type.Has(DataType::kFamily) || !absl::ConsumePrefix(&rest, type.name)) continue;
    if (rest.empty() || !absl::ascii_isdigit(static_cast<unsigned char>(rest[0]))) continue;
    *bits = absl::StartsWith(rest, "16") ? 16 : rest[0] - '0';
    if (rest == absl::StrCat(*bits)) *data_type = type.name;
    return;
  }
}

absl::Status CheckMembers(const JsonValue& object, const std::string& what) {
  std::vector<absl::string_view> known = {"name", "scheme"};
  const Scheme any;
  ForEachField(any, [&](const char* key, const auto&) { known.push_back(key); });
  known.push_back("rotation_config");
  for (const auto& member : object.GetObject()) {
    const absl::string_view key = JsonText(member.name);
    if (absl::c_linear_search(known, key)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": unknown field ", Quoted(key), "; a scheme may have ", absl::StrJoin(known, ", ")));
  }
  const JsonValue* rotation = JsonFind(object, "rotation_config");
  if (rotation != nullptr && !(rotation->IsObject() && rotation->ObjectEmpty())) {
    return absl::UnimplementedError(absl::StrCat(what, ": rotation_config is set; rotations are not supported"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Scheme> SchemeFromJson(const JsonValue& value, const std::string& what) {
  const auto find = [&](absl::string_view preset) -> absl::StatusOr<Scheme> {
    absl::StatusOr<Scheme> found = FindScheme(preset);
    if (found.ok()) return found;
    return absl::Status(found.status().code(), absl::StrCat(what, ": ", found.status().message()));
  };
  if (value.IsString()) return find(JsonText(value));
  if (!value.IsObject()) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": a scheme is a preset's name or an object"));
  }
  AUTOSCHEME_RETURN_IF_ERROR(CheckMembers(value, what));
  if (value.MemberCount() == (JsonFind(value, "name") != nullptr ? 1u : 0u)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": the object is empty: give a preset's name, or fields as {\"bits\": 8}"));
  }
  Scheme scheme;
  const bool from_preset = JsonFind(value, "scheme") != nullptr;
  if (from_preset) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const std::string preset, JsonString(value, "scheme", what));
    AUTOSCHEME_ASSIGN_OR_RETURN(scheme, find(preset));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string name, JsonStringOr(value, "name", "", what));
  if (!HasGgufName(scheme)) {
    const Scheme preset = scheme;
    AUTOSCHEME_RETURN_IF_ERROR(ReadSchemeFields(value, what, &scheme));
    if (from_preset && SameScheme(preset, scheme)) {
      scheme = preset;  // with its unset fields and its name
    } else {
      scheme.name.clear();
      AUTOSCHEME_RETURN_IF_ERROR(ResolveScheme(&scheme));
    }
  }
  if (!name.empty()) scheme.name = name;
  if (scheme.name.empty()) scheme.name = SchemeToJson(scheme);
  AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(scheme));
  return scheme;
}

absl::StatusOr<std::vector<Scheme>> SchemesFromJson(const JsonValue& value, const std::string& what) {
  std::vector<Scheme> schemes;
  const auto add = [&](Scheme scheme) {
    for (const Scheme& earlier : schemes) {
      if (SameScheme(earlier, scheme)) return;
    }
    schemes.push_back(std::move(scheme));
  };
  if (value.IsArray()) {
    for (rapidjson::SizeType i = 0; i < value.Size(); ++i) {
      AUTOSCHEME_ASSIGN_OR_RETURN(Scheme scheme, SchemeFromJson(value[i], absl::StrCat(what, "[", i, "]")));
      add(std::move(scheme));
    }
  } else if (value.IsObject()) {
    for (const auto& member : value.GetObject()) {
      const std::string name(JsonText(member.name));
      AUTOSCHEME_ASSIGN_OR_RETURN(Scheme scheme, SchemeFromJson(member.value, absl::StrCat(what, ": ", Quoted(name))));
      scheme.name = name;
      add(std::move(scheme));
    }
  } else {
    return absl::InvalidArgumentError(absl::StrCat(what, ": schemes are a list, or an object of named ones"));
  }
  if (schemes.empty()) return absl::InvalidArgumentError(absl::StrCat(what, ": holds no scheme"));
  for (size_t i = 0; i < schemes.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (schemes[i].name == schemes[j].name) {
        return absl::InvalidArgumentError(
            absl::StrCat(what, ": two different schemes are called ", Quoted(schemes[i].name)));
      }
    }
  }
  return schemes;
}

absl::Status ReadSchemeFields(const JsonValue& object, const std::string& what, Scheme* scheme) {
  absl::Status status;
  ForEachField(*scheme, [&](const char* key, auto& field) {
    if (status.ok() && JsonFind(object, key) != nullptr) status = Read(object, key, what, &field);
  });
  return status;
}

absl::Status ResolveScheme(Scheme* scheme) {
  const bool k_quant = absl::c_any_of(
      DataTypes(), [&](const DataType& type) { return type.super.groups > 0 && type.name == scheme->data_type; });
  if (k_quant && !HasGgufName(*scheme)) {
    for (const Scheme& preset : SchemeCatalogue()) {
      if (!IsKQuant(preset) || preset.bits != scheme->bits) continue;
      *scheme = preset;
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat("scheme ", Quoted(scheme->name), ": bits is ", scheme->bits,
                                                   "; with data_type ", scheme->data_type, " it may be 2 to 6"));
  }
  ReconcileBits(&scheme->data_type, &scheme->bits);
  if (scheme->act_data_type.has_value()) {
    int act_bits = scheme->act_bits.value_or(0);
    ReconcileBits(&*scheme->act_data_type, &act_bits);
    scheme->act_bits = act_bits;
  }
  if (!scheme->act_dynamic.has_value()) scheme->act_dynamic = true;
  if (!scheme->act_group.has_value()) scheme->act_group = scheme->group;
  if (scheme->act_bits.value_or(0) == 0) scheme->act_bits = 16;
  if (!scheme->act_sym.has_value()) scheme->act_sym = scheme->sym;
  if (!scheme->act_data_type.has_value()) {
    const bool shared = *scheme->act_bits < 16 && absl::c_any_of(DataTypes(), [&](const DataType& type) {
      return type.Has(DataType::kFamily) && type.name == scheme->data_type;
    });
    scheme->act_data_type = shared ? scheme->data_type : "float";
  }
  return absl::OkStatus();
}

void WriteSchemeFields(const Scheme& scheme, Writer* writer) {
  ForEachField(scheme, [&](const char* key, const auto& field) { WriteField(key, field, writer); });
}

std::string SchemeToJson(const Scheme& scheme) {
  rapidjson::StringBuffer buffer;
  Writer writer(buffer);
  writer.StartObject();
  WriteSchemeFields(scheme, &writer);
  writer.EndObject();
  return std::string(buffer.GetString(), buffer.GetSize());
}

}  // namespace autoscheme
