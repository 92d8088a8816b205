#include "formats/scheme_json.h"

#include <limits>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "formats/bits.h"

namespace autoscheme {
namespace {

using Writer = rapidjson::Writer<rapidjson::StringBuffer>;

constexpr absl::string_view kMembers[] = {
    "name",           "scheme",  "bits",          "group_size",  "sym",        "data_type",        "act_bits",
    "act_group_size", "act_sym", "act_data_type", "act_dynamic", "super_bits", "super_group_size", "rotation_config"};

absl::StatusOr<int> SmallInt(const JsonValue& object, const char* key, const std::string& what) {
  AUTOSCHEME_ASSIGN_OR_RETURN(int64_t value, JsonInt(object, key, what));
  if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", key, " is ", value, ", which is out of range"));
  }
  return static_cast<int>(value);
}

absl::StatusOr<GroupSize> ReadGroup(const JsonValue& object, const char* key, const std::string& what) {
  const JsonValue& value = *JsonFind(object, key);
  if (!value.IsArray()) {
    AUTOSCHEME_ASSIGN_OR_RETURN(int size, SmallInt(object, key, what));
    return GroupSize{size, 0};
  }
  if (value.Size() != 2 || !value[0].IsInt() || !value[1].IsInt() || value[0].GetInt() <= 0 || value[1].GetInt() <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", key, " as a list must be two positive integers, [rows, columns]"));
  }
  return GroupSize{value[1].GetInt(), value[0].GetInt()};
}

// Leaves `field` alone when the member is absent or null.
template <typename Reader, typename Field>
absl::Status ReadField(const JsonValue& object, const char* key, const std::string& what, Reader read, Field* field) {
  if (JsonFind(object, key) == nullptr) return absl::OkStatus();
  auto value = read(object, key, what);
  if (!value.ok()) return value.status();
  *field = *std::move(value);
  return absl::OkStatus();
}

// The digits of "mx_fp4", "fp8_e4m3", "int8" (docs/algorithm.md 3.2): the first after a known family, or 16.
std::optional<int> BitsInName(absl::string_view data_type) {
  for (absl::string_view family : {"int", "mx_fp", "mx_int", "nv_fp", "fp"}) {
    if (!absl::StartsWith(data_type, family)) continue;
    const absl::string_view rest = data_type.substr(family.size());
    if (absl::StartsWith(rest, "16")) return 16;
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
  }
  return std::nullopt;
}

// "mx_fp4" -> "mx_fp" with 4 bits; a name that goes on after its digits keeps them.
void ReconcileBits(std::string* data_type, int* bits) {
  const std::optional<int> digits = BitsInName(*data_type);
  if (!digits.has_value()) return;
  *bits = *digits;
  const std::string suffix = absl::StrCat(*digits);
  for (absl::string_view family : {"int", "mx_fp", "mx_int", "nv_fp", "fp"}) {
    if (*data_type == absl::StrCat(family, suffix)) {
      data_type->resize(family.size());
      return;
    }
  }
}

void WriteGroup(const GroupSize& group, Writer* writer) {
  if (group.rows == 0) {
    writer->Int(group.size);
    return;
  }
  writer->StartArray();
  writer->Int(group.rows);
  writer->Int(group.size);
  writer->EndArray();
}

absl::Status CheckMembers(const JsonValue& object, const std::string& what) {
  for (const auto& member : object.GetObject()) {
    const absl::string_view key(member.name.GetString(), member.name.GetStringLength());
    if (absl::c_linear_search(kMembers, key)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": unknown field ", Quoted(key), "; a scheme may have ", absl::StrJoin(kMembers, ", ")));
  }
  const JsonValue* rotation = JsonFind(object, "rotation_config");
  if (rotation != nullptr && !(rotation->IsObject() && rotation->ObjectEmpty())) {
    return absl::UnimplementedError(absl::StrCat(what, ": rotation_config is set; rotations are not supported"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Scheme> SchemeFromJson(const JsonValue& value, const std::string& what) {
  if (value.IsString()) return FindScheme(absl::string_view(value.GetString(), value.GetStringLength()));
  if (!value.IsObject()) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": a scheme is a preset's name or an object"));
  }
  AUTOSCHEME_RETURN_IF_ERROR(CheckMembers(value, what));
  Scheme scheme;
  const bool from_preset = JsonFind(value, "scheme") != nullptr;
  if (from_preset) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const std::string preset, JsonString(value, "scheme", what));
    AUTOSCHEME_ASSIGN_OR_RETURN(scheme, FindScheme(preset));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string name, JsonStringOr(value, "name", "", what));
  const bool gguf = absl::StartsWith(scheme.name, "GGUF:");
  if (!gguf) {
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
      const std::string name(member.name.GetString(), member.name.GetStringLength());
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
  AUTOSCHEME_RETURN_IF_ERROR(ReadField(object, "bits", what, SmallInt, &scheme->bits));
  AUTOSCHEME_RETURN_IF_ERROR(ReadField(object, "group_size", what, ReadGroup, &scheme->group));
  AUTOSCHEME_RETURN_IF_ERROR(ReadField(object, "sym", what, JsonBool, &scheme->sym));
  AUTOSCHEME_RETURN_IF_ERROR(ReadField(object, "data_type", what, JsonString, &scheme->data_type));
  AUTOSCHEME_RETURN_IF_ERROR(ReadField(object, "act_bits", what, SmallInt, &scheme->act_bits));
  AUTOSCHEME_RETURN_IF_ERROR(ReadField(object, "act_group_size", what, ReadGroup, &scheme->act_group));
  AUTOSCHEME_RETURN_IF_ERROR(ReadField(object, "act_sym", what, JsonBool, &scheme->act_sym));
  AUTOSCHEME_RETURN_IF_ERROR(ReadField(object, "act_data_type", what, JsonString, &scheme->act_data_type));
  AUTOSCHEME_RETURN_IF_ERROR(ReadField(object, "act_dynamic", what, JsonBool, &scheme->act_dynamic));
  AUTOSCHEME_RETURN_IF_ERROR(ReadField(object, "super_bits", what, SmallInt, &scheme->super_bits));
  return ReadField(object, "super_group_size", what, SmallInt, &scheme->super_group_size);
}

absl::Status ResolveScheme(Scheme* scheme) {
  if (absl::EndsWith(scheme->data_type, "_dq") && !absl::StartsWith(scheme->name, "GGUF:")) {
    const bool single = scheme->bits == 6;
    absl::StatusOr<Scheme> k_type = FindScheme(absl::StrCat("GGUF:Q", scheme->bits, single ? "_K" : "_K_S"));
    if (!k_type.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("scheme ", Quoted(scheme->name), ": bits is ", scheme->bits,
                                                     "; with data_type ", scheme->data_type, " it may be 2 to 6"));
    }
    *scheme = *std::move(k_type);
    return absl::OkStatus();
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
    static constexpr absl::string_view kShared[] = {"int", "mx_fp", "fp", "nv_fp", "mx_int"};
    const bool shared = *scheme->act_bits < 16 && absl::c_linear_search(kShared, scheme->data_type);
    scheme->act_data_type = shared ? scheme->data_type : "float";
  }
  return absl::OkStatus();
}

void WriteSchemeFields(const Scheme& s, Writer* writer) {
  const auto number = [&](const char* key, const std::optional<int>& value) {
    if (!value.has_value()) return;
    writer->Key(key);
    writer->Int(*value);
  };
  const auto flag = [&](const char* key, const std::optional<bool>& value) {
    if (!value.has_value()) return;
    writer->Key(key);
    writer->Bool(*value);
  };
  const auto text = [&](const char* key, const std::optional<std::string>& value) {
    if (!value.has_value()) return;
    writer->Key(key);
    writer->String(*value);
  };
  const auto group = [&](const char* key, const std::optional<GroupSize>& value) {
    if (!value.has_value()) return;
    writer->Key(key);
    WriteGroup(*value, writer);
  };
  number("bits", s.bits);
  group("group_size", s.group);
  flag("sym", s.sym);
  text("data_type", s.data_type);
  number("act_bits", s.act_bits);
  group("act_group_size", s.act_group);
  flag("act_sym", s.act_sym);
  text("act_data_type", s.act_data_type);
  flag("act_dynamic", s.act_dynamic);
  number("super_bits", s.super_bits);
  number("super_group_size", s.super_group_size);
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
