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
constexpr char kQueryGrowth[] = "llama_4_scaling_beta";
constexpr char kOriginalMaxPositions[] = "original_max_position_embeddings";

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

absl::StatusOr<RopeConfig> ReadOwnTheta(const Json& config, const RopeDefaults& defaults) {
  RopeConfig rope;
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.theta, JsonDoubleOr(config, defaults.theta_key, defaults.theta, kWhat));
  if (rope.theta > 0) return rope;
  return absl::InvalidArgumentError(
      absl::StrCat(kWhat, ": ", defaults.theta_key, " is ", rope.theta, ", must be positive"));
}

// Keys are attention types: {"full_attention": {...}, "sliding_attention": {...}}.
bool IsNested(const JsonValue& object) {
  return std::any_of(object.MemberBegin(), object.MemberEnd(),
                     [](const auto& member) { return member.value.IsObject(); });
}

absl::StatusOr<std::string> ReadType(const JsonValue& fields, const std::string& where) {
  const auto read = [&](const char* key, const std::string& fallback) -> absl::StatusOr<std::string> {
    AUTOSCHEME_ASSIGN_OR_RETURN(std::string type, JsonStringOr(fields, key, fallback, where));
    if (type == "su") return "longrope";    // its first name
    if (type == "mrope") return "default";  // all positions of text are one
    return type;
  };
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string old_type, read("type", ""));
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string type, read("rope_type", old_type));
  if (!old_type.empty() && type != old_type) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": rope_type is ", Quoted(type), ", but type is ",
                                                   Quoted(old_type), "; remove the wrong one"));
  }
  if (type.empty() && JsonFind(fields, "factor") != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(where, " has a factor, but no rope_type that says how it is meant"));
  }
  return type.empty() ? "default" : type;
}

absl::StatusOr<double> ReadTheta(const Json& config, const JsonValue& fields, const std::string& where, double fallback,
                                 std::vector<std::string>* warnings) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const double beside, JsonDoubleOr(config, "rope_theta", fallback, kWhat));
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

// Fallback 0: the number must be there. In transformers 5 a number beside the object goes before the one inside, in
// transformers 4 only the latter is known to most types.
absl::StatusOr<double> ReadOriginalMaxPositions(const Json& config, const JsonValue& fields, const std::string& where,
                                                double fallback) {
  if (JsonFind(config, kOriginalMaxPositions) == nullptr) {
    return fallback > 0 ? JsonDoubleOr(fields, kOriginalMaxPositions, fallback, where)
                        : JsonDouble(fields, kOriginalMaxPositions, where);
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const double beside, JsonDouble(config, kOriginalMaxPositions, kWhat));
  AUTOSCHEME_ASSIGN_OR_RETURN(const double inside, JsonDoubleOr(fields, kOriginalMaxPositions, beside, where));
  if (inside == beside) return inside;
  return absl::InvalidArgumentError(absl::StrCat(where, " has an ", kOriginalMaxPositions, " of ", inside,
                                                 ", config.json one of ", beside, " beside it; remove the wrong one"));
}

// One type of rotary embedding: the members that it reads.
struct RopeType {
  const char* name;
  std::vector<std::string> members;
};

const std::vector<RopeType>& RopeTypes() {
  static const auto* const types = new std::vector<RopeType>{
      {"default", {"mrope_section", "mrope_interleaved"}},
      {"linear", {"factor"}},
      {"dynamic", {"factor", kOriginalMaxPositions}},
      {"llama3", {"factor", "low_freq_factor", "high_freq_factor", kOriginalMaxPositions}},
      {"yarn",
       {"factor", kOriginalMaxPositions, "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
        "truncate", "finetuned", "max_position_embeddings"}},
      {"longrope", {"factor", kOriginalMaxPositions, "attention_factor", "short_factor", "long_factor"}},
  };
  return *types;
}

// A member that no type knows might change the numbers; one that only others know means nothing.
absl::Status CheckMembers(const JsonValue& fields, const RopeType& type, const std::string& where, bool queries_grow,
                          std::vector<std::string>* warnings) {
  const auto holds = [](const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  std::vector<std::string> vain;
  for (const auto& member : fields.GetObject()) {
    const std::string name(JsonText(member.name));
    if (member.value.IsNull() || holds(type.members, name) ||
        holds({"rope_theta", "rope_type", "type", "partial_rotary_factor"}, name) ||
        (queries_grow && name == kQueryGrowth)) {
      continue;
    }
    if (std::none_of(RopeTypes().begin(), RopeTypes().end(),
                     [&](const RopeType& t) { return holds(t.members, name); })) {
      return absl::InvalidArgumentError(absl::StrCat(where, " has ", Quoted(name), ", which rope type ", type.name,
                                                     " does not know: remove it if it means nothing"));
    }
    vain.push_back(name);
  }
  if (!vain.empty()) {
    warnings->push_back(absl::StrCat(where, ": ", FirstNames(vain), vain.size() == 1 ? " means" : " mean",
                                     " nothing for rope type ", type.name, " and ", vain.size() == 1 ? "is" : "are",
                                     " ignored"));
  }
  return absl::OkStatus();
}

absl::Status ReadLlama3(const Json& config, const JsonValue& fields, const std::string& where, RopeConfig& rope) {
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.low_freq_factor, JsonDouble(fields, "low_freq_factor", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.high_freq_factor, JsonDouble(fields, "high_freq_factor", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.original_max_positions, ReadOriginalMaxPositions(config, fields, where, 0));
  if (rope.high_freq_factor > rope.low_freq_factor && rope.original_max_positions > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      where, ": rope type llama3 needs high_freq_factor > low_freq_factor and ", kOriginalMaxPositions, " > 0"));
}

absl::Status ReadYarn(const Json& config, const JsonValue& fields, const std::string& where, double max_positions,
                      RopeConfig& rope) {
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.original_max_positions,
                              ReadOriginalMaxPositions(config, fields, where, max_positions));
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.beta_fast, JsonDoubleOr(fields, "beta_fast", 32, where));
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.beta_slow, JsonDoubleOr(fields, "beta_slow", 1, where));
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.truncate, JsonBoolOr(fields, "truncate", true, where));
  AUTOSCHEME_ASSIGN_OR_RETURN(const double mscale, JsonDoubleOr(fields, "mscale", 0, where));
  AUTOSCHEME_ASSIGN_OR_RETURN(const double mscale_all, JsonDoubleOr(fields, "mscale_all_dim", 0, where));
  const auto grown = [&](double by) { return rope.factor <= 1 ? 1.0 : 0.1 * by * std::log(rope.factor) + 1; };
  const double usual = mscale != 0 && mscale_all != 0 ? grown(mscale) / grown(mscale_all) : grown(1);
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.attention_scale, JsonDoubleOr(fields, "attention_factor", usual, where));
  if (!(rope.attention_scale > 0 && std::isfinite(rope.attention_scale)) || rope.theta <= 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": rope type yarn needs an attention_factor above 0 and a rope_theta above 1"));
  }
  if (rope.beta_fast > 0 && rope.beta_slow > 0 && rope.original_max_positions > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": rope type yarn needs beta_fast, beta_slow and ", kOriginalMaxPositions, " above 0"));
}

absl::StatusOr<std::vector<double>> ReadFactors(const JsonValue& fields, const char* key, const std::string& where) {
  const JsonValue* list = JsonFind(fields, key);
  std::vector<double> factors;
  bool numbers = list != nullptr && list->IsArray() && !list->Empty();
  for (rapidjson::SizeType i = 0; numbers && i < list->Size(); ++i) {
    numbers = (*list)[i].IsNumber() && (*list)[i].GetDouble() > 0;
    if (numbers) factors.push_back((*list)[i].GetDouble());
  }
  if (numbers) return factors;
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": rope type longrope needs ", key, ", a list of positive numbers"));
}

absl::Status ReadLongrope(const Json& config, const JsonValue& fields, const std::string& where, double max_positions,
                          RopeConfig& rope) {
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.short_factors, ReadFactors(fields, "short_factor", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.long_factors, ReadFactors(fields, "long_factor", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.original_max_positions,
                              ReadOriginalMaxPositions(config, fields, where, max_positions));
  // How far the model was stretched. A length beside the object counts before the factor, as in transformers.
  const bool beside = JsonFind(config, kOriginalMaxPositions) != nullptr;
  const double stretched = max_positions > 0 ? max_positions / rope.original_max_positions : 1;
  AUTOSCHEME_ASSIGN_OR_RETURN(const double given, JsonDoubleOr(fields, "factor", stretched, where));
  rope.factor = beside ? stretched : given;
  const double usual =
      rope.factor <= 1 ? 1 : std::sqrt(1 + std::log(rope.factor) / std::log(rope.original_max_positions));
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.attention_scale, JsonDoubleOr(fields, "attention_factor", usual, where));
  if (!(rope.attention_scale > 0)) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": attention_factor must be positive"));
  }
  if (rope.original_max_positions > 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": rope type longrope needs ", kOriginalMaxPositions, " or max_position_embeddings"));
}

absl::StatusOr<double> ReadPart(const JsonValue& object, const std::string& where, const RopeDefaults& defaults,
                                const char* key, double fallback) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const double part, JsonDoubleOr(object, key, fallback, where));
  if (!defaults.may_be_partial && part != 1) {
    return absl::UnimplementedError(
        absl::StrCat(where, ": ", key, " is ", part, "; these models rotate whole heads, so only 1 is supported"));
  }
  if (part > 0 && part <= 1) return part;
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", key, " is ", part, ", must be above 0 and at most 1"));
}

absl::StatusOr<RopeConfig> ReadFlat(const Json& config, const JsonValue& fields, const std::string& where,
                                    const RopeDefaults& defaults, double* part, std::vector<std::string>* warnings) {
  AUTOSCHEME_ASSIGN_OR_RETURN(*part, ReadPart(config, kWhat, defaults, defaults.part_key, defaults.part));
  AUTOSCHEME_ASSIGN_OR_RETURN(*part, ReadPart(fields, where, defaults, "partial_rotary_factor", *part));
  RopeConfig rope;
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.theta, ReadTheta(config, fields, where, defaults.theta, warnings));
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.type, ReadType(fields, where));
  const auto type = std::find_if(RopeTypes().begin(), RopeTypes().end(),
                                 [&](const RopeType& known) { return rope.type == known.name; });
  if (type == RopeTypes().end()) {
    return absl::UnimplementedError(absl::StrCat(where, ": rope type ", Quoted(rope.type),
                                                 " is not supported; known: default, linear, dynamic, llama3, yarn, "
                                                 "longrope"));
  }
  AUTOSCHEME_RETURN_IF_ERROR(CheckMembers(fields, *type, where, defaults.queries_grow, warnings));
  if (defaults.queries_grow) {
    AUTOSCHEME_ASSIGN_OR_RETURN(rope.query_growth, JsonDouble(fields, kQueryGrowth, where));
    if (rope.type != "yarn") {
      return absl::UnimplementedError(absl::StrCat(where, ": queries that grow are supported with rope type yarn"));
    }
  }
  const double max_positions = static_cast<double>(defaults.max_positions);
  if (rope.type == "longrope") {
    AUTOSCHEME_RETURN_IF_ERROR(ReadLongrope(config, fields, where, max_positions, rope));
    return rope;
  }
  if (rope.type == "default") return rope;
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.factor, JsonDouble(fields, "factor", where));
  if (!(rope.factor > 0)) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": factor is ", rope.factor, ", must be positive"));
  }
  if (rope.type == "llama3") AUTOSCHEME_RETURN_IF_ERROR(ReadLlama3(config, fields, where, rope));
  if (rope.type == "yarn") AUTOSCHEME_RETURN_IF_ERROR(ReadYarn(config, fields, where, max_positions, rope));
  if (rope.type == "linear") rope.original_max_positions = max_positions;
  if (rope.type == "dynamic") {
    rope.original_max_positions = max_positions;
    if (max_positions < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": rope type dynamic needs max_position_embeddings in config.json"));
    }
  }
  return rope;
}

}  // namespace

bool RopeConfig::operator==(const RopeConfig& other) const {
  const auto values = [](const RopeConfig& r) {
    return std::tie(r.theta, r.type, r.factor, r.low_freq_factor, r.high_freq_factor, r.original_max_positions,
                    r.attention_scale, r.beta_fast, r.beta_slow, r.truncate, r.query_growth, r.short_factors,
                    r.long_factors);
  };
  return values(*this) == values(other);
}

absl::StatusOr<RopeConfig> ReadRopeConfig(const Json& config, const std::string& attention_type,
                                          const RopeDefaults& defaults, double* part,
                                          std::vector<std::string>* warnings) {
  const char* key = nullptr;
  AUTOSCHEME_ASSIGN_OR_RETURN(const JsonValue* object, DecidingObject(config, &key, warnings));
  if (defaults.theta_key != nullptr && (object == nullptr || !IsNested(*object))) return ReadOwnTheta(config, defaults);
  if (object == nullptr) {
    return ReadFlat(config, JsonValue(rapidjson::kObjectType), kWhat, defaults, part, warnings);
  }
  const std::string where = absl::StrCat(kWhat, ": ", key);
  if (!IsNested(*object)) return ReadFlat(config, *object, where, defaults, part, warnings);
  for (const auto& member : object->GetObject()) {
    if (member.value.IsObject() || member.value.IsNull()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(where, " has ", Quoted(JsonText(member.name)),
                     " beside objects for attention types; it must be one object or be nested by type"));
  }
  const JsonValue* fields = JsonFind(*object, attention_type);
  if (fields == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, " is nested, but has nothing for ", attention_type, ", which the model's blocks have"));
  }
  return ReadFlat(config, *fields, absl::StrCat(where, ".", attention_type), defaults, part, warnings);
}

bool IsRopeType(const std::string& type) {
  return std::any_of(RopeTypes().begin(), RopeTypes().end(), [&](const RopeType& known) { return type == known.name; });
}

}  // namespace autoscheme
