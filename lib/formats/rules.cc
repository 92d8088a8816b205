#include "formats/rules.h"

#include <optional>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "formats/data_types.h"
#include "formats/layer_pattern.h"
#include "formats/scheme_json.h"
#include "formats/stand_in.h"

namespace autoscheme {
namespace {

using Layers = std::vector<LayerInfo>;

struct IgnoreEntry {
  std::string text, pattern;  // as the user wrote it, and what it means
};
std::vector<IgnoreEntry> IgnoreEntries(const RuleOptions& options);
absl::Status CheckUnused(absl::string_view what, absl::string_view text, const LayerPattern& pattern,
                         const Layers& layers, const RuleOptions& options, const Context& context);
std::vector<std::string> Routers(const Layers& layers, const std::string& config_text);
Scheme SixteenBits(const Scheme& defaults, const std::string& data_type);
Scheme FillFrom(const Scheme& defaults, Scheme scheme);
bool FixExact(const std::string& name, const Scheme& scheme, Layers* layers);
bool FixMatching(const LayerPattern& pattern, const Scheme& scheme, Layers* layers);
bool HeadTakesPart(const LayerInfo& head, const RuleOptions& options, bool gguf, const Context& context);

}  // namespace

absl::StatusOr<std::vector<LayerInfo>> ResolveLayers(const std::vector<LayerInfo>& candidates,
                                                     const RuleOptions& options, const Context& context) {
  if (options.menu.empty()) return absl::InvalidArgumentError("the menu of schemes is empty; give at least one");
  Scheme defaults = options.menu[0];
  const bool gguf = IsKQuant(defaults);
  AUTOSCHEME_RETURN_IF_ERROR(ResolveScheme(&defaults));
  const Scheme ignored = SixteenBits(defaults, "float");
  const std::vector<IgnoreEntry> ignore = IgnoreEntries(options);

  // Exact names first, then the user's patterns, then those of ignore_layers: the order in which the reference lets one
  // entry overwrite another.
  Layers layers;
  for (const LayerInfo& layer : candidates) {
    if (layer.is_embedding && !gguf) continue;
    layers.push_back(layer);
    layers.back().fixed.reset();
  }
  std::vector<std::pair<LayerPattern, Scheme>> patterns;
  for (const auto& [name, scheme] : options.layer_config) {
    const Scheme filled = FillFrom(defaults, scheme);
    if (FixExact(name, filled, &layers)) continue;
    AUTOSCHEME_ASSIGN_OR_RETURN(LayerPattern pattern, LayerPattern::Parse(name, "layer_config"));
    patterns.emplace_back(std::move(pattern), filled);
  }
  for (const std::string& name : Routers(layers, options.config_text)) FixExact(name, ignored, &layers);
  for (const IgnoreEntry& entry : ignore) FixExact(entry.pattern, ignored, &layers);
  for (const auto& [pattern, scheme] : patterns) {
    if (FixMatching(pattern, scheme, &layers)) continue;
    AUTOSCHEME_RETURN_IF_ERROR(CheckUnused("layer_config", pattern.text(), pattern, candidates, options, context));
  }
  for (const IgnoreEntry& entry : ignore) {
    if (FixExact(entry.pattern, ignored, &layers)) continue;
    AUTOSCHEME_ASSIGN_OR_RETURN(const LayerPattern pattern, LayerPattern::Parse(entry.pattern, "ignore_layers"));
    if (FixMatching(pattern, ignored, &layers)) continue;
    AUTOSCHEME_RETURN_IF_ERROR(CheckUnused("ignore_layers", entry.text, pattern, candidates, options, context));
  }

  Layers result;
  for (LayerInfo& layer : layers) {
    bool takes_part = true;
    if (layer.is_head) {
      takes_part = HeadTakesPart(layer, options, gguf, context);
      if (!takes_part) layer.fixed.reset();
    }
    if (!SuitsShape(defaults, layer)) {
      if (!takes_part && context.log) {
        context.log(LogLevel::kInfo,
                    absl::StrCat(Quoted(layer.name), " [", layer.out_features, ", ", layer.in_features,
                                 "] is charged to the budget at 16 bits: its shape does not suit ", defaults.name));
      }
      takes_part = true;
      Scheme fixed = SixteenBits(layer.fixed.has_value() ? *layer.fixed : defaults, "fp");
      // An integer default only lifts the weight to 16 bits; there is no activation side to lift.
      if (TypeOf(defaults)->shape == ShapeRule::kWholeGroups) fixed.act_data_type = "fp";
      layer.fixed = std::move(fixed);
    }
    if (takes_part) result.push_back(std::move(layer));
  }
  return result;
}

bool SuitsShape(const Scheme& scheme, const LayerInfo& layer) {
  const DataType* type = TypeOf(scheme);
  if (type == nullptr) return true;
  switch (type->shape) {
    case ShapeRule::kNone: return true;
    case ShapeRule::kMultiplesOf32:
      return scheme.act_bits.value_or(16) < 16 || (layer.out_features % 32 == 0 && layer.in_features % 32 == 0);
    case ShapeRule::kWholeGroups: break;
  }
  return scheme.group.size <= 0 || layer.in_features % scheme.group.size == 0;
}

const char* WhyUnsuited(const Scheme& scheme, int64_t out_features, int64_t in_features) {
  LayerInfo layer;
  layer.out_features = out_features, layer.in_features = in_features;
  if (StandIn(scheme, layer).has_value()) return "super-groups do not divide the rows";
  if (SuitsShape(scheme, layer)) return nullptr;
  return TypeOf(scheme)->shape == ShapeRule::kWholeGroups ? "groups do not divide the rows"
                                                          : "rows or columns are no multiple of 32";
}

namespace {

std::vector<IgnoreEntry> IgnoreEntries(const RuleOptions& options) {
  std::vector<IgnoreEntry> entries;
  for (absl::string_view part :
       absl::StrSplit(absl::StrReplaceAll(options.ignore_layers, {{" ", ""}}), ',', absl::SkipEmpty())) {
    entries.push_back({std::string(part), std::string(part)});
    if (absl::ascii_isdigit(static_cast<unsigned char>(part.back()))) entries.back().pattern.push_back('.');
  }
  return entries;
}

// A pattern that selects no layer is an error, unless it means what is left alone anyway: that is a warning.
absl::Status CheckUnused(absl::string_view what, absl::string_view text, const LayerPattern& pattern,
                         const Layers& layers, const RuleOptions& options, const Context& context) {
  const auto matches = [&](const std::string& name) { return pattern.Matches(name); };
  const bool means_other = absl::c_any_of(options.other_names, matches) ||
                           absl::c_any_of(layers, [&](const LayerInfo& layer) { return matches(layer.name); });
  if (!means_other) return SelectsNothing(what, text, layers);
  context.Warn(absl::StrCat(what, ": ", Quoted(text), " matches tensors that take no part, and no layer that does; ",
                            "it has no effect"));
  return absl::OkStatus();
}

std::vector<std::string> Routers(const Layers& layers, const std::string& config_text) {
  std::vector<std::string> names;
  const std::string text = absl::AsciiStrToLower(config_text);
  if (!absl::StrContains(text, "moe") && !absl::StrContains(text, "expert")) return names;
  for (const LayerInfo& layer : layers) {
    if (!layer.is_head && absl::EndsWith(layer.name, ".gate")) names.push_back(layer.name);
  }
  return names;
}

// 16 bits on both sides, other fields as they stand. Super-groups are left behind: with them the reference charges 32
// bits.
Scheme SixteenBits(const Scheme& base, const std::string& data_type) {
  Scheme scheme = base;
  scheme.name = "16 bits";
  scheme.bits = 16;
  scheme.act_bits = 16;
  scheme.data_type = data_type;
  if (data_type == "float") scheme.act_data_type = data_type;
  scheme.super_bits.reset();
  scheme.super_group_size.reset();
  return scheme;
}

Scheme FillFrom(const Scheme& defaults, Scheme scheme) {
  if (!scheme.act_bits.has_value()) scheme.act_bits = defaults.act_bits;
  if (!scheme.act_group.has_value()) scheme.act_group = defaults.act_group;
  if (!scheme.act_sym.has_value()) scheme.act_sym = defaults.act_sym;
  if (!scheme.act_data_type.has_value()) scheme.act_data_type = defaults.act_data_type;
  if (!scheme.act_dynamic.has_value()) scheme.act_dynamic = defaults.act_dynamic;
  return scheme;
}

bool FixExact(const std::string& name, const Scheme& scheme, Layers* layers) {
  for (LayerInfo& layer : *layers) {
    if (layer.name != name) continue;
    layer.fixed = scheme;
    return true;
  }
  return false;
}

bool FixMatching(const LayerPattern& pattern, const Scheme& scheme, Layers* layers) {
  bool any = false;
  for (LayerInfo& layer : *layers) {
    if (!pattern.Matches(layer.name)) continue;
    layer.fixed = scheme;
    any = true;
  }
  return any;
}

bool HeadTakesPart(const LayerInfo& head, const RuleOptions& options, bool gguf, const Context& context) {
  if (gguf) return !options.tied_head || head.fixed.has_value();
  const bool asked = options.quant_lm_head || head.fixed.has_value();
  const bool quantized = head.fixed.has_value() ? head.fixed->bits < 16 : options.quant_lm_head;
  if (quantized && options.tied_head) {
    context.Warn(absl::StrCat(Quoted(head.name), " is tied to the embedding and stays as it is"));
  }
  return asked && !options.tied_head;
}

}  // namespace
}  // namespace autoscheme
