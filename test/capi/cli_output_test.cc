// The program's result files: what is protected, what is written where, and that no result is lost.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <future>
#include <string>
#include <vector>

#include "capi/cli_run.h"

namespace autoscheme {
namespace {

using Catch::Contains;
namespace fs = std::filesystem;

bool Works(const std::string& device) {
  const int fd = open(device.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd >= 0) close(fd);
  return fd >= 0;
}

// A device that takes nothing: the way to a write that fails after a trial that could not. Root gets one that may be
// lost.
std::string FullDevice(const TempDir& dir) {
  const std::string own = dir / "full";
  if (mknod(own.c_str(), S_IFCHR | 0666, makedev(1, 7)) == 0 && Works(own)) return own;
  REQUIRE(geteuid() != 0);
  REQUIRE(Works("/dev/full"));
  return "/dev/full";
}

// A shell with scores to select from, and a work folder.
struct Selecting : Shell {
  std::string scores, work;
  Selecting() {
    scores = dir / "scores.json";
    work = dir / "work";
    fs::create_directory(work);
    REQUIRE((*this)(Scoring("score", {"--out", scores})).code == 0);
  }
  Run Select(const std::vector<std::string>& more, Beside beside = {}) const {
    std::vector<std::string> all = {"select", "--scores", scores, "--avg-bits", "6"};
    all.insert(all.end(), more.begin(), more.end());
    const auto before = beside.in_child;
    beside.in_child = [this, before] {
      setenv("TMPDIR", work.c_str(), 1);
      before();
    };
    return (*this)(all, beside);
  }
  // The only file in the work folder, which must be named in the run's one line of error.
  std::string Rescued(const Run& run, const std::string& what) const {
    INFO(run.err);
    CHECK(run.code == 1);
    CHECK(run.lines() == 1);
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(work)) files.push_back(entry.path().string());
    REQUIRE(files.size() == 1);
    CHECK_THAT(run.err, Contains("find ") && Contains("the " + what + " in " + files[0]));
    const std::string contents = Slurp(files[0]);
    fs::remove(files[0]);
    return contents;
  }
};

const char kRecipe[] = "\"format\": \"autoscheme-recipe\"";
const char kScores[] = "\"format\": \"autoscheme-scores\"";

TEST_CASE("a result goes through links, into pipes, and a file keeps its mode") {
  Selecting shell;
  const std::string real = shell.dir.Write("kept/real.json", "old"), link = shell.dir / "link.json";
  fs::permissions(real, fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("kept/real.json", link);
  REQUIRE(shell.Select({"--out", link}).code == 0);
  CHECK(fs::is_symlink(link));
  CHECK_THAT(Slurp(real), Contains(kRecipe));
  CHECK(fs::status(real).permissions() == (fs::perms::owner_read | fs::perms::owner_write));

  const std::string pipe = shell.dir / "pipe";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  auto got = std::async(std::launch::async, [&] { return Slurp(pipe); });
  const Run run = shell.Select({"--out", pipe});
  CHECK(run.code == 0);
  CHECK(got.get() == Slurp(real));
  CHECK(fs::is_fifo(pipe));

  const std::string dangling = shell.dir / "dangling";
  fs::create_symlink("kept/target.json", dangling);
  CHECK(shell.Select({"--out", dangling}).code == 0);
  CHECK(Slurp(shell.dir / "kept/target.json") == Slurp(real));
  CHECK(shell.Select({"--out", shell.dir / "kept"}).code == 1);
}

TEST_CASE("every input is protected, under other names too, and nothing else is") {
  Shell shell(2);
  const std::string imatrix = shell.dir.Write("imatrix", "not read without k-quants");
  const std::string config = shell.dir.Write("layers.json", "{\"v_proj\": \"W8A16\"}");
  const std::string menu = shell.dir.Write("menu.json", "[\"W4A16\", \"W8A16\"]");
  fs::create_symlink(shell.tokens, shell.dir / "alias");
  const auto scoring = [&](const std::string& out) {
    return std::vector<std::string>{
        "score", "--model",   shell.model_dir, "--tokens",       shell.tokens, "--schemes", menu, "--threads",
        "1",     "--imatrix", imatrix,         "--layer-config", config,       "--out",     out};
  };
  std::vector<std::string> inputs = {
      imatrix, config, menu, shell.tokens, shell.dir / "alias", shell.dir / "model/../menu.json"};
  for (const char* name : {"config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
                           "model-00002-of-00002.safetensors"}) {
    inputs.push_back(shell.model_dir + "/" + name);
  }
  for (const std::string& input : inputs) {
    const std::string before = Slurp(input);
    const Run run = shell(scoring(input));
    INFO(run.err);
    CHECK(run.code == 1);
    CHECK(run.lines() == 1);
    CHECK_THAT(run.err, Contains("overwrite"));
    CHECK(Slurp(input) == before);
  }
  CHECK(shell(scoring(shell.dir.Write("model/tokenizer.json", "of no concern"))).code == 0);
  CHECK_THAT(Slurp(shell.model_dir + "/tokenizer.json"), Contains(kScores));
}

TEST_CASE("a second run in the model's folder replaces the first one's result") {
  Shell shell;
  const std::vector<std::string> arguments = {"run",       "--model",     ".",          "--tokens", shell.tokens,
                                              "--schemes", "W4A16,W8A16", "--threads",  "1",        "--avg-bits",
                                              "6",         "--out",       "recipe.json"};
  Beside beside;
  beside.in_child = [&] {
    if (chdir(shell.model_dir.c_str()) != 0) _exit(97);
  };
  for (int i = 0; i < 2; ++i) {
    const Run run = shell(arguments, beside);
    INFO(run.err);
    CHECK(run.code == 0);
  }
  CHECK_THAT(Slurp(shell.model_dir + "/recipe.json"), Contains(kRecipe));
}

TEST_CASE("two results under two spellings of one file are refused before any work") {
  Shell shell;
  fs::create_symlink("result", shell.dir / "link");
  fs::create_symlink(".", shell.dir / "here");
  for (const std::string& other : {shell.dir / "./result", shell.dir / "link", shell.dir / "here/result"}) {
    const Run run = shell(shell.Scoring(
        "run", {"--avg-bits", "6", "--out", shell.dir / "result", "--save-scores", other, "--progress", "json"}));
    CHECK(run.code == 1);
    CHECK(run.lines() == 1);  // no progress either
    CHECK_THAT(run.err, Contains("the same file"));
    CHECK_FALSE(fs::exists(shell.dir / "result"));
  }
}

TEST_CASE("run: scores and recipe are delivered apart, and one without a place is found in the work folder") {
  Selecting shell;
  const std::string full = FullDevice(shell.dir), recipe = shell.dir / "recipe.json", kept = shell.dir / "kept.json";
  const auto run = [&](const std::string& out, const std::string& save) {
    return shell(
        shell.Scoring("run", {"--avg-bits", "6", "--out", out, "--save-scores", save, "--work-dir", shell.work}));
  };
  REQUIRE(run(recipe, kept).code == 0);
  const std::string right_recipe = Slurp(recipe), right_scores = WithoutRun(Slurp(kept));
  fs::remove(recipe), fs::remove(kept);

  const Run no_scores = run(recipe, full);
  CHECK(WithoutRun(shell.Rescued(no_scores, "scores")) == right_scores);
  CHECK_THAT(no_scores.err, Contains("bytes written: No space left") && Contains("the recipe in " + recipe));
  CHECK(Slurp(recipe) == right_recipe);

  const Run no_recipe = run(full, kept);
  CHECK(shell.Rescued(no_recipe, "recipe") == right_recipe);
  CHECK(WithoutRun(Slurp(kept)) == right_scores);
  CHECK_THAT(no_recipe.err, Contains("the scores in " + kept));
}

TEST_CASE("score and select: a result whose place fails is found in the work folder, the other one at its place") {
  Selecting shell;
  const std::string full = FullDevice(shell.dir), recipe = shell.dir / "recipe.json", front = shell.dir / "front.json";
  const Run score = shell(shell.Scoring("score", {"--out", full, "--work-dir", shell.work}));
  CHECK(WithoutRun(shell.Rescued(score, "scores")) == WithoutRun(Slurp(shell.scores)));
  REQUIRE(shell.Select({"--out", recipe, "--pareto", front}).code == 0);
  const std::string right_recipe = Slurp(recipe), right_front = Slurp(front);
  fs::remove(recipe), fs::remove(front);
  CHECK(shell.Rescued(shell.Select({"--out", recipe, "--pareto", full}), "front") == right_front);
  CHECK(Slurp(recipe) == right_recipe);
  CHECK(shell.Rescued(shell.Select({"--out", full, "--pareto", front}), "recipe") == right_recipe);
  CHECK(Slurp(front) == right_front);
}

TEST_CASE("a work folder that is not there gives way to the next") {
  Selecting shell;
  Beside beside;
  beside.in_child = [&] { setenv("TMPDIR", shell.work.c_str(), 1); };
  const Run run =
      shell(shell.Scoring("score", {"--out", FullDevice(shell.dir), "--work-dir", shell.dir / "nowhere", "--no-spill"}),
            beside);
  CHECK_THAT(shell.Rescued(run, "scores"), Contains(kScores));
}

TEST_CASE("a folder that goes away during a run costs no result") {
  Selecting shell;
  shell.MakeDeep(/*rows=*/16);
  shell.dir.Write("leaves/.keep", "");
  Beside beside;
  beside.awaited = "\n";
  beside.then = [&](pid_t) { fs::remove_all(shell.dir / "leaves"); };
  Run run = shell(shell.Scoring("run", {"--avg-bits", "6", "--out", shell.dir / "leaves/recipe.json", "--save-scores",
                                        shell.dir / "kept.json", "--work-dir", shell.work, "--progress", "json"}),
                  beside);
  run.err = run.err.substr(run.err.rfind("autoscheme: "));
  CHECK_THAT(shell.Rescued(run, "recipe"), Contains(kRecipe));
  CHECK_THAT(run.err, Contains("leaves/recipe.json") && Contains("the scores in " + (shell.dir / "kept.json")));
}

TEST_CASE("results that fit nowhere are said so in one line, and what was there stays") {
  Selecting shell;
  shell.dir.Write("recipe.json", "old");
  Beside beside;
  beside.in_child = [] {
    const struct rlimit small = {1000, 1000};  // bytes of a file: less than a result, more than a line
    if (setrlimit(RLIMIT_FSIZE, &small) != 0) _exit(97);
  };
  const Run run = shell.Select({"--out", shell.dir / "recipe.json"}, beside);
  CHECK(run.code == 1);
  CHECK(run.lines() == 1);
  CHECK_THAT(run.err, Contains("the recipe could not be saved anywhere"));
  CHECK(Slurp(shell.dir / "recipe.json") == "old");
  CHECK(fs::is_empty(shell.work));
}

TEST_CASE("Ctrl-C while it selects keeps the scores: where they were wanted, or in the work folder") {
  Selecting shell;
  shell.MakeDeep(/*rows=*/2);
  // As many targets as make the selection last.
  std::string targets = "5";
  for (int i = 1; i < 5000; ++i) targets += "," + std::to_string(5 + i * 0.0005);
  Beside beside;
  beside.awaited = "\"stage\":\"select\"";
  beside.then = [](pid_t child) { kill(child, SIGINT); };
  const auto interrupted = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = {"--avg-bits", targets,    "--out",      shell.dir / "recipe.json",
                                    "--work-dir", shell.work, "--progress", "json"};
    all.insert(all.end(), more.begin(), more.end());
    Run run = shell(shell.Scoring("run", all), beside);
    CHECK(run.code == 130);
    run.code = 1;
    run.err = run.err.substr(run.err.rfind("autoscheme: "));
    CHECK_THAT(run.err, Contains("interrupted"));
    CHECK_FALSE(fs::exists(shell.dir / "recipe.json"));
    return run;
  };
  CHECK_THAT(shell.Rescued(interrupted({}), "scores"), Contains(kScores));
  const std::string kept = shell.dir / "kept.json";
  CHECK_THAT(interrupted({"--save-scores", kept}).err, Contains("find the scores in " + kept));
  CHECK_THAT(Slurp(kept), Contains(kScores));
  CHECK(fs::is_empty(shell.work));
}

TEST_CASE("a result on stdout stands there alone") {
  Selecting shell;
  const std::string recipe = shell.dir / "recipe.json", front = shell.dir / "front.json";
  REQUIRE(shell.Select({"--out", recipe, "--pareto", front}).code == 0);
  for (const char* name : {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}) {
    CAPTURE(name);
    const Run run = shell.Select({"--out", name});
    CHECK(run.code == 0);
    CHECK(run.err.empty());
    CHECK(run.out == Slurp(recipe));
  }
  CHECK(shell.Select({"--out", recipe, "--pareto", "-"}).out == Slurp(front));
  CHECK_THAT(shell(shell.Scoring("score", {"--out", "-"})).out,
             Catch::StartsWith("{") && Catch::EndsWith("}\n") && Contains(kScores));
  CHECK_FALSE(fs::exists("-"));
  const Run both = shell.Select({"--out", "-", "--pareto", "/dev/stdout"});
  CHECK(both.code == 1);
  CHECK_THAT(both.err, Contains("the same file"));
  CHECK(both.out.empty());
}

TEST_CASE("a stdout that takes nothing is one line and exit 1, and the files are whole") {
  Selecting shell;
  const std::string recipe = shell.dir / "recipe.json", right = shell.dir / "right.json";
  REQUIRE(shell.Select({"--out", right}).code == 0);
  Beside closed, unread, full;
  closed.in_child = [] { close(1); };
  unread.in_child = [] {
    int ends[2];
    if (pipe(ends) != 0 || dup2(ends[1], 1) < 0 || close(ends[0]) != 0) _exit(97);
  };
  const std::string device = FullDevice(shell.dir);
  full.in_child = [&] {
    if (dup2(open(device.c_str(), O_WRONLY | O_CLOEXEC), 1) < 0) _exit(97);
  };
  for (const Beside& beside : {closed, unread, full}) {
    const Run run = shell.Select({"--out", recipe}, beside);
    CHECK(run.code == 1);
    CHECK(run.lines() == 1);
    CHECK_THAT(run.err, Contains("stdout"));
    CHECK(Slurp(recipe) == Slurp(right));
    fs::remove(recipe);
    CHECK(shell.Select({"--out", recipe, "--quiet"}, beside).code == 0);  // nothing is printed
    CHECK(shell({"--help"}, beside).code == 1);
  }
  const Run refused = shell.Select({"--out", "-"}, closed);
  CHECK(refused.code == 1);
  CHECK_THAT(refused.err, Contains("descriptor 1"));
  CHECK(shell.Rescued(shell.Select({"--out", "-"}, unread), "recipe") == Slurp(right));
}

TEST_CASE("with all standard descriptors closed no file gets what would have been printed there") {
  Selecting shell;
  const std::string recipe = shell.dir / "recipe.json", scores = shell.dir / "kept.json";
  const std::vector<std::string> arguments =
      shell.Scoring("run", {"--avg-bits", "6", "--out", recipe, "--save-scores", scores, "--progress", "json"});
  REQUIRE(shell(arguments).code == 0);
  const std::string right_recipe = Slurp(recipe), right_scores = WithoutRun(Slurp(scores));
  Beside beside;
  beside.in_child = [] { close(0), close(1), close(2); };
  CHECK(shell(arguments, beside).code == 1);
  CHECK(Slurp(recipe) == right_recipe);
  CHECK(WithoutRun(Slurp(scores)) == right_scores);
}

}  // namespace
}  // namespace autoscheme
