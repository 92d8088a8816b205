#include "autoscheme/scheme_text.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/json.h"
#include "scheme/scheme_json.h"

namespace autoscheme {

absl::StatusOr<std::vector<Scheme>> ParseMenu(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  if (text.empty() || (text.front() != '[' && text.front() != '{')) return ParseSchemeList(text);
  const absl::StatusOr<Json> json = ParseJson(text, "the list of schemes");
  if (!json.ok()) return json.status();
  return SchemesFromJson(*json, "the list of schemes");
}

absl::StatusOr<std::vector<std::pair<std::string, Scheme>>> ParseLayerConfig(absl::string_view text) {
  const absl::StatusOr<Json> json = ParseJson(text, "layer_config");
  if (!json.ok()) return json.status();
  if (!json->IsObject()) {
    return absl::InvalidArgumentError("layer_config is not a JSON object of layers and their schemes");
  }
  std::vector<std::pair<std::string, Scheme>> fixed;
  for (const auto& member : json->GetObject()) {
    const std::string layer(member.name.GetString(), member.name.GetStringLength());
    absl::StatusOr<Scheme> scheme = SchemeFromJson(member.value, absl::StrCat("layer_config, layer ", Quoted(layer)));
    if (!scheme.ok()) return scheme.status();
    fixed.emplace_back(layer, *std::move(scheme));
  }
  return fixed;
}

}  // namespace autoscheme
