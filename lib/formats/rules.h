// Which layers take part in the budget, and which of them are fixed before anything is measured (docs/algorithm.md 2).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/context.h"
#include "autoscheme/scheme.h"
#include "autoscheme/score_table.h"

namespace autoscheme {

struct RuleOptions {
  std::vector<Scheme> menu;   // the first one is the default scheme: it decides the rules on shapes and fills gaps
  std::string ignore_layers;  // comma separated names, parts of names or expressions: these stay at 16 bits
  std::vector<std::pair<std::string, Scheme>> layer_config;  // name, part of a name or expression -> fixed scheme
  bool quant_lm_head = false;
  bool tied_head = false;
  // The text of config.json. A mixture of experts is known by "moe" or "expert" in it: its routers (layers called
  // *.gate) stay at 16 bits.
  std::string config_text;
  // Names of other tensors of the model, less ".weight": a pattern that matches none of the layers, but one of these,
  // is no error.
  std::vector<std::string> other_names;
};

// `candidates`: all linear layers of the blocks, the head and (beside k-quants) the embedding, in model order, with
// shapes. The result keeps their order, holds those that take part, and sets `fixed` where a rule or the user fixes the
// scheme:
//  - ignore_layers: an entry ending in a digit gets a trailing dot ("layers.1" is not "layers.10");
//  - layer_config: unset fields are filled from the default scheme; a later pattern wins;
//  - the head takes part when quant_lm_head asks for it, an entry names it, or the default is a k-quant; never when it
//  is tied,
//    unless that is one. As in the reference it also takes part, at 16 bits, when the rule on shapes catches it;
//  - the embedding takes part when the default is a k-quant;
//  - shapes: a layer that the default scheme does not suit (SuitsShape) is fixed at 16 bits. Where another option does
//  not
//    suit one, selection leaves that option out for that layer.
// Patterns that match only what takes no part are reported through the context, as is a head that was asked for but is
// tied. Errors: INVALID_ARGUMENT for an empty menu, an invalid expression (names option and pattern) or a pattern that
// matches nothing (names the layers that are nearest to it).
absl::StatusOr<std::vector<LayerInfo>> ResolveLayers(const std::vector<LayerInfo>& candidates,
                                                     const RuleOptions& options, const Context& context = {});

// Whether runtimes can hold a layer of that shape, by the data type's ShapeRule. k-quants have stand-ins instead.
bool SuitsShape(const Scheme& scheme, const LayerInfo& layer);

}  // namespace autoscheme
