#include "autoscheme/scheme_text.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/json.h"
#include "formats/scheme_json.h"

namespace autoscheme {
namespace {

// "autoscheme-recipe" and the like, of the files that this library writes; "" of all others.
std::string OwnFormat(const Json& json) {
  const JsonValue* format = JsonFind(json, "format");
  if (format == nullptr || !format->IsString() || !absl::StartsWith(format->GetString(), "autoscheme-")) return "";
  return std::string(JsonText(*format));
}

// The object of layers: what the text is, or what a recipe holds.
absl::StatusOr<const JsonValue*> LayersOf(const Json& json) {
  const JsonValue* recipe = &json;
  const std::string format = OwnFormat(json);
  if (format == "autoscheme-recipe") {
    const JsonValue* recipes = JsonFind(json, "recipes");
    const size_t count = recipes != nullptr && recipes->IsArray() ? recipes->Size() : 0;
    if (count != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("layer_config is a file of ", count, " recipes, of which one must be chosen: ",
                       "give its layer_config object (`jq '.recipes[0].layer_config' FILE`)"));
    }
    recipe = &(*recipes)[0];
  } else if (!format.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer_config has the format ", Quoted(format), ", and is no object of layers and their schemes",
        format == "autoscheme-scores" ? "; recipes are made of it by `autoscheme select --scores FILE`" : ""));
  }
  const JsonValue* layers = JsonFind(*recipe, "layer_config");
  if (layers == nullptr) layers = recipe;
  if (layers->IsObject()) return layers;
  return absl::InvalidArgumentError("layer_config is not a JSON object of layers and their schemes");
}

}  // namespace

absl::StatusOr<std::vector<Scheme>> ParseMenu(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  if (text.empty() || (text.front() != '[' && text.front() != '{')) return ParseSchemeList(text);
  const absl::StatusOr<Json> json = ParseJson(text, "the list of schemes");
  if (!json.ok()) return json.status();
  if (const std::string format = OwnFormat(*json); !format.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("the list of schemes has the format ", Quoted(format),
                                                   ", and is no list of names and objects of scheme fields"));
  }
  return SchemesFromJson(*json, "the list of schemes");
}

absl::StatusOr<std::vector<std::pair<std::string, Scheme>>> ParseLayerConfig(absl::string_view text) {
  const absl::StatusOr<Json> json = ParseJson(text, "layer_config");
  if (!json.ok()) return json.status();
  const absl::StatusOr<const JsonValue*> layers = LayersOf(*json);
  if (!layers.ok()) return layers.status();
  std::vector<std::pair<std::string, Scheme>> fixed;
  for (const auto& member : (*layers)->GetObject()) {
    const std::string layer(JsonText(member.name));
    absl::StatusOr<Scheme> scheme = SchemeFromJson(member.value, absl::StrCat("layer_config, layer ", Quoted(layer)));
    if (!scheme.ok()) return scheme.status();
    fixed.emplace_back(layer, *std::move(scheme));
  }
  return fixed;
}

}  // namespace autoscheme
