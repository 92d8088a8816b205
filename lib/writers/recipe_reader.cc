#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "autoscheme/evaluate.h"
#include "base/io.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "formats/scheme_json.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;

// What a measurement was made on, and its figures by their keys.
template <typename Measured>
absl::Status ReadMeasured(const JsonValue& value, const std::string& where,
                          const std::vector<std::pair<const char*, double*>>& figures, Measured& to) {
  AUTOSCHEME_ASSIGN_OR_RETURN(to.nsamples, JsonInt(value, "nsamples", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(to.seqlen, JsonInt(value, "seqlen", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(to.tokens_sha256, JsonString(value, "tokens_sha256", where));
  for (const auto& [key, figure] : figures) {
    AUTOSCHEME_ASSIGN_OR_RETURN(*figure, JsonDouble(value, key, where));
  }
  return absl::OkStatus();
}

absl::StatusOr<Refined> ReadRefined(const JsonValue& value, const std::string& where) {
  if (!value.IsObject()) return absl::InvalidArgumentError(absl::StrCat(where, " is not an object"));
  Refined refined;
  AUTOSCHEME_RETURN_IF_ERROR(ReadMeasured(value, where,
                                          {{"avg_bits_before", &refined.avg_bits_before},
                                           {"kl_before", &refined.kl_before},
                                           {"kl_error_before", &refined.kl_error_before},
                                           {"kl", &refined.kl},
                                           {"kl_error", &refined.kl_error}},
                                          refined));
  AUTOSCHEME_ASSIGN_OR_RETURN(refined.evaluations, JsonInt(value, "evaluations", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(refined.changed, JsonBool(value, "changed", where));
  return refined;
}

absl::StatusOr<Verified> ReadVerified(const JsonValue& value, const std::string& where) {
  if (!value.IsObject()) return absl::InvalidArgumentError(absl::StrCat(where, " is not an object"));
  Verified verified;
  AUTOSCHEME_RETURN_IF_ERROR(ReadMeasured(
      value, where, {{"avg_bits", &verified.avg_bits}, {"kl", &verified.kl}, {"kl_error", &verified.kl_error}},
      verified));
  AUTOSCHEME_ASSIGN_OR_RETURN(verified.taken, JsonStringOr(value, "taken", "", where));
  const JsonValue* uniforms = JsonFind(value, "uniforms");
  if (uniforms == nullptr || !uniforms->IsArray()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": uniforms is no list"));
  }
  for (const JsonValue& one : uniforms->GetArray()) {
    if (!one.IsObject()) return absl::InvalidArgumentError(absl::StrCat(where, ": uniforms holds what is no object"));
    MeasuredUniform& uniform = verified.uniforms.emplace_back();
    AUTOSCHEME_ASSIGN_OR_RETURN(uniform.scheme, JsonString(one, "scheme", where));
    for (const auto& [key, figure] :
         {std::pair("avg_bits", &uniform.avg_bits), {"kl", &uniform.kl}, {"kl_error", &uniform.kl_error}}) {
      AUTOSCHEME_ASSIGN_OR_RETURN(*figure, JsonDouble(one, key, where));
    }
  }
  return verified;
}

absl::StatusOr<Recipe> ReadRecipe(const JsonValue& value, const std::string& where) {
  if (!value.IsObject()) return absl::InvalidArgumentError(absl::StrCat(where, " is not an object"));
  Recipe recipe;
  AUTOSCHEME_ASSIGN_OR_RETURN(recipe.target_avg_bits, JsonDoubleOr(value, "target_avg_bits", 0, where));
  AUTOSCHEME_ASSIGN_OR_RETURN(recipe.avg_bits, JsonDoubleOr(value, "avg_bits", 0, where));
  // A loss that is no number, or a gap, is the business of who chose.
  for (const auto& [key, target] : {std::pair("total_bits", &recipe.total_bits),
                                    {"total_params", &recipe.total_params},
                                    {"target_bytes", &recipe.target_bytes},
                                    {"layer_bytes", &recipe.layer_bytes},
                                    {"model_bytes", &recipe.model_bytes}}) {
    AUTOSCHEME_ASSIGN_OR_RETURN(*target, JsonIntOr(value, key, 0, where));
    if (*target < 0) return absl::InvalidArgumentError(absl::StrCat(where, ": ", key, " is negative: ", *target));
  }
  for (const auto& [key, target] : {std::pair("loss", &recipe.loss), {"gap", &recipe.gap}}) {
    const JsonValue* number = JsonFind(value, key);
    if (number != nullptr && number->IsNumber()) *target = number->GetDouble();
  }
  const JsonValue* layers = JsonFind(value, "layer_config");
  if (layers == nullptr || !layers->IsObject()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": layer_config ", layers == nullptr ? "is missing" : "is not an object"));
  }
  for (const auto& member : layers->GetObject()) {
    LayerChoice choice;
    choice.layer = std::string(JsonText(member.name));
    AUTOSCHEME_ASSIGN_OR_RETURN(choice.scheme,
                                SchemeFromJson(member.value, absl::StrCat(where, ", layer ", Quoted(choice.layer))));
    recipe.layers.push_back(std::move(choice));
  }
  if (recipe.layers.empty()) return absl::InvalidArgumentError(absl::StrCat(where, ": layer_config is empty"));
  const JsonValue* fixed = JsonFind(value, "fixed_layers");
  for (LayerChoice& choice : recipe.layers) {
    for (rapidjson::SizeType i = 0; fixed != nullptr && fixed->IsArray() && i < fixed->Size(); ++i) {
      choice.fixed = choice.fixed || ((*fixed)[i].IsString() && JsonText((*fixed)[i]) == choice.layer);
    }
  }
  if (const JsonValue* refined = JsonFind(value, "refined"); refined != nullptr) {
    AUTOSCHEME_ASSIGN_OR_RETURN(recipe.refined, ReadRefined(*refined, absl::StrCat(where, ", refined")));
  }
  if (const JsonValue* verified = JsonFind(value, "verified"); verified != nullptr) {
    AUTOSCHEME_ASSIGN_OR_RETURN(recipe.verified, ReadVerified(*verified, absl::StrCat(where, ", verified")));
  }
  return recipe;
}

}  // namespace

absl::StatusOr<std::vector<Recipe>> ReadRecipes(const Context& context, const std::string& path) {
  const std::string what = absl::StrCat("recipe file ", Quoted(path));
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string text, ReadFileToString(IoOf(context), path, kMaxFileBytes));
  AUTOSCHEME_ASSIGN_OR_RETURN(const Json root, ParseJson(text, what));
  if (!root.IsObject()) return absl::InvalidArgumentError(absl::StrCat(what, " is not a JSON object"));
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string format, JsonStringOr(root, "format", "", what));
  if (format != "autoscheme-recipe") {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " has the format ", Quoted(format), "; wanted is \"autoscheme-recipe\""));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t version, JsonInt(root, "version", what));
  if (version != 1) {
    return absl::UnimplementedError(
        absl::StrCat(what, " has version ", version, "; this build reads version 1: update autoscheme"));
  }
  const JsonValue* recipes = JsonFind(root, "recipes");
  if (recipes == nullptr || !recipes->IsArray() || recipes->Empty()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " holds no list of recipes"));
  }
  std::vector<Recipe> read;
  for (rapidjson::SizeType i = 0; i < recipes->Size(); ++i) {
    AUTOSCHEME_ASSIGN_OR_RETURN(Recipe recipe, ReadRecipe((*recipes)[i], absl::StrCat(what, ", recipe ", i)));
    read.push_back(std::move(recipe));
  }
  return read;
}

}  // namespace autoscheme
