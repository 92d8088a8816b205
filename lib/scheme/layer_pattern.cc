#include "scheme/layer_pattern.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/io.h"

namespace autoscheme {
namespace {

// The matcher recurses once per character, so both sides are kept short.
constexpr size_t kMaxLength = 1000;

}  // namespace

absl::StatusOr<LayerPattern> LayerPattern::Parse(absl::string_view text, const std::string& what) {
  LayerPattern pattern;
  pattern.text_ = std::string(text);
  if (text.size() > kMaxLength) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": the pattern ", Quoted(text), " has ", text.size(),
                                                   " characters; at most ", kMaxLength, " are taken"));
  }
  if (!absl::StrContains(text, ".*") && text.find_first_of("^$|()[]?+") == absl::string_view::npos) return pattern;
  try {
    pattern.expression_ = std::regex(pattern.text_, std::regex::ECMAScript);
  } catch (const std::regex_error& error) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": the pattern ", Quoted(text),
                                                   " is not a valid regular expression (", error.what(),
                                                   "); for any characters write .* instead of *"));
  }
  return pattern;
}

bool LayerPattern::Matches(const std::string& name) const {
  if (!expression_.has_value()) return absl::StrContains(name, text_);
  if (name.size() > kMaxLength) return false;
  try {
    return std::regex_search(name, *expression_);
  } catch (const std::regex_error&) {  // the matcher gave up: too complex
    return false;
  }
}

}  // namespace autoscheme
