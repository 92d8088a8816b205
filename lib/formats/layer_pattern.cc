#include "formats/layer_pattern.h"

#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/nearest.h"

namespace autoscheme {
namespace {

// The parser recurses once per character, so it is kept short.
constexpr size_t kMaxLength = 1000;

}  // namespace

absl::StatusOr<LayerPattern> LayerPattern::Parse(absl::string_view text, const std::string& what) {
  LayerPattern pattern;
  pattern.text_ = std::string(text);
  if (text.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": a pattern is empty, which would match every layer; ", "to mean that write .*"));
  }
  if (text.size() > kMaxLength) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": the pattern ", Quoted(text), " has ", text.size(),
                                                   " characters; at most ", kMaxLength, " are taken"));
  }
  if (!absl::StrContains(text, ".*") && text.find_first_of("^$|()[]?+") == absl::string_view::npos) return pattern;
  absl::StatusOr<Expression> expression = Expression::Parse(text);
  if (!expression.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": the pattern ", Quoted(text), " is not a valid regular expression (",
                     expression.status().message(), "); for any characters write .* instead of *"));
  }
  pattern.expression_ = *std::move(expression);
  return pattern;
}

bool LayerPattern::Matches(const std::string& name) const {
  return expression_.has_value() ? expression_->Matches(name) : absl::StrContains(name, text_);
}

absl::Status SelectsNothing(absl::string_view what, absl::string_view text, const std::vector<LayerInfo>& layers) {
  std::set<std::string> names;
  for (const LayerInfo& layer : layers) {
    names.insert(layer.name);
    for (size_t dot = layer.name.find('.'); dot != std::string::npos; dot = layer.name.find('.', dot + 1)) {
      names.insert(layer.name.substr(dot + 1));
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(what, ": ", Quoted(text), " matches no layer; nearest to it are ",
                                                 Nearest(text, {names.begin(), names.end()})));
}

}  // namespace autoscheme
