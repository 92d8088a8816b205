// Schemes as users write them: the menu to choose from, and those fixed for layers beforehand.
#ifndef AUTOSCHEME_SCHEME_TEXT_H_
#define AUTOSCHEME_SCHEME_TEXT_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "autoscheme/scheme.h"

namespace autoscheme {

// "W4A16,MXFP4", or JSON: a list of preset names and objects of scheme fields, or an object of named ones. Duplicates
// are dropped. Errors: DATA_LOSS for text that is not JSON (with the offset); INVALID_ARGUMENT naming what is wrong.
absl::StatusOr<std::vector<Scheme>> ParseMenu(absl::string_view text);

// A JSON object: name, part of a name or regular expression of layers -> preset name or object of scheme fields, in the
// order of the text. What Options::layer_config takes, and what a recipe's "layer_config" is; of a recipe, or a
// recipe.json that holds one, that object is taken. Errors as above.
absl::StatusOr<std::vector<std::pair<std::string, Scheme>>> ParseLayerConfig(absl::string_view json);

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCHEME_TEXT_H_
