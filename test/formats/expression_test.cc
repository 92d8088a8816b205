#include "formats/expression.h"

#include <catch2/catch.hpp>
#include <random>
#include <regex>
#include <string>
#include <vector>

#include "formats/layer_pattern.h"

namespace autoscheme {
namespace {

using Catch::Matchers::Contains;

bool Matches(const std::string& pattern, const std::string& text) {
  CAPTURE(pattern, text);
  const auto expression = Expression::Parse(pattern);
  REQUIRE(expression.ok());
  return expression->Matches(text);
}

TEST_CASE("Expressions match parts of names, or whole ones between ^ and $") {
  const std::string name = "model.layers.10.self_attn.k_proj";
  for (const char* pattern : {"k_proj$",
                              "^model",
                              R"(layers\.(1|10)\.)",
                              R"(\.\d+\.)",
                              R"(layers\.[0-9]{2}\.)",
                              "self.attn",
                              "[qk]_proj",
                              "x*",
                              "",
                              R"(^(?!model\.layers\.1\.self_attn\.k_proj$).*$)",
                              R"(layers\.1(?=0\.))",
                              R"(\bself_attn\b)",
                              R"(\w+\.\w+\.\d\d)",
                              R"(^[^:]+$)",
                              R"(^[[:alpha:]]+\.)",
                              R"(attn(?:\.|_)k)",
                              R"(\x6b_proj)",
                              R"(la?yers?)",
                              R"(^.{32}$)",
                              R"((k|q|v)_proj|down)"}) {
    CHECK(Matches(pattern, name));
  }
  for (const char* pattern :
       {"^k_proj", "model$", R"(layers\.1\.)", "[^a-z._0-9]", R"(^(?!model).*$)", R"(layers\.(?=11))", R"(\Bself)",
        "_attn_", R"(^.{31}$)", R"(\d{3})", R"(^(?!(?=model\.layers).*k_proj$).*$)", "proj.", R"(\s)"}) {
    CHECK_FALSE(Matches(pattern, name));
  }
  CHECK(Matches(R"(^(?!model\.layers\.1\.self_attn\.k_proj$).*$)", "model.layers.1.self_attn.q_proj"));
  CHECK_FALSE(Matches(R"(^(?!model\.layers\.1\.self_attn\.k_proj$).*$)", "model.layers.1.self_attn.k_proj"));
}

TEST_CASE("Random expressions match what the standard library's match") {
  std::mt19937 random(7);
  const auto pick = [&](const std::vector<std::string>& from) { return from[random() % from.size()]; };
  int matched = 0;
  std::string wrong;
  for (int i = 0; i < 30000; ++i) {
    std::string pattern;
    int open = 0;
    for (size_t parts = 1 + random() % 6; parts-- > 0;) {
      const size_t kind = random() % 8;
      if (kind == 0) {
        pattern += pick({"(", "(?:", "(?=", "(?!"}), ++open;
      } else if (kind == 1) {
        pattern += "|";
      } else {
        pattern += pick({"a", "b", ".", "[ab]", "[^a]", "\\w", "(a|b)", "(ab|)", "^", "$", "\\b", "\\B", "c"});
        if (std::string("^$bB").find(pattern.back()) == std::string::npos)
          pattern += pick({"", "", "*", "+", "?", "{2}", "{1,2}", "{0,1}", "*?", "{2,}"});
        if (open > 0 && random() % 3 == 0) pattern += ")", --open;
      }
    }
    for (; open > 0; --open) pattern += ")";
    // To libstdc++ the text begins anew where a lookahead does.
    const bool looks = pattern.find("(?=") != std::string::npos || pattern.find("(?!") != std::string::npos;
    if (looks && pattern.find_first_of("^\\") != std::string::npos) continue;
    const std::regex wanted(pattern, std::regex::ECMAScript);
    const auto expression = Expression::Parse(pattern);
    CAPTURE(pattern, expression.status().ToString());
    REQUIRE(expression.ok());
    for (int k = 0; k < 5; ++k) {
      std::string text;
      for (size_t length = random() % 7; length-- > 0;) text += "abc."[random() % 4];
      const bool matches = std::regex_search(text, wanted);
      matched += matches;
      if (expression->Matches(text) == matches) continue;
      wrong += pattern + " on '" + text + "' should " + (matches ? "" : "not ") + "match\n";
    }
  }
  CHECK_THAT(wrong, Catch::Matchers::Equals(""));
  CHECK(matched > 10000);
  CHECK(matched < 100000);
}

// A matcher that tries all ways would not come to an end.
TEST_CASE("Expressions that have countless ways to match a name are done with it at once") {
  std::string name = "model.layers.10.self_attn.k_proj";
  while (name.size() < 2000) name += ".more_of_a_name_0123456789";
  for (const char* pattern :
       {R"(^(\w+\.?)+x$)", R"(^(\w+\.?)*\d!)", "(a|a|a)*b*(m.*)*:", "^(.*)*(.*)*(.*)*(.*)*x$", R"(^(\w+)+$)",
        R"(^(?=(\w+\.?)+x$))", R"(^(?!((\w|\.)+)+x$).*x$)", R"((?=(?=(?=(?=.*x$).*x$).*x$).*x$))", R"(^((\w*)*\.)*x$)",
        "(.?){200}(.*){200}x$", R"(([^.]*\.){3,}([^.]*\.){3,}x$)"}) {
    CHECK_FALSE(Matches(pattern, name));
  }
  CHECK(Matches(R"(^(\w+\.?)+9$)", name));
}

TEST_CASE("What is no expression is said to be none, with the place") {
  const std::pair<const char*, const char*> cases[] = {{"a(b", "a '(' without its ')' at character 2"},
                                                       {"a)", "a ')' without its '(' at character 2"},
                                                       {"[a", "a '[' without its ']' at character 1"},
                                                       {"^*", "nothing to repeat at character 2"},
                                                       {"(|+)", "nothing to repeat at character 3"},
                                                       {"(a){x}", "a '{' without a number"},
                                                       {"(a){1", "a '{' without its '}'"},
                                                       {"(a){3,2}", "most is less"},
                                                       {R"((a)\1)", "back-reference"},
                                                       {"(a)\\", "nothing after it"},
                                                       {R"(q?\q)", "unknown escape, '\\q'"},
                                                       {R"(q?\x4)", "too few hexadecimal"},
                                                       {"[z-a]", "range that does not rise"},
                                                       {"[]a]", "a set that begins with ']'"},
                                                       {"[^]a]", "a set that begins with ']'"},
                                                       {"[[:nothing:]]", "unknown class"},
                                                       {"(?<a>b)", "begins with neither"},
                                                       {"(?=a)+", "nothing to repeat"},
                                                       {"(((a{99}){99}){99}){99}", "more than 5000 steps"},
                                                       {"(((){5000}){5000}){5000}", "more than 5000 steps"},
                                                       {"(a){99999999999999999999}", "more than 5000 steps"}};
  for (const auto& [pattern, why] : cases) {
    CAPTURE(pattern);
    const auto expression = Expression::Parse(pattern);
    REQUIRE(expression.status().code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(expression.status().message()), Contains(why));
    const auto named = LayerPattern::Parse(pattern, "ignore_layers");
    REQUIRE_FALSE(named.ok());
    CHECK_THAT(std::string(named.status().message()),
               Contains("ignore_layers: the pattern") && Contains("is not a valid regular expression"));
  }
  CHECK_FALSE(LayerPattern::Parse(std::string(500, '(') + std::string(501, ')'), "x").ok());
  CHECK(LayerPattern::Parse(std::string(500, '(') + std::string(500, ')'), "x").ok());
}

TEST_CASE("Every text gives an expression or a status", "[hostile]") {
  std::mt19937 random(11);
  const std::string letters = "ab()[]{}|*+?^$.\\-:=!,019dwsbBxu\xff";
  for (int i = 0; i < 50000; ++i) {
    std::string pattern;
    for (size_t length = random() % 24; length-- > 0;) pattern += letters[random() % letters.size()];
    const auto expression = Expression::Parse(pattern);
    if (expression.ok()) expression->Matches("aab.model.0\xff");
  }
}

}  // namespace
}  // namespace autoscheme
