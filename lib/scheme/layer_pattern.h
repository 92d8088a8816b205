// Patterns by which users name layers: an exact name, a part of one, or a regular expression (SPEC 1.6, 7.4).
#ifndef AUTOSCHEME_SCHEME_LAYER_PATTERN_H_
#define AUTOSCHEME_SCHEME_LAYER_PATTERN_H_

#include <optional>
#include <regex>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autoscheme {

class LayerPattern {
 public:
  // Text without any of .* ^ $ | ( ) [ ] ? + is plain: dots in it are dots. Other text is an ECMAScript regular
  // expression that may match anywhere in a name. `what` names the option in messages. INVALID_ARGUMENT: not a valid
  // expression, or longer than 1000 characters.
  static absl::StatusOr<LayerPattern> Parse(absl::string_view text, const std::string& what);

  // True when the name holds the plain text, or the expression matches a part of it. Names longer than 1000 characters
  // match no expression.
  bool Matches(const std::string& name) const;
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::optional<std::regex> expression_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCHEME_LAYER_PATTERN_H_
