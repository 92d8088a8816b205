#include "checkpoint/hub_cache.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "support/fault_io.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

using Catch::Matchers::Contains;

// Sets the five variables that place the cache, unset where not given, and puts the old values back.
class CacheEnvironment {
 public:
  explicit CacheEnvironment(const std::map<std::string, std::string>& values) {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      const char* old = std::getenv(name);
      old_[name] = old == nullptr ? std::nullopt : std::optional<std::string>(old);
      Set(name, values.count(name) ? std::optional<std::string>(values.at(name)) : std::nullopt);
    }
  }
  ~CacheEnvironment() {
    for (const auto& [name, value] : old_) Set(name, value);
  }

 private:
  static void Set(const std::string& name, const std::optional<std::string>& value) {
    if (value) {
      setenv(name.c_str(), value->c_str(), 1);
    } else {
      unsetenv(name.c_str());
    }
  }
  std::map<std::string, std::optional<std::string>> old_;
};

// A cached repository; returns its snapshot.
std::string AddRepo(const TempDir& dir, const std::string& hub, const std::string& folder, const std::string& commit) {
  dir.Write(hub + folder + "/refs/main", commit);
  dir.Write(hub + folder + "/snapshots/" + commit + "/config.json", "{}");
  return dir / (hub + folder + "/snapshots/" + commit);
}

TEST_CASE("A folder is taken as it is") {
  const TempDir dir;
  CHECK(*ResolveModelFolder(Io::Posix(), dir.path()) == dir.path());
  CHECK(*ResolveModelFolder(Io::Posix(), dir.path() + "/") == dir.path() + "/");
}

TEST_CASE("A repo id is found in the cache that the first set variable names") {
  const TempDir dir;
  const std::string hub = AddRepo(dir, "hub/", "models--org--name", "abc123");
  const std::string home = AddRepo(dir, "home/.cache/huggingface/hub/", "models--org--name", "def456");
  const std::string xdg = AddRepo(dir, "xdg/huggingface/hub/", "models--gpt2", "789");
  const std::string hf_home = AddRepo(dir, "hf/hub/", "models--org--name", "fed987");
  const auto resolve = [](const std::string& model) {
    const absl::StatusOr<std::string> folder = ResolveModelFolder(Io::Posix(), model);
    return folder.ok() ? *folder : folder.status().ToString();
  };
  {
    const CacheEnvironment env({{"HF_HUB_CACHE", dir / "hub"}, {"HF_HOME", dir / "hf"}, {"HOME", dir / "home"}});
    CHECK(resolve("org/name") == hub);
  }
  {
    const CacheEnvironment env({{"HF_HOME", dir / "hf"}, {"XDG_CACHE_HOME", dir / "xdg"}, {"HOME", dir / "home"}});
    CHECK(resolve("org/name") == hf_home);
  }
  {
    const CacheEnvironment env({{"XDG_CACHE_HOME", dir / "xdg"}, {"HOME", dir / "home"}});
    CHECK(resolve("gpt2") == xdg);
  }
  {
    const CacheEnvironment env({{"HOME", dir / "home"}});
    CHECK(resolve("org/name") == home);
  }
}

TEST_CASE("What is missing is NOT_FOUND and names the place") {
  const TempDir dir;
  const CacheEnvironment env({{"HF_HUB_CACHE", dir.path()}});
  const absl::Status absent = ResolveModelFolder(Io::Posix(), "org/absent").status();
  CHECK(absent.code() == absl::StatusCode::kNotFound);
  CHECK_THAT(std::string(absent.message()),
             Contains("no \"" + dir.path() + "/models--org--absent\"") && Contains("download it first"));

  dir.Write("models--org--half/refs/main", "abc\n");
  const absl::Status half = ResolveModelFolder(Io::Posix(), "org/half").status();
  CHECK(half.code() == absl::StatusCode::kNotFound);
  CHECK_THAT(std::string(half.message()), Contains("snapshots/abc"));

  CHECK(ResolveModelFolder(Io::Posix(), "/no/such/folder").status().code() == absl::StatusCode::kNotFound);
  CHECK(ResolveModelFolder(Io::Posix(), "a/b/c").status().code() == absl::StatusCode::kNotFound);
  CHECK_THAT(std::string(ResolveModelFolder(Io::Posix(), "https://example.com/org/name").status().message()),
             Contains("is a URL") && Contains("(org/name)"));
  const CacheEnvironment none({});
  CHECK_THAT(std::string(ResolveModelFolder(Io::Posix(), "org/name").status().message()), Contains("HF_HOME"));
}

// The folder or the error's text.
std::string Resolved(const std::string& model) {
  const absl::StatusOr<std::string> folder = ResolveModelFolder(Io::Posix(), model);
  return folder.ok() ? *folder : folder.status().ToString();
}

TEST_CASE("The variables that place the cache are expanded as Python does it") {
  const TempDir dir;
  const std::string hub = AddRepo(dir, "a b/hub/", "models--org--name", "abc");
  setenv("AUTOSCHEME_TEST_PLACE", "a b", 1);
  for (const char* value :
       {"~/a b/hub", "$HOME/a b/hub", "${HOME}/$AUTOSCHEME_TEST_PLACE/hub", "~/${AUTOSCHEME_TEST_PLACE}/hub"}) {
    for (const char* variable : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
      CAPTURE(variable, value);
      const CacheEnvironment env({{variable, value}, {"HOME", dir.path()}});
      CHECK(Resolved("org/name") == hub);
    }
  }
  {
    const CacheEnvironment env({{"HF_HOME", "~/$AUTOSCHEME_TEST_PLACE"}, {"HOME", dir.path()}});
    CHECK(Resolved("org/name") == hub);
  }
  AddRepo(dir, "xdg/huggingface/hub/", "models--org--name", "def");
  {
    const CacheEnvironment env({{"XDG_CACHE_HOME", "${HOME}/xdg"}, {"HOME", dir.path()}});
    CHECK(Resolved("org/name") == dir / "xdg/huggingface/hub/models--org--name/snapshots/def");
  }
  // What is not set stays, and so does a dollar without a name; "~" counts at the beginning alone.
  unsetenv("AUTOSCHEME_TEST_PLACE");
  for (const char* value :
       {"/no/$AUTOSCHEME_TEST_PLACE/x", "/no/${AUTOSCHEME_TEST_PLACE}", "/no/$/${HOME", "/no/~/x$"}) {
    const CacheEnvironment env({{"HF_HUB_CACHE", value}, {"HOME", dir.path()}});
    CHECK_THAT(Resolved("org/name"), Contains("no \"" + std::string(value) + "/models--org--name\""));
  }
}

TEST_CASE("Without refs/main the only snapshot is used, and several are listed with the way to pick one") {
  const TempDir dir;
  const CacheEnvironment env({{"HF_HUB_CACHE", dir.path()}});
  dir.Write("models--org--name/snapshots/abc123/config.json", "{}");
  const std::string snapshots = dir / "models--org--name/snapshots/";
  CHECK(Resolved("org/name") == snapshots + "abc123");
  dir.Write("models--org--name/snapshots/abd456/config.json", "{}");
  CHECK_THAT(Resolved("org/name"), Contains("INVALID_ARGUMENT") && Contains("several snapshots that fit") &&
                                       Contains("models--org--name/refs/main") &&
                                       Contains("give one of \"org/name@abc123\", \"org/name@abd456\""));
  dir.Write("models--org--name/refs/main", "abd456\n");
  CHECK(Resolved("org/name") == snapshots + "abd456");
  dir.Write("models--org--name/refs/main", "fff");
  CHECK_THAT(Resolved("org/name"), Contains("NOT_FOUND") && Contains("snapshots/fff") && Contains("download it") &&
                                       Contains("or give one of \"org/name@abc123\""));
  dir.Write("models--org--empty/blobs/x", "");
  CHECK_THAT(Resolved("org/empty"), Contains("NOT_FOUND") && Contains("models--org--empty/refs/main") &&
                                        Contains("download it first") && !Contains("give one of"));
}

TEST_CASE("A revision is a branch, a tag, a commit or the unique beginning of one") {
  const TempDir dir;
  const CacheEnvironment env({{"HF_HUB_CACHE", dir.path()}});
  const std::string repo = dir / "models--org--name";
  for (const std::string commit : {"abc123", "abd456", "0ff"}) {
    dir.Write("models--org--name/snapshots/" + commit + "/config.json", "{}");
  }
  dir.Write("models--org--name/refs/main", "abc123");
  dir.Write("models--org--name/refs/v1.0", "abd456");
  dir.Write("models--org--name/refs/refs/pr/7", "0ff");
  dir.Write("models--org--name/refs/0", "abc123");
  dir.Write("models--org--name/refs/evil", "../../..");
  for (const std::string& name : {std::string("org/name"), repo}) {
    CAPTURE(name);
    CHECK(Resolved(name + "@main") == repo + "/snapshots/abc123");
    CHECK(Resolved(name + "@v1.0") == repo + "/snapshots/abd456");
    CHECK(Resolved(name + "@refs/pr/7") == repo + "/snapshots/0ff");
    CHECK(Resolved(name + "@abd456") == repo + "/snapshots/abd456");
    CHECK(Resolved(name + "@abd") == repo + "/snapshots/abd456");
    CHECK(Resolved(name + "@0") == repo + "/snapshots/abc123");  // a branch goes before the beginning of a commit
    CHECK_THAT(Resolved(name + "@ab"), Contains("INVALID_ARGUMENT") && Contains("several snapshots that fit"));
    CHECK_THAT(Resolved(name + "@v2"),
               Contains("NOT_FOUND") && Contains("/refs/v2\" nor a snapshot that fits") && Contains("@abc123\""));
    CHECK_THAT(Resolved(name + "@evil"), Contains("INVALID_ARGUMENT") && Contains("unsafe snapshot"));
    for (const char* revision : {"../x", "a//b", "/etc/passwd", ".."}) {
      CHECK_THAT(Resolved(name + "@" + revision), Contains("INVALID_ARGUMENT") && Contains("has no revision"));
    }
  }
  CHECK_THAT(Resolved("org/absent@v1"), Contains("NOT_FOUND") && Contains("models--org--absent"));
  CHECK_THAT(Resolved("@v1"), Contains("NOT_FOUND"));
  // A folder of that name goes before a revision.
  dir.Write("x@y/config.json", "{}");
  CHECK(Resolved(dir / "x@y") == dir / "x@y");
}

TEST_CASE("A repository's folder in the cache, or its snapshots, stand for the snapshot") {
  const TempDir dir;
  const std::string snapshot = AddRepo(dir, "hub/", "models--org--name", "abc123");
  const std::string repo = dir / "hub/models--org--name";
  CHECK(Resolved(repo) == snapshot);
  CHECK(Resolved(repo + "/") == snapshot);
  CHECK(Resolved(repo + "/snapshots") == snapshot);
  CHECK(Resolved(repo + "/snapshots/") == snapshot);
  CHECK(Resolved(snapshot) == snapshot);
  dir.Write("hub/models--org--name/snapshots/def456/config.json", "{}");
  REQUIRE(std::filesystem::remove(repo + "/refs/main"));
  CHECK_THAT(Resolved(repo + "/snapshots"), Contains("give one of \"" + repo + "@abc123\", \"" + repo + "@def456\""));
  CHECK(Resolved(repo + "@def456") == repo + "/snapshots/def456");
}

TEST_CASE("A cache given as the folder stands for its only model, and several are listed") {
  const TempDir dir;
  const std::string snapshot = AddRepo(dir, "home/hub/", "models--org--name", "abc123");
  dir.Write("home/hub/models--org--no-snapshot/refs/main", "abc123");
  CHECK(*ResolveModelFolder(Io::Posix(), dir / "home/hub") == snapshot);
  CHECK(*ResolveModelFolder(Io::Posix(), dir / "home") == snapshot);
  CHECK(*ResolveModelFolder(Io::Posix(), dir / "home/") == snapshot);
  AddRepo(dir, "home/hub/", "models--gpt2", "789");
  const absl::Status several = ResolveModelFolder(Io::Posix(), dir / "home").status();
  CHECK(several.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(several.message()),
             Contains("is a Hugging Face cache of 2 models: give one of \"" + (dir / "home/hub/models--gpt2") + "\"") &&
                 Contains("models--org--name\""));
  dir.Write("home/config.json", "{}");
  CHECK(*ResolveModelFolder(Io::Posix(), dir / "home") == dir / "home");
}

TEST_CASE("Names and refs that could leave the cache are refused") {
  const TempDir dir;
  const CacheEnvironment env({{"HF_HUB_CACHE", dir.path()}});
  dir.Write("models--org--evil/refs/main", "../../../..");
  CHECK(ResolveModelFolder(Io::Posix(), "org/evil").status().code() == absl::StatusCode::kInvalidArgument);
  dir.Write("models--org--dots/refs/main", "..");
  CHECK(ResolveModelFolder(Io::Posix(), "org/dots").status().code() == absl::StatusCode::kInvalidArgument);
  for (const char* model : {"org/..", "../name", "org/na me", "org/name/", ".hidden/x"}) {
    CAPTURE(model);
    const absl::Status status = ResolveModelFolder(Io::Posix(), model).status();
    CHECK(status.code() == absl::StatusCode::kNotFound);
    CHECK_THAT(std::string(status.message()), !Contains("refs/main"));
  }
  CHECK(ResolveModelFolder(Io::Posix(), "").status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(ResolveModelFolder(Io::Posix(), std::string("a\0b", 3)).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("A file in place of the folder and an unreadable folder are told apart") {
  const TempDir dir;
  const absl::Status file = ResolveModelFolder(Io::Posix(), dir.Write("model.safetensors", "x")).status();
  CHECK(file.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(file.message()), Contains("is a file"));
  FaultIo denied(kStat, EACCES, 1, false);
  CHECK(ResolveModelFolder(denied, "org/name").status().code() == absl::StatusCode::kPermissionDenied);
}

TEST_CASE("A plain file name stays in its folder") {
  for (const char* good : {"model.safetensors", "model-00001-of-00002.safetensors", "..x", "a b", "größe"}) {
    CAPTURE(good);
    CHECK(IsPlainFileName(good));
  }
  const std::string bad[] = {"",
                             ".",
                             "..",
                             "../x",
                             "/etc/passwd",
                             "a/b",
                             "a\\b",
                             "C:\\x",
                             "C:x",
                             std::string("a\0b", 3),
                             "a\nb",
                             "\x7f",
                             std::string(256, 'a')};
  for (const std::string& name : bad) {
    CAPTURE(name);
    CHECK_FALSE(IsPlainFileName(name));
  }
}

}  // namespace
}  // namespace autoscheme
