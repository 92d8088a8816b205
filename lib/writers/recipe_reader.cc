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
