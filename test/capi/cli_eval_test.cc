// autoscheme eval: its table, its JSON, and what it refuses.
#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "capi/cli_run.h"

namespace autoscheme {
namespace {

using Catch::Contains;

// A model with two recipes in one file and one in another.
struct EvalShell : Shell {
  EvalShell() : two(dir / "two.json"), one(dir / "one.json") { Select("4.5,6", two), Select("8", one); }
  void Select(const std::string& bits, const std::string& out) const {
    const Run run = (*this)({"run", "--model", model_dir, "--tokens", tokens, "--schemes", "W4A16,W8A16", "--avg-bits",
                             bits, "--out", out, "--quiet"});
    CAPTURE(run.err);
    REQUIRE(run.code == 0);
  }
  Run Eval(std::vector<std::string> more) const {
    std::vector<std::string> arguments = {"eval", "--model", model_dir, "--tokens", tokens, "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return (*this)(arguments);
  }
  const std::string two, one;
};

TEST_CASE("eval prints a row for full precision, each recipe and each scheme") {
  const EvalShell shell;
  const Run run = shell.Eval({"--recipes", shell.two + "," + shell.one, "--schemes", "W2A16,BF16"});
  CAPTURE(run.out, run.err);
  REQUIRE(run.code == 0);
  CHECK_THAT(run.out, Contains("full precision") && Contains("avg bits") && Contains("perplexity"));
  CHECK_THAT(run.out, Contains("two.json (4.5 bits)") && Contains("two.json (6 bits)") && Contains("one.json  "));
  CHECK_THAT(run.out, Contains("W2A16") && Contains("100.00%"));  // BF16 leaves everything
  CHECK_THAT(run.out, Contains("of the mean over rows"));
  CHECK_THAT(run.out, Contains("bytes read") && !Contains("backward"));
}

TEST_CASE("eval writes eval.json, or prints it, with what was asked for beside the means") {
  const EvalShell shell;
  const std::string out = shell.dir / "eval.json";
  const Run written = shell.Eval({"--recipes", shell.one, "--out", out, "--worst-tokens", "2", "--by-position"});
  CAPTURE(written.err);
  REQUIRE(written.code == 0);
  CHECK_THAT(written.out, Contains("wrote " + out) && Contains("worst tokens of"));
  const std::string json = Slurp(out);
  CHECK_THAT(
      json, Contains("\"format\": \"autoscheme-eval\"") && Contains("\"position_kl\"") && Contains("\"worst_tokens\""));
  const Run printed = shell.Eval({"--recipes", shell.one, "--json"});
  CHECK(printed.code == 0);
  CHECK(printed.out.substr(0, 30) == json.substr(0, 30));
  CHECK_THAT(printed.out, !Contains("position_kl") && !Contains("worst_tokens") && !Contains("+-"));
  const Run piped = shell.Eval({"--schemes", "W4A16", "--out", "-"});
  CHECK(piped.code == 0);
  CHECK(piped.out.front() == '{');
}

TEST_CASE("what eval cannot do is one line: exit 2 for the command line, 1 for what it names") {
  const EvalShell shell;
  const Run nothing = shell.Eval({});
  CHECK(nothing.code == 2);
  CHECK_THAT(nothing.err, Contains("nothing to evaluate"));
  const auto fails = [&](const std::vector<std::string>& more, const std::string& words) {
    const Run run = shell.Eval(more);
    CAPTURE(run.err);
    CHECK(run.code == 1);
    CHECK(run.lines() == 1);
    CHECK_THAT(run.err, Contains(words));
  };
  fails({"--recipes", shell.dir / "none.json"}, "none.json");
  fails({"--recipes", shell.tokens}, "tokens");
  fails({"--recipes", shell.one, "--max-ram", "1MiB"}, "the smallest that works is");
  fails({"--recipes", shell.one, "--out", shell.one}, "one.json");
  std::string other = Slurp(shell.one);
  const size_t at = other.find("layers.0.");
  REQUIRE(at != std::string::npos);
  other.replace(other.find("layers.0.", other.find("\"layer_config\"")), 9, "layers.9.");
  fails({"--recipes", shell.dir.Write("other.json", other)}, "layers.9.");
}

TEST_CASE("a budget holds for eval, and the least that is named works") {
  const EvalShell shell;
  const Run refused = shell.Eval({"--recipes", shell.two, "--max-ram", "1MiB"});
  const std::string words = "the smallest that works is ";
  const size_t at = refused.err.find(words);
  REQUIRE(at != std::string::npos);
  const std::string least =
      refused.err.substr(at + words.size(), refused.err.find(' ', at + words.size()) - at - words.size());
  const Run run = shell.Eval({"--recipes", shell.two, "--max-ram", least});
  CAPTURE(least, run.err);
  CHECK(run.code == 0);
}

}  // namespace
}  // namespace autoscheme
