// Patterns by which users name layers: an exact name, a part of one, or a regular expression (docs/algorithm.md 2.2).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "autoscheme/score_table.h"
#include "formats/expression.h"

namespace autoscheme {

class LayerPattern {
 public:
  // Text without any of .* ^ $ | ( ) [ ] ? + is plain: dots in it are dots. Other text is a regular expression that may
  // match anywhere in a name. `what` names the option in messages. INVALID_ARGUMENT: empty, not a valid expression,
  // longer than 1000 characters, or one that unfolds to more than 5000 steps.
  static absl::StatusOr<LayerPattern> Parse(absl::string_view text, const std::string& what);

  // True when the name holds the plain text, or the expression matches a part of it. Takes bounded time, whatever the
  // pattern.
  bool Matches(const std::string& name) const;
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::optional<Expression> expression_;
};

// INVALID_ARGUMENT: a name or pattern of an option selects no layer. Names what comes nearest to it of the layers'
// names and of their parts after a dot.
absl::Status SelectsNothing(absl::string_view what, absl::string_view text, const std::vector<LayerInfo>& layers);

}  // namespace autoscheme
