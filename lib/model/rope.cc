#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

constexpr char kWhat[] = "config.json";
constexpr double kDefaultTheta = 10000.0;  // the same in all families

absl::StatusOr<const JsonValue*> DecidingObject(const Json& config, const char** key,
                                                std::vector<std::string>* warnings);
absl::StatusOr<RopeConfig> ReadNested(const Json& config, const JsonValue& object, const std::string& where,
                                      absl::Span<const std::string> attention_types,
                                      std::vector<std::string>* warnings);
absl::StatusOr<RopeConfig> ReadFlat(const Json& config, const JsonValue& fields, const std::string& where,
                                    std::vector<std::string>* warnings);
absl::Status CheckWholeHeads(const JsonValue& object, const std::string& where);
bool IsNested(const JsonValue& object);

}  // namespace

absl::StatusOr<RopeConfig> ReadRopeConfig(const Json& config, absl::Span<const std::string> attention_types,
                                          std::vector<std::string>* warnings) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckWholeHeads(config, kWhat));
  const char* key = nullptr;
  AUTOSCHEME_ASSIGN_OR_RETURN(const JsonValue* object, DecidingObject(config, &key, warnings));
  if (object == nullptr) return ReadFlat(config, JsonValue(rapidjson::kObjectType), kWhat, warnings);
  const std::string where = absl::StrCat(kWhat, ": ", key);
  return IsNested(*object) ? ReadNested(config, *object, where, attention_types, warnings)
                           : ReadFlat(config, *object, where, warnings);
}

namespace {

// rope_scaling or rope_parameters; null if neither says anything.
absl::StatusOr<const JsonValue*> DecidingObject(const Json& config, const char** key,
                                                std::vector<std::string>* warnings) {
  const auto find = [&](const char* name) -> absl::StatusOr<const JsonValue*> {
    const JsonValue* object = JsonFind(config, name);
    if (object != nullptr && !object->IsObject()) {
      return absl::InvalidArgumentError(absl::StrCat(kWhat, ": ", name, " must be an object"));
    }
    return object != nullptr && object->ObjectEmpty() ? nullptr : object;
  };
  AUTOSCHEME_ASSIGN_OR_RETURN(const JsonValue* scaling, find("rope_scaling"));
  AUTOSCHEME_ASSIGN_OR_RETURN(const JsonValue* parameters, find("rope_parameters"));
  if (scaling != nullptr && parameters != nullptr && *scaling != *parameters) {
    warnings->push_back(
        "config.json has both rope_scaling and rope_parameters: the former decides, as in transformers, and the "
        "latter is ignored");
  }
  *key = scaling != nullptr ? "rope_scaling" : "rope_parameters";
  return scaling != nullptr ? scaling : parameters;
}

// Keys are attention types: {"full_attention": {...}, "sliding_attention": {...}}.
bool IsNested(const JsonValue& object) {
  return std::any_of(object.MemberBegin(), object.MemberEnd(),
                     [](const auto& member) { return member.value.IsObject(); });
}

absl::StatusOr<RopeConfig> ReadNested(const Json& config, const JsonValue& object, const std::string& where,
                                      absl::Span<const std::string> attention_types,
                                      std::vector<std::string>* warnings) {
  for (const auto& member : object.GetObject()) {
    if (member.value.IsObject() || member.value.IsNull()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(where, " has ", Quoted({member.name.GetString(), member.name.GetStringLength()}),
                     " beside objects for attention types; it must be one object or be nested by type"));
  }
  RopeConfig first;
  for (const std::string& type : attention_types) {
    const JsonValue* fields = JsonFind(object, type);
    if (fields == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, " is nested, but has nothing for ", type, ", which the model's blocks have"));
    }
    AUTOSCHEME_ASSIGN_OR_RETURN(const RopeConfig rope,
                                ReadFlat(config, *fields, absl::StrCat(where, ".", type), warnings));
    const auto values = [](const RopeConfig& r) {
      return std::tie(r.theta, r.type, r.factor, r.low_freq_factor, r.high_freq_factor, r.original_max_positions);
    };
    if (type == attention_types.front()) {
      first = rope;
    } else if (values(rope) != values(first)) {
      return absl::UnimplementedError(absl::StrCat(where, " gives ", attention_types.front(), " and ", type,
                                                   " different frequencies (theta ", first.theta, " and ", rope.theta,
                                                   "); only the same for all blocks are supported"));
    }
  }
  return first;
}

absl::StatusOr<std::string> ReadType(const JsonValue& fields, const std::string& where) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string old_type, JsonStringOr(fields, "type", "", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string type, JsonStringOr(fields, "rope_type", old_type, where));
  if (!old_type.empty() && type != old_type) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": rope_type is ", Quoted(type), ", but type is ",
                                                   Quoted(old_type), "; remove the wrong one"));
  }
  if (type.empty() && JsonFind(fields, "factor") != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(where, " has a factor, but no rope_type that says how it is meant"));
  }
  return type.empty() ? "default" : type;
}

absl::StatusOr<double> ReadTheta(const Json& config, const JsonValue& fields, const std::string& where,
                                 std::vector<std::string>* warnings) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const double beside, JsonDoubleOr(config, "rope_theta", kDefaultTheta, kWhat));
  AUTOSCHEME_ASSIGN_OR_RETURN(const double theta, JsonDoubleOr(fields, "rope_theta", beside, where));
  if (!(theta > 0))
    return absl::InvalidArgumentError(absl::StrCat(kWhat, ": rope_theta is ", theta, ", must be positive"));
  if (theta != beside && JsonFind(config, "rope_theta") != nullptr) {
    warnings->push_back(
        absl::StrCat(where, " has a rope_theta of ", theta, ", config.json one of ", beside,
                     " beside it: the former is used, as in transformers 5; transformers 4 takes the latter"));
  }
  return theta;
}

// In transformers 5 a number beside the object goes before the one inside, in transformers 4 only the latter is known.
absl::StatusOr<double> ReadOriginalMaxPositions(const Json& config, const JsonValue& fields, const std::string& where) {
  constexpr char kKey[] = "original_max_position_embeddings";
  if (JsonFind(config, kKey) == nullptr) return JsonDouble(fields, kKey, where);
  AUTOSCHEME_ASSIGN_OR_RETURN(const double beside, JsonDouble(config, kKey, kWhat));
  AUTOSCHEME_ASSIGN_OR_RETURN(const double inside, JsonDoubleOr(fields, kKey, beside, where));
  if (inside == beside) return inside;
  return absl::InvalidArgumentError(absl::StrCat(where, " has an ", kKey, " of ", inside, ", config.json one of ",
                                                 beside, " beside it; remove the wrong one"));
}

// Names of non-null members that are none of `known`.
std::vector<std::string> OtherKeys(const JsonValue& object, const std::vector<std::string>& known) {
  std::vector<std::string> others;
  for (const auto& member : object.GetObject()) {
    const std::string name(member.name.GetString(), member.name.GetStringLength());
    if (!member.value.IsNull() && std::find(known.begin(), known.end(), name) == known.end()) others.push_back(name);
  }
  return others;
}

absl::StatusOr<RopeConfig> ReadFlat(const Json& config, const JsonValue& fields, const std::string& where,
                                    std::vector<std::string>* warnings) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckWholeHeads(fields, where));
  RopeConfig rope;
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.theta, ReadTheta(config, fields, where, warnings));
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.type, ReadType(fields, where));
  std::vector<std::string> known = {"rope_theta", "rope_type", "type", "partial_rotary_factor"};
  if (rope.type == "linear" || rope.type == "llama3") {
    known.push_back("factor");
    AUTOSCHEME_ASSIGN_OR_RETURN(rope.factor, JsonDouble(fields, "factor", where));
    if (!(rope.factor > 0)) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": factor is ", rope.factor, ", must be positive"));
    }
  }
  if (rope.type == "llama3") {
    known.insert(known.end(), {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
    AUTOSCHEME_ASSIGN_OR_RETURN(rope.low_freq_factor, JsonDouble(fields, "low_freq_factor", where));
    AUTOSCHEME_ASSIGN_OR_RETURN(rope.high_freq_factor, JsonDouble(fields, "high_freq_factor", where));
    AUTOSCHEME_ASSIGN_OR_RETURN(rope.original_max_positions, ReadOriginalMaxPositions(config, fields, where));
    if (rope.high_freq_factor <= rope.low_freq_factor || rope.original_max_positions <= 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          where,
          ": rope type llama3 needs high_freq_factor > low_freq_factor and original_max_position_embeddings > 0"));
    }
  } else if (rope.type != "default" && rope.type != "linear") {
    return absl::UnimplementedError(
        absl::StrCat(where, ": rope type ", Quoted(rope.type), " is not supported; known: default, linear, llama3"));
  }
  if (const std::vector<std::string> vain = OtherKeys(fields, known); !vain.empty()) {
    warnings->push_back(absl::StrCat(where, ": ", FirstNames(vain), vain.size() == 1 ? " means" : " mean",
                                     " nothing for rope type ", rope.type, " and ", vain.size() == 1 ? "is" : "are",
                                     " ignored"));
  }
  return rope;
}

absl::Status CheckWholeHeads(const JsonValue& object, const std::string& where) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const double part, JsonDoubleOr(object, "partial_rotary_factor", 1.0, where));
  if (part == 1) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(where, ": partial_rotary_factor is ", part,
                                               "; these models rotate whole heads, so only 1 is supported"));
}

}  // namespace

}  // namespace autoscheme
