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
  CHECK_THAT(std::string(absent.message()), Contains("models--org--absent/refs/main") && Contains("download it first"));

  dir.Write("models--org--half/refs/main", "abc\n");
  const absl::Status half = ResolveModelFolder(Io::Posix(), "org/half").status();
  CHECK(half.code() == absl::StatusCode::kNotFound);
  CHECK_THAT(std::string(half.message()), Contains("snapshots/abc"));

  CHECK(ResolveModelFolder(Io::Posix(), "/no/such/folder").status().code() == absl::StatusCode::kNotFound);
  CHECK(ResolveModelFolder(Io::Posix(), "a/b/c").status().code() == absl::StatusCode::kNotFound);
  const CacheEnvironment none({});
  CHECK_THAT(std::string(ResolveModelFolder(Io::Posix(), "org/name").status().message()), Contains("HF_HOME"));
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
