// The autoscheme program: exit codes, messages, results.
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "capi/cli_run.h"

namespace autoscheme {
namespace {

using Catch::Contains;
namespace fs = std::filesystem;

TEST_CASE("option files that are missing, empty or of another kind are said to be so") {
  Shell shell;
  const auto refused = [&](const std::string& flag, const std::string& value, const std::vector<std::string>& words) {
    std::vector<std::string> arguments = {
        "score", "--model", shell.model_dir, "--tokens", shell.tokens, "--out", shell.dir / "s.json", flag, value};
    if (flag != "--schemes") arguments.insert(arguments.end(), {"--schemes", "W8A16"});
    const Run run = shell(arguments);
    CAPTURE(run.err);
    CHECK(run.code == 2);
    CHECK(run.lines() == 1);
    CHECK_THAT(run.err, Contains("flag " + flag));
    for (const std::string& word : words) CHECK_THAT(run.err, Contains(word));
  };
  refused("--schemes", "menu.json", {"no such file: 'menu.json'"});
  refused("--schemes", shell.dir / "menu", {"no such file: '" + (shell.dir / "menu") + "'"});
  refused("--schemes", shell.dir.path(), {"is a folder"});
  refused("--schemes", "W99", {"unknown scheme"});
  refused("--schemes", shell.dir.Write("empty", " \n"), {"empty' is empty"});
  refused("--schemes", shell.dir.Write("menu.txt", "[\"W99\"]"), {"menu.txt': ", "W99"});
  refused("--layer-config", "layers", {"no such file: 'layers'"});
  refused("--layer-config", shell.dir / "none.json", {"no such file: "});
  refused("--layer-config", shell.dir.Write("none", ""), {"none' is empty"});
  refused("--layer-config", shell.dir.Write("braces", "{ }\n"), {"braces': ", "holds no layer"});
  refused("--layer-config", "{}", {"holds no layer"});
  refused("--layer-config", shell.dir.Write("broken", "{\"a\": W4A16}"), {"broken': ", "not valid JSON"});
  refused("--layer-config", shell.dir.Write("scores", "{\"format\": \"autoscheme-scores\"}"),
          {"scores': ", "autoscheme select"});
  const Run inline_json =
      shell({"score", "--model", shell.model_dir, "--tokens", shell.tokens, "--out", shell.dir / "s.json", "--schemes",
             "[\"W8A16\"]", "--layer-config", "{\"k_proj\": \"W4A16\"}", "--threads", "1"});
  CAPTURE(inline_json.err);
  CHECK(inline_json.code == 0);
  CHECK_THAT(Slurp(shell.dir / "s.json"), Contains("W4A16"));
}

TEST_CASE("the menu can be given by AutoRound's name for it too, but once") {
  Shell shell;
  const std::string scores = shell.dir / "s.json";
  const std::vector<std::string> score = {"score", "--model", shell.model_dir, "--tokens", shell.tokens,
                                          "--out", scores,    "--options",     "W8A16"};
  CHECK(shell(score).code == 0);
  std::vector<std::string> twice = score;
  twice.insert(twice.end(), {"--schemes", "W4A16"});
  const Run run = shell(twice);
  CHECK(run.code == 2);
  CHECK_THAT(run.err, Contains("flag --schemes is given twice"));
}

TEST_CASE("a scorer that does not exist is refused with the names of those that do") {
  Shell shell;
  const Run run = shell(shell.Scoring("score", {"--out", shell.dir / "s.json", "--scorer", "hessian"}));
  CHECK(run.code == 2);
  CHECK_THAT(run.err, Contains("hessian") && Contains("deltaloss"));
  CHECK(shell(shell.Scoring("score", {"--out", shell.dir / "s.json", "--scorer", "deltaloss"})).code == 0);
}

TEST_CASE("a recipe fixes its layers when it is given as a layer config") {
  Shell shell;
  const std::string recipe = shell.dir / "recipe.json", again = shell.dir / "again.json";
  REQUIRE(shell(shell.Scoring("run", {"--avg-bits", "6", "--out", recipe})).code == 0);
  const Run run = shell(shell.Scoring("score", {"--out", again, "--layer-config", recipe}));
  CAPTURE(run.err);
  REQUIRE(run.code == 0);
  const std::string fixed = "\"fixed\"";
  int layers = 0;
  const std::string scores = Slurp(again);
  for (size_t at = 0; (at = scores.find(fixed, at)) != std::string::npos; at += fixed.size()) ++layers;
  CHECK(layers == 14);  // two blocks' worth
}

// Nothing but printable ASCII and line feeds.
bool IsPlain(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c == '\n' || (c >= ' ' && c < 0x7f); });
}

TEST_CASE("names from files and from the command line drive no terminal") {
  Shell shell;
  const std::string model = shell.dir / "mo\x1b[31mdel\r\xff";
  fs::copy(shell.model_dir, model);
  const Run inspect = shell({"inspect", "--model", model});
  CHECK(inspect.code == 0);
  CHECK(IsPlain(inspect.out));
  CHECK_THAT(inspect.out, Contains("mo\\x1b[31mdel\\x0d\\xff") && Contains("self_attn.q_proj"));

  const std::string scores = shell.dir / "sco\x1b[2Jres.json";
  const Run score = shell({"score", "--model", model, "--tokens", shell.tokens, "--schemes", "W4A16,W8A16", "--threads",
                           "1", "--progress", "json", "--out", scores});
  INFO(score.err);
  CHECK(score.code == 0);
  CHECK(IsPlain(score.out));
  CHECK(IsPlain(score.err));
  CHECK_THAT(score.out, Contains("sco\\x1b[2Jres.json"));

  std::string text = Slurp(scores);
  for (size_t at; (at = text.find("\"W4A16\"")) != std::string::npos;) text.replace(at, 7, "\"four\\u001b[1m\"");
  shell.dir.Write("hostile.json", text);
  const Run select =
      shell({"select", "--scores", shell.dir / "hostile.json", "--avg-bits", "5", "--out", shell.dir / "out\x1b.json"});
  INFO(select.err);
  CHECK(select.code == 0);
  CHECK(IsPlain(select.out));
  CHECK_THAT(select.out, Contains("four\\x1b[1m") && Contains("out\\x1b.json"));

  for (const std::vector<std::string>& wrong :
       {std::vector<std::string>{"\x1b[31m"},
        {"inspect", "\x1b[31m"},
        {"inspect", "--\x1b[31m"},
        {"inspect", "--model", "\x1b\n"},
        {"select", "--scores", scores, "--avg-bits", "5", "--out", "/nonexistent/\x1b"},
        {"score", "--model", model, "--tokens", shell.tokens, "--schemes", "W4A16", "--progress", "\x1b", "--out", "x"},
        {"score", "--model", model, "--tokens", shell.tokens, "--schemes", "W4A16", "--ignore-layers",
         "no\x1b]0;such\x07", "--out", "x"}}) {
    const Run run = shell(wrong);
    CHECK(run.code > 0);
    CHECK(run.lines() == 1);
    CHECK(IsPlain(run.err));
  }
}

TEST_CASE("every command that takes a model takes aliases, from a file or as they stand") {
  Shell shell;
  const std::string plain = shell.dir / "plain.json", scores = shell.dir / "scores.json";
  REQUIRE(shell(shell.Scoring("score", {"--out", plain})).code == 0);
  shell.Disguise("mine");
  const std::string json = R"([{"model_type": "mine", "as": "llama", "rename": {"my_eps": "rms_norm_eps"},
                                "set": {"hidden_act": "silu"}}])";
  const std::string file = shell.dir.Write("aliases.json", json);
  const Run unknown = shell({"inspect", "--model", shell.model_dir});
  CHECK(unknown.code == 1);
  CHECK_THAT(unknown.err, Contains("\"mine\" is not supported") && Contains("alias"));
  const Run inspect = shell({"inspect", "--model", shell.model_dir, "--aliases", json});
  CHECK(inspect.code == 0);
  CHECK_THAT(inspect.out, Contains("type        mine"));
  CHECK(shell(shell.Scoring("plan", {"--aliases", file})).code == 0);
  CHECK(shell(shell.Scoring("score", {"--aliases", file, "--out", scores})).code == 0);
  CHECK(MeasuredOf(Slurp(scores)) == MeasuredOf(Slurp(plain)));
  CHECK_THAT(MeasuredOf(Slurp(scores)), Contains("self_attn.q_proj"));
  const Run run = shell(shell.Scoring("run", {"--aliases", file, "--avg-bits", "6", "--out", file}));
  CHECK(run.code == 1);  // not over its own input
  CHECK(Slurp(file) == json);
  const Run broken = shell({"inspect", "--model", shell.model_dir, "--aliases", shell.dir.Write("broken", "[\n}")});
  CHECK(broken.code == 2);
  CHECK(broken.lines() == 1);
  CHECK_THAT(broken.err, Contains("flag --aliases: '") && Contains("broken': aliases is not valid JSON") &&
                             Contains("line 2, column 1"));
  CHECK_THAT(shell({"inspect", "--model", "x", "--aliases", "none"}).err, Contains("no such file: 'none'"));
}

TEST_CASE("the example that describes a model of its own opens it") {
  Shell shell;
  shell.model.model_type = "sideways";
  std::vector<RawTensor> tensors;
  for (RawTensor& tensor : MakeTinyTensors(shell.model)) {
    const bool gone = tensor.name.find("gate_proj") != std::string::npos ||
                      tensor.name.find("post_attention_layernorm") != std::string::npos;
    if (!gone) tensors.push_back(std::move(tensor));
  }
  WriteTinyWeights(tensors, 1, shell.model_dir);
  shell.dir.Write("model/config.json", TinyConfig(shell.model));
  const std::string printed = shell.dir / "printed";
  REQUIRE(std::system((AUTOSCHEME_ARCHITECTURE_EXAMPLE " '" + shell.model_dir + "' > '" + printed + "'").c_str()) == 0);
  CHECK_THAT(Slurp(printed), Catch::StartsWith("sideways: 2 blocks\n  model.layers.0.self_attn.q_proj 64 x 64\n") &&
                                 Contains("up_proj 64 x 64\n  model.layers.0.mlp.down_proj"));
}

TEST_CASE("help is printed to stdout and is a success") {
  Shell shell;
  const Run all = shell({"--help"});
  CHECK(all.code == 0);
  CHECK(all.err.empty());
  for (const char* command : {"inspect", "plan", "score", "select", "run", "schemes"}) {
    CHECK_THAT(all.out, Contains(command));
    const Run one = shell({command, "--help"});
    CHECK(one.code == 0);
    CHECK_THAT(one.out, Contains(command));
    CHECK(shell({"help", command}).out == one.out);
  }
  const Run run = shell({"run", "--help"});
  for (const char* flag :
       {"--model",        "--aliases",       "--schemes",  "--tokens",     "--avg-bits",   "--out",
        "--max-ram",      "--nsamples",      "--seqlen",   "--max-tokens", "--batch-size", "--threads",
        "--dtype",        "--device",        "--work-dir", "--no-spill",   "--io-engine",  "--ignore-layers",
        "--layer-config", "--shared-layers", "--progress", "--quiet"}) {
    CHECK_THAT(run.out, Contains(flag));
  }
  CHECK_THAT(shell({"--version"}).out,
             Catch::StartsWith("autoscheme " AUTOSCHEME_VERSION "\nLibTorch ") && Contains("; devices: cpu"));
}

TEST_CASE("a wrong command line is exit 2 with one line on stderr") {
  Shell shell;
  const std::string out = shell.dir / "out.json";
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"bake"},
      {"help", "bake"},
      {"inspect"},
      {"inspect", "--model"},
      {"inspect", "--modle", "x"},
      {"inspect", "model"},
      {"inspect", "--model", "x", "--model", "y"},
      {"inspect", "--model", "x", "--json=1"},
      shell.Scoring("score"),
      shell.Scoring("run", {"--out", out}),
      shell.Scoring("run", {"--avg-bits", "4"}),
      {"select", "--scores", "scores.json", "--out", out},
      {"select", "--scores", "scores.json", "--avg-bits", "4"},
      {"select", "--scores", "scores.json", "--avg-bits", "4", "--out", out, "--pareto", out},
      shell.Scoring("score", {"--out", out, "--max-ram", "lots"}),
      shell.Scoring("score", {"--out", out, "--nsamples", "0"}),
      shell.Scoring("score", {"--out", out, "--batch-size", "-3"}),
      shell.Scoring("score", {"--out", out, "--dtype", "float13"}),
      shell.Scoring("score", {"--out", out, "--io-engine", "uring"}),
      shell.Scoring("score", {"--out", out, "--progress", "loud"}),
      shell.Scoring("run", {"--out", out, "--avg-bits", "four"}),
      shell.Scoring("run", {"--out", out, "--avg-bits", "4,,5"}),
      shell.Scoring("run", {"--out", out, "--avg-bits", ""}),
      {"score", "--model", shell.model_dir, "--tokens", shell.tokens, "--schemes", "W99", "--out", out},
  };
  for (const auto& arguments : wrong) {
    const Run run = shell(arguments);
    INFO((arguments.empty() ? "no command" : arguments.back()) << ": " << run.err);
    CHECK(run.code == 2);
    CHECK(run.lines() == 1);
    CHECK(run.out.empty());
    CHECK_THAT(run.err, Contains("--help"));
  }
  CHECK_FALSE(fs::exists(out));
  CHECK_THAT(shell(shell.Scoring("score", {"--out", out, "--io-engine", "uring"})).err,
             Contains("one of auto, direct, buffered"));
}

TEST_CASE("inspect prints the structure, as text and as JSON") {
  Shell shell;
  const Run text = shell({"inspect", "--model", shell.model_dir});
  CHECK(text.code == 0);
  CHECK_THAT(text.out, Contains("llama") && Contains("self_attn.q_proj.weight") && Contains("64 x 64"));
  const Run json = shell({"inspect", "--json", "--model=" + shell.model_dir});
  CHECK(json.code == 0);
  CHECK(json.out.front() == '{');
  CHECK_THAT(json.out, Contains("\"model.layers.1.mlp.up_proj\""));
}

TEST_CASE("schemes lists the catalogue") {
  Shell shell;
  const Run run = shell({"schemes"});
  CHECK(run.code == 0);
  CHECK_THAT(run.out, Contains("W4A16") && Contains("MXFP4"));
}

TEST_CASE("a failure is exit 1 with one line on stderr, found before any work where it can be") {
  Shell shell;
  const Run model = shell({"inspect", "--model", shell.dir / "nowhere"});
  CHECK(model.code == 1);
  CHECK(model.lines() == 1);
  CHECK_THAT(model.err, Contains("nowhere"));
  const Run unwritable = shell(shell.Scoring("score", {"--out", shell.dir / "no/folder/scores.json"}));
  CHECK(unwritable.code == 1);
  CHECK(unwritable.lines() == 1);
  CHECK_THAT(unwritable.err, Contains("no/folder/scores.json"));
  const std::string tokens_before = Slurp(shell.tokens);
  for (const std::string& input : {shell.tokens, shell.model_dir + "/config.json"}) {
    const Run overwrite = shell(shell.Scoring("score", {"--out", input}));
    CHECK(overwrite.code == 1);
    CHECK_THAT(overwrite.err, Contains("overwrite"));
  }
  CHECK(Slurp(shell.tokens) == tokens_before);
  const Run same = shell(shell.Scoring("run", {"--avg-bits", "6", "--out", "x.json", "--save-scores", "x.json"}));
  CHECK(same.code == 2);
  const Run budget = shell(shell.Scoring("score", {"--out", shell.dir / "s.json", "--max-ram", "1MiB"}));
  CHECK(budget.code == 1);
  CHECK(budget.lines() == 1);
  CHECK_FALSE(fs::exists(shell.dir / "s.json"));
  const Run few = shell(shell.Scoring("score", {"--out", shell.dir / "s.json", "--nsamples", "400"}));
  CHECK(few.code == 1);
  CHECK_THAT(few.err, Contains("400"));
}

TEST_CASE("plan prints the peak and the least budget, which then works") {
  Shell shell;
  const Run text = shell(shell.Scoring("plan"));
  CHECK(text.code == 0);
  CHECK_THAT(text.out, Contains("peak") && Contains("bytes to read"));
  const Run json = shell(shell.Scoring("plan", {"--json"}));
  CHECK(json.code == 0);
  CHECK_THAT(json.out, Contains("\"peak_bytes\":") && Contains("\"resident\":["));
}

TEST_CASE("a plan needs neither weights nor ids, and is that of the folder and of as many ids") {
  Shell shell;
  const std::string config = shell.model_dir + "/config.json";
  // 128 ids of a vocabulary of 64: every row of the embedding is read.
  const std::string ids = shell.dir.Write("ids.json", [] {
    std::string text;
    for (int i = 0; i < 128; ++i) {
      text += (i == 0 ? "[[" : i % 32 == 0 ? "], [" : ", ") + std::to_string(i % 64);
    }
    return text + "]]";
  }());
  const auto plan = [&](const std::vector<std::string>& of) {
    std::vector<std::string> arguments = {"plan", "--schemes", "W4A16", "--threads",
                                          "1",    "--max-ram", "1GiB",  "--json"};
    arguments.insert(arguments.end(), of.begin(), of.end());
    const Run run = shell(arguments);
    CAPTURE(run.err);
    CHECK(run.code == 0);
    return run.out.substr(0, run.out.find("\"estimated_s\""));  // measured
  };
  const std::string folder = plan({"--model", shell.model_dir, "--tokens", ids});
  CHECK_THAT(folder, Contains("\"read_bytes\":"));
  CHECK(plan({"--model", config, "--tokens", ids}) == folder);
  CHECK(plan({"--model", config, "--nsamples", "4", "--seqlen", "32"}) == folder);
  CHECK(plan({"--model", config, "--seqlen", "32"}) == plan({"--model", config, "--seqlen", "32", "--nsamples", "16"}));
  CHECK(plan({"--model", config, "--seqlen", "32", "--max-tokens", "140"}) == folder);
  const Run none = shell({"plan", "--model", config, "--schemes", "W4A16", "--seqlen", "32", "--max-tokens", "31"});
  CHECK(none.code == 1);
  CHECK_THAT(none.err, Contains("--max-tokens 31 holds no row of 32 ids"));
  const Run much = shell({"plan", "--model", config, "--schemes", "W4A16", "--nsamples", "9999999999"});
  CHECK(much.code == 1);
  CHECK_THAT(much.err, Contains("--nsamples 9999999999 times --seqlen 128 is more than"));
  // Rows of 256 ids, or of as many as the model has positions.
  CHECK(plan({"--model", config}) == plan({"--model", config, "--seqlen", "128", "--nsamples", "16"}));

  const std::string moved = shell.dir.Write("moved/config.json", Slurp(config));
  const Run inspect = shell({"inspect", "--model", moved});
  CHECK(inspect.code == 0);
  CHECK_THAT(inspect.out, Contains("shards      none") && Contains("lm_head.weight") && Contains("49.2 K  85.2%"));
  const Run bare = shell({"inspect", "--model", shell.dir / "moved"});
  CHECK(bare.code == 1);
  CHECK_THAT(bare.err, Contains("to plan a run without them give"));
  const Run score = shell({"score", "--model", moved, "--tokens", ids, "--schemes", "W4A16", "--out", shell.dir / "s"});
  CHECK(score.code == 1);
  CHECK_THAT(score.err, Contains("is a config.json without weights"));
  CHECK(!fs::exists(shell.dir / "s"));
}

TEST_CASE("score and select give what run gives, and run prints a table") {
  Shell shell;
  const std::string scores = shell.dir / "scores.json", kept = shell.dir / "kept.json";
  const std::string selected = shell.dir / "selected.json", recipe = shell.dir / "recipe.json";
  const Run score = shell(shell.Scoring("score", {"--out", scores, "--batch-size", "2"}));
  INFO(score.err);
  REQUIRE(score.code == 0);
  CHECK(score.err.empty());  // not a terminal: no progress
  const Run select = shell({"select", "--scores", scores, "--avg-bits", "5,6.5", "--out", selected});
  REQUIRE(select.code == 0);
  CHECK_THAT(select.out, Contains("5 bits per weight") && Contains("6.5 bits per weight") && Contains("W4A16"));
  const Run run = shell(shell.Scoring("run", {"--avg-bits", "5,6.5", "--out", recipe, "--save-scores", kept,
                                              "--batch-size", "2", "--progress", "json", "--no-verify"}));
  INFO(run.err);
  REQUIRE(run.code == 0);
  CHECK(WithoutRun(Slurp(kept)) == WithoutRun(Slurp(scores)));
  CHECK_THAT(Slurp(kept), Contains("\"peak_rss_bytes\": ") && Contains("\"product_share\": "));
  CHECK(Slurp(recipe) == Slurp(selected));
  CHECK_THAT(run.out, Contains("bytes read") && Contains("peak memory") && Contains("predicted loss"));
  CHECK_THAT(run.err, Contains("{\"stage\":\"backward\",\"done\":4,\"total\":4,"));
  const Run quiet = shell(shell.Scoring("score", {"--out", scores, "--quiet"}));
  CHECK(quiet.code == 0);
  CHECK(quiet.out.empty());
  CHECK(quiet.err.empty());
  const std::string front = shell.dir / "front.json";
  const Run pareto = shell({"select", "--scores", scores, "--pareto", front});
  INFO(pareto.err);
  CHECK(pareto.code == 0);
  CHECK_THAT(Slurp(front), Contains("\"format\": \"autoscheme-pareto\"") && Contains("\"complete\": true"));
  const Run sized = shell({"select", "--scores", scores, "--target-size", "1GiB", "--pareto", front, "--out", recipe,
                           "--shared-layers", "vllm"});
  INFO(sized.err);
  CHECK(sized.code == 0);
  CHECK_THAT(sized.out, Contains("recipe for 1.0 GiB"));
  CHECK_THAT(Slurp(recipe), Contains("\"target_bytes\": 1073741824"));
  CHECK(shell({"select", "--scores", scores, "--target-size", "1KiB", "--out", recipe}).code == 1);
  CHECK(shell({"select", "--scores", scores, "--target-size", "much", "--out", recipe}).code == 2);
  CHECK(shell({"select", "--scores", scores, "--out", recipe}).code != 0);
  const Run in_place = shell({"select", "--scores", scores, "--avg-bits", "5", "--out", scores});
  CHECK(in_place.code == 1);
}

TEST_CASE("run measures what it chose on rows that it did not score, unless it is told otherwise") {
  Shell shell;
  const std::string recipe = shell.dir / "recipe.json", scores = shell.dir / "scores.json";
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--avg-bits", "5", "--out", recipe, "--save-scores", scores});
    return shell(shell.Scoring("run", more));
  };
  const Run verified = run({"--verify"});
  INFO(verified.err);
  REQUIRE(verified.code == 0);
  CHECK_THAT(verified.out, Contains("of their own") && Contains("to measure the recipes") &&
                               Contains("the choice by scores") && Contains("all W4A16"));
  CHECK_THAT(Slurp(recipe), Contains("\"verified\": {") && Contains("\"uniforms\": ["));
  const std::string of_rest = Slurp(scores);
  const Run plain = run({"--no-verify"});
  CHECK(plain.code == 0);
  CHECK_THAT(Slurp(recipe), !Contains("\"verified\""));
  CHECK(WithoutRun(Slurp(scores)) != WithoutRun(of_rest));
  const Run other = run({"--verify-tokens", shell.dir / "tokens.json"});
  INFO(other.err);
  CHECK(other.code == 0);
  CHECK_THAT(Slurp(recipe), Contains("\"verified\": {"));
  CHECK(run({"--no-verify", "--verify"}).code == 2);
  CHECK_THAT(other.err, Contains("are rows that are scored"));
  CHECK(run({"--verify-tokens", "/nonexistent/x"}).code == 1);
  const Run strange =
      run({"--verify-tokens", shell.dir.Write("v.json", "[[1, 2], [3, 99999999]]"), "--progress", "json"});
  CHECK(strange.code == 1);
  CHECK_THAT(strange.err, Contains("v.json") && Contains("99999999") && !Contains("\"stage\""));
  CHECK_THAT(run({"--verify", "--nsamples", "1"}).err, Contains("keep a quarter of the rows back"));
}

TEST_CASE("run --refine says what it will cost, measures, and tells what it found") {
  Shell shell;
  const std::string recipe = shell.dir / "recipe.json";
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--avg-bits", "5", "--out", recipe});
    return shell(shell.Scoring("run", more));
  };
  const Run refined = run({"--refine", "5", "--progress", "json"});
  INFO(refined.err);
  REQUIRE(refined.code == 0);
  CHECK_THAT(refined.err, Contains("refinement: up to 5 evaluations for each of 1 choice, in 3 forward sweeps") &&
                              Contains("\"stage\":\"refine forward\"") && Contains("\"stage\":\"verify head\""));
  CHECK_THAT(refined.out, Contains("refined by ") && Contains("to refine them") && Contains("to measure the recipes"));
  CHECK_THAT(Slurp(recipe), Contains("\"refined\": {") && Contains("\"changed\": ") && Contains("\"verified\": {"));
  CHECK(run({"--refine", "0"}).code == 2);
  CHECK(run({"--refine", "5", "--no-verify"}).code == 2);
  const Run many = run({"--refine", "1001", "--progress", "json"});
  CHECK(many.code == 1);
  CHECK_THAT(many.err, Contains("at most 1000") && !Contains("\"stage\""));
}

TEST_CASE("run --until-stable tells each step, and uses no more rows than the choice needs") {
  Shell shell;
  const std::string recipe = shell.dir / "recipe.json", scores = shell.dir / "scores.json";
  const Run run = shell(shell.Scoring("run", {"--avg-bits", "8.375", "--out", recipe, "--save-scores", scores,
                                              "--batch-size", "1", "--no-verify", "--until-stable"}));
  INFO(run.err);
  REQUIRE(run.code == 0);
  CHECK_THAT(run.err, Contains("2 rows: 0.0% of the weights have another scheme than by the first 1"));
  CHECK_THAT(Slurp(scores), Contains("\"nsamples\": 2"));
}

TEST_CASE("a limit on tokens takes whole rows") {
  Shell shell;
  const std::string scores = shell.dir / "scores.json";
  const Run run = shell(shell.Scoring("score", {"--out", scores, "--max-tokens", "20"}));
  REQUIRE(run.code == 0);
  CHECK_THAT(run.out, Contains("2 x 8 tokens"));
  const Run less = shell(shell.Scoring("score", {"--out", scores, "--max-tokens", "7"}));
  CHECK(less.code == 1);
}

TEST_CASE("Ctrl-C is exit 130, and leaves no file") {
  Shell shell;
  shell.MakeDeep();
  const auto before = shell.dir.List();
  Beside beside;
  beside.awaited = "\n";
  beside.then = [](pid_t child) { kill(child, SIGINT); };
  const Run run = shell(shell.Scoring("score", {"--out", shell.dir / "s.json", "--progress", "json"}), beside);
  INFO(run.err);
  CHECK(run.code == 130);
  CHECK_THAT(run.err, Contains("interrupted"));
  for (const std::string& name : shell.dir.List()) {
    const bool known = std::find(before.begin(), before.end(), name) != before.end();
    CHECK((known || name == "stdout" || name == "stderr"));
  }
}

TEST_CASE("inspect and plan print the warnings that a run prints, on stderr") {
  Shell shell;
  std::vector<RawTensor> tensors = MakeTinyTensors(shell.model);
  tensors.push_back({"model.layers.0.mlp.up_proj.bias", "BF16", {1}, "ab"});
  WriteTinyWeights(tensors, 1, shell.model_dir);
  const std::string warning = "warning: 1 tensor of the checkpoint is ignored: \"model.layers.0.mlp.up_proj.bias\"";
  const Run inspect = shell({"inspect", "--model", shell.model_dir}),
            json = shell({"inspect", "--json", "--model", shell.model_dir});
  const Run plan = shell(shell.Scoring("plan", {"--layer-config", shell.dir.Write("l.json", R"({"norm": "W8A16"})")}));
  for (const Run* run : {&inspect, &json, &plan}) {
    CHECK(run->code == 0);
    CHECK_THAT(run->err, Contains(warning));
    CHECK_THAT(run->out, !Contains("warning:"));
  }
  CHECK(json.out.front() == '{');
  CHECK_THAT(plan.err, Contains("warning: layer_config: \"norm\" matches tensors that take no part"));
  CHECK(plan.lines() == 2);
}

TEST_CASE("a working folder that has been deleted is one clear error") {
  Shell shell;
  const std::string gone = shell.dir / "gone", out = shell.dir / "s.json";
  for (const auto& arguments : {std::vector<std::string>{"--help"},
                                {"inspect", "--model", "."},
                                {"inspect", "--model", shell.model_dir},
                                shell.Scoring("score", {"--out", out})}) {
    fs::create_directory(gone);
    const auto leave = [&] {
      if (chdir(gone.c_str()) != 0 || rmdir(gone.c_str()) != 0) _exit(97);
    };
    const Run run = shell(arguments, {leave, "", nullptr});
    INFO(arguments.back());
    CHECK(run.code == 1);
    CHECK_THAT(run.err, Contains("autoscheme: the working folder has been deleted: go to one that exists"));
    CHECK(run.lines() == 1);
    CHECK(run.out.empty());
  }
  CHECK_FALSE(fs::exists(out));
}

TEST_CASE("a working folder whose path is too long for the system is one clear error") {
  Shell shell;
  const std::string name(200, 'x');
  const auto go_deep = [&] {
    if (chdir(shell.dir.path().c_str()) != 0) _exit(97);
    for (int i = 0; i < 25; ++i) {
      if (mkdir(name.c_str(), 0700) != 0 || chdir(name.c_str()) != 0) _exit(97);
    }
  };
  const Run run = shell({"inspect", "--model", shell.model_dir}, {go_deep, "", nullptr});
  CHECK(run.code == 1);
  CHECK_THAT(run.err, Contains("autoscheme: the system does not tell the path of the working folder"));
  CHECK(run.lines() == 1);
  CHECK(run.out.empty());
  // The library's remove_all may not reach so deep.
  CHECK(std::system(("rm -rf '" + shell.dir.path() + "/" + name + "'").c_str()) == 0);
}

TEST_CASE("a model of more shards than a shell lets a program open is read, up to the hard limit") {
  const Shell shell(20);
  Beside beside;
  rlim_t hard = 200;
  beside.in_child = [&] {
    const struct rlimit few = {16, hard};
    if (setrlimit(RLIMIT_NOFILE, &few) != 0) _exit(97);
  };
  const Run run = shell({"inspect", "--model", shell.model_dir}, beside);
  INFO(run.err);
  CHECK(run.code == 0);
  hard = 16;
  const Run refused = shell({"inspect", "--model", shell.model_dir}, beside);
  CHECK(refused.code == 1);
  CHECK(refused.lines() == 1);
  CHECK_THAT(refused.err, Contains("this process may have 16 open at once (RLIMIT_NOFILE) and needs up to 72") &&
                              Contains("ulimit -n"));
}

TEST_CASE("threads that wait for each other spin briefly, unless the user has said how long") {
  // The environment that a scoring program has while it runs, one variable a line.
  const auto environment = [](const char* name, const char* value) {
    Shell shell;
    shell.MakeDeep();
    std::string text;
    Beside beside;
    beside.in_child = [&] {
      unsetenv("OMP_WAIT_POLICY"), unsetenv("GOMP_SPINCOUNT");
      if (name != nullptr) setenv(name, value, 1);
    };
    beside.awaited = "{";
    beside.then = [&](pid_t program) {
      text = Slurp("/proc/" + std::to_string(program) + "/environ");
      kill(program, SIGINT);
    };
    const Run run = shell(shell.Scoring("score", {"--out", shell.dir / "s.json", "--progress", "json"}), beside);
    INFO(run.err);
    CHECK((run.code == 130 || run.code == 0));
    std::replace(text.begin(), text.end(), '\0', '\n');
    return "\n" + text;
  };
  CHECK_THAT(environment(nullptr, nullptr), Contains("\nGOMP_SPINCOUNT=5000\n") && Contains("\nPATH="));
  const std::string longer = environment("GOMP_SPINCOUNT", "7");
  CHECK_THAT(longer, Contains("\nGOMP_SPINCOUNT=7\n") && !Contains("=1000"));
  CHECK_THAT(environment("OMP_WAIT_POLICY", "active"), !Contains("GOMP_SPINCOUNT"));
}

TEST_CASE("the program runs when it is started by naming the dynamic loader") {
  const char* loader = "/lib64/ld-linux-x86-64.so.2";
  if (access(loader, X_OK) != 0) return;  // another architecture
  Shell shell;
  const std::string out = shell.dir / "s.json";
  std::vector<std::string> arguments = shell.Scoring("score", {"--out", out, "--quiet"});
  Beside beside;
  beside.in_child = [&] {
    std::vector<char*> argv = {const_cast<char*>(loader), const_cast<char*>(AUTOSCHEME_CLI)};
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    unsetenv("OMP_WAIT_POLICY"), unsetenv("GOMP_SPINCOUNT");
    execv(loader, argv.data());
    _exit(96);
  };
  const Run run = shell({}, beside);
  INFO(run.err);
  CHECK(run.code == 0);
  CHECK(fs::exists(out));
}

}  // namespace
}  // namespace autoscheme
