#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "autoscheme/quoted.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/decoder_spec.h"

namespace autoscheme {
namespace {

// Each holds what was known before it, so that a list of aliases takes room by its square.
constexpr rapidjson::SizeType kMostAliases = 256;
constexpr int kMostDepth = 8;
constexpr char kModelType[] = "model_type", kAs[] = "as", kRename[] = "rename", kSet[] = "set";

struct Alias {
  std::string model_type, as;
  std::vector<std::pair<std::string, std::string>> renamed;  // theirs, ours
  Json set;
  std::vector<Architecture> known;  // what `as` may name besides the built-in types
};

JsonValue Name(absl::string_view name, Json& of) {
  return JsonValue(name.data(), static_cast<rapidjson::SizeType>(name.size()), of.GetAllocator());
}

void Set(Json& config, absl::string_view key, JsonValue value) {
  config.RemoveMember(Name(key, config));
  config.AddMember(Name(key, config), value, config.GetAllocator());
}

absl::StatusOr<ModelSpec> DescribeAlias(const Alias& alias, const Json& config) {
  Json edited;
  edited.CopyFrom(config, edited.GetAllocator());
  for (const auto& [theirs, ours] : alias.renamed) {
    const auto member = edited.FindMember(Name(theirs, edited));
    if (member == edited.MemberEnd()) continue;
    if (JsonFind(edited, ours) != nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("config.json: the alias ", Quoted(alias.model_type), " renames ",
                                                     Quoted(theirs), " to ", Quoted(ours), ", but both are there"));
    }
    JsonValue value = std::move(member->value);
    edited.EraseMember(member);
    Set(edited, ours, std::move(value));
  }
  for (const auto& member : alias.set.GetObject()) {
    Set(edited, JsonText(member.name), JsonValue(member.value, edited.GetAllocator()));
  }
  Set(edited, kModelType, Name(alias.as, edited));
  absl::StatusOr<ModelSpec> spec = Describe(edited, alias.as, alias.known);
  if (spec.ok()) return spec;
  return absl::Status(spec.status().code(), absl::StrCat("as the alias ", Quoted(alias.model_type), " of ", alias.as,
                                                         ": ", spec.status().message()));
}

absl::Status CheckMembers(const JsonValue& value, const std::string& what) {
  if (!value.IsObject()) return absl::InvalidArgumentError(absl::StrCat(what, ": an alias must be an object"));
  const std::vector<std::string> known = {kModelType, kAs, kRename, kSet};
  for (const auto& member : value.GetObject()) {
    if (std::find(known.begin(), known.end(), JsonText(member.name)) != known.end()) continue;
    return absl::InvalidArgumentError(absl::StrCat(what, ": unknown member ", Quoted(JsonText(member.name)),
                                                   "; an alias may have ", absl::StrJoin(known, ", ")));
  }
  for (const char* key : {kModelType, kAs}) {
    if (JsonFind(value, key) == nullptr) return absl::InvalidArgumentError(absl::StrCat(what, " has no ", key));
  }
  for (const absl::string_view key : {kRename, kSet}) {
    const JsonValue* edits = JsonFind(value, key);
    if (edits == nullptr) continue;
    if (!edits->IsObject()) return absl::InvalidArgumentError(absl::StrCat(what, ": ", key, " must be an object"));
    for (const auto& member : edits->GetObject()) {
      const bool renames = key == kRename;
      if (renames && !member.value.IsString()) {
        return absl::InvalidArgumentError(
            absl::StrCat(what, ": rename gives ", Quoted(JsonText(member.name)), " no name: it must be a string"));
      }
      if (JsonText(member.name) == kModelType || (renames && JsonText(member.value) == kModelType)) {
        return absl::InvalidArgumentError(absl::StrCat(what, ": ", key, " must leave model_type alone; as gives it"));
      }
    }
  }
  return absl::OkStatus();
}

// `depths`: of each alias so far, how many there are from it to a type that is none. Every one on the way holds a copy
// of config.json.
absl::StatusOr<Architecture> ReadAlias(const JsonValue& value, const std::string& what,
                                       const std::vector<Architecture>& known, std::map<std::string, int>& depths) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckMembers(value, what));
  auto alias = std::make_shared<Alias>();
  alias->known = known;
  AUTOSCHEME_ASSIGN_OR_RETURN(alias->model_type, JsonString(value, kModelType, what));
  AUTOSCHEME_ASSIGN_OR_RETURN(alias->as, JsonString(value, kAs, what));
  if (alias->model_type.empty()) return absl::InvalidArgumentError(absl::StrCat(what, ": model_type is empty"));
  const auto taken = [&](const Architecture& other) { return other.model_type == alias->model_type; };
  if (std::any_of(known.begin(), known.end(), taken)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": there is a model_type ", Quoted(alias->model_type), " already"));
  }
  const std::vector<std::string> types = SupportedTypes(known);
  if (std::find(types.begin(), types.end(), alias->as) == types.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, ": as is ", Quoted(alias->as), ", which is not supported; supported: ", absl::StrJoin(types, ", ")));
  }
  const int depth = depths[alias->model_type] = 1 + depths[alias->as];
  if (depth > kMostDepth) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", Quoted(alias->model_type), " is an alias of an alias ",
                                                   depth, " times over, at most ", kMostDepth, " may be"));
  }
  if (const JsonValue* rename = JsonFind(value, kRename); rename != nullptr) {
    for (const auto& member : rename->GetObject())
      alias->renamed.emplace_back(JsonText(member.name), JsonText(member.value));
  }
  alias->set.SetObject();
  if (const JsonValue* set = JsonFind(value, kSet); set != nullptr) {
    alias->set.CopyFrom(*set, alias->set.GetAllocator());
  }
  const std::string model_type = alias->model_type;
  return Architecture{model_type, [alias = std::shared_ptr<const Alias>(std::move(alias))](const Json& config) {
                        return DescribeAlias(*alias, config);
                      }};
}

}  // namespace

absl::StatusOr<std::vector<Architecture>> ReadAliases(absl::string_view json, const std::vector<Architecture>& known) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const Json root, ParseJson(json, "aliases"));
  std::vector<Architecture> all = known;
  std::map<std::string, int> depths;
  const rapidjson::SizeType count = root.IsArray() ? root.Size() : 1;
  if (count > kMostAliases) {
    return absl::InvalidArgumentError(
        absl::StrCat("aliases: there are ", count, ", at most ", kMostAliases, " may be"));
  }
  for (rapidjson::SizeType i = 0; i < count; ++i) {
    const std::string what = root.IsArray() ? absl::StrCat("aliases[", i, "]") : "aliases";
    AUTOSCHEME_ASSIGN_OR_RETURN(Architecture alias, ReadAlias(root.IsArray() ? root[i] : root, what, all, depths));
    all.push_back(std::move(alias));
  }
  return std::vector<Architecture>(all.begin() + static_cast<std::ptrdiff_t>(known.size()), all.end());
}

}  // namespace autoscheme
