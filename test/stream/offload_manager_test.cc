#include "autoscheme/offload_manager.h"

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <stdexcept>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "stream/stream_model.h"

namespace autoscheme {
namespace {

constexpr absl::Span<const std::string> kAll;

// A host with tensors in its own memory, that can be told to fail.
struct Host {
  std::map<std::string, std::vector<std::byte>> tensors;  // empty vector: released
  std::set<std::string> fail_save, fail_release, fail_restore, throw_release, throw_restore;
  std::vector<std::string> calls;  // "save a", "release a", "restore a"

  HostTensorCallbacks Callbacks() {
    HostTensorCallbacks callbacks;
    callbacks.save = [this](const std::string& name, absl::Span<std::byte> out) {
      calls.push_back("save " + name);
      if (fail_save.count(name)) return absl::AbortedError("save refused");
      REQUIRE(out.size() == tensors[name].size());
      std::copy(tensors[name].begin(), tensors[name].end(), out.begin());
      return absl::OkStatus();
    };
    callbacks.release = [this](const std::string& name) {
      calls.push_back("release " + name);
      if (throw_release.count(name)) throw std::runtime_error("release threw");
      if (fail_release.count(name)) return absl::AbortedError("release refused");
      tensors[name].clear();
      return absl::OkStatus();
    };
    callbacks.restore = [this](const std::string& name, absl::Span<const std::byte> bytes) {
      calls.push_back("restore " + name);
      if (throw_restore.count(name)) throw 42;
      if (fail_restore.count(name)) return absl::AbortedError("restore refused");
      tensors[name].assign(bytes.begin(), bytes.end());
      return absl::OkStatus();
    };
    return callbacks;
  }
};

// Tensors a (1000 bytes), b (70000) and c (24) at the host and in the checkpoint; d only at the host.
struct Fixture {
  explicit Fixture(OffloadMode m) : mode(m) {
    context.io = &io;
    context.cancel = &cancel;
    context.log = [this](LogLevel, absl::string_view text) { log.emplace_back(text); };
    checkpoint = model.Open(context);
    for (const char* name : {"a", "b", "c"}) infos.push_back(*checkpoint->Find(name));
    for (const TensorInfo& info : infos) host.tensors[info.name] = Expected(info.name);
    manager = Make();
    for (const TensorInfo& info : infos) REQUIRE(manager->Manage(info).ok());
    io.Clear();
  }

  std::unique_ptr<OffloadManager> Make() {
    OffloadManager::Options options;
    options.mode = mode;
    options.work_dir = dir.path();
    auto made = OffloadManager::Create(context, mode == OffloadMode::kClean ? checkpoint.get() : nullptr,
                                       host.Callbacks(), options);
    INFO(made.status());
    REQUIRE(made.ok());
    return *std::move(made);
  }
  std::vector<std::byte> Expected(const std::string& name) {
    std::vector<std::byte> bytes(checkpoint->Find(name)->bytes);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = ExpectedByte(name, i);
    return bytes;
  }
  // Nothing at the host is missing or changed, and the ledger says so.
  bool AllThere() {
    for (const TensorInfo& info : infos) {
      if (host.tensors[info.name] != Expected(info.name) || !manager->resident(info.name)) return false;
    }
    return manager->released_bytes() == 0 && manager->resident_bytes() == 71024;
  }

  const OffloadMode mode;
  const TempDir dir;
  const StreamModel model{{{{"a", {10, 100}}, {"b", {70000}}, {"c", {6}, Dtype::kF32}}}};
  WatchedIo io;
  CancelToken cancel;
  std::vector<std::string> log;
  Context context;
  std::unique_ptr<Checkpoint> checkpoint;
  std::vector<TensorInfo> infos;
  Host host;
  std::unique_ptr<OffloadManager> manager;
};

const OffloadMode kBothModes[] = {OffloadMode::kClean, OffloadMode::kOffload};

TEST_CASE("released tensors leave the host and come back bit for bit") {
  for (OffloadMode mode : kBothModes) {
    Fixture f(mode);
    CHECK(f.manager->resident_bytes() == 71024);
    REQUIRE(f.manager->Release({"a", "c"}).ok());
    CHECK(f.host.tensors["a"].empty());
    CHECK(f.host.tensors["c"].empty());
    CHECK(f.host.tensors["b"].size() == 70000);
    CHECK_FALSE(f.manager->resident("a"));
    CHECK(f.manager->resident("b"));
    CHECK(f.manager->released_bytes() == 1024);
    CHECK(f.manager->resident_bytes() == 70000);
    REQUIRE(f.manager->Release(kAll).ok());
    CHECK(f.manager->released_bytes() == 71024);
    REQUIRE(f.manager->Reload({"b"}).ok());
    CHECK(f.manager->resident("b"));
    REQUIRE(f.manager->Reload(kAll).ok());
    CHECK(f.AllThere());
    CHECK(std::filesystem::is_empty(f.dir.path()));
  }
}

TEST_CASE("releasing the released and reloading the resident call nobody") {
  for (OffloadMode mode : kBothModes) {
    Fixture f(mode);
    REQUIRE(f.manager->Reload(kAll).ok());
    CHECK(f.host.calls.empty());
    REQUIRE(f.manager->Release({"a", "a"}).ok());
    f.host.calls.clear();
    REQUIRE(f.manager->Release({"a"}).ok());
    CHECK(f.host.calls.empty());
    REQUIRE(f.manager->Reload({"a", "a"}).ok());
    CHECK(f.host.calls == std::vector<std::string>{"restore a"});
  }
}

TEST_CASE("offload mode gives back what the host had last, not what it had first") {
  Fixture f(OffloadMode::kOffload);
  REQUIRE(f.manager->Release({"a"}).ok());
  REQUIRE(f.manager->Reload({"a"}).ok());
  const std::vector<std::byte> tuned(1000, std::byte{7});
  f.host.tensors["a"] = tuned;
  REQUIRE(f.manager->Release({"a", "b"}).ok());
  REQUIRE(f.manager->Reload(kAll).ok());
  CHECK(f.host.tensors["a"] == tuned);
  CHECK(f.host.tensors["b"] == f.Expected("b"));
}

TEST_CASE("everything is on disk before the first tensor is freed") {
  Fixture f(OffloadMode::kOffload);
  REQUIRE(f.manager->Release(kAll).ok());
  CHECK(f.host.calls == std::vector<std::string>{"save a", "save b", "save c", "release a", "release b", "release c"});
}

TEST_CASE("clean mode refuses what the checkpoint cannot give back") {
  Fixture f(OffloadMode::kClean);
  TensorInfo info = f.infos[0];
  CHECK(absl::IsAlreadyExists(f.manager->Manage(info)));
  info.name = "d";
  const absl::Status absent = f.manager->Manage(info);
  CHECK(absl::IsNotFound(absent));
  CHECK(absl::StrContains(absent.message(), "\"d\""));
  const auto fresh = f.Make();
  info = f.infos[0];
  info.shape = {100, 10};
  const absl::Status shape = fresh->Manage(info);
  CHECK(absl::IsInvalidArgument(shape));
  CHECK(absl::StrContains(shape.message(), "[10, 100]"));
  CHECK(absl::StrContains(shape.message(), "[100, 10]"));
  info = f.infos[2];
  info.dtype = Dtype::kI32;
  CHECK(absl::IsInvalidArgument(fresh->Manage(info)));
  CHECK(fresh->resident_bytes() == 0);
}

TEST_CASE("offload mode keeps tensors that no checkpoint holds, and checks their size") {
  Fixture f(OffloadMode::kOffload);
  TensorInfo info;
  info.name = "d";
  info.dtype = Dtype::kF32;
  info.shape = {5};
  for (uint64_t bytes : {0, 19, 21}) {
    info.bytes = bytes;
    CHECK(absl::IsInvalidArgument(f.manager->Manage(info)));
  }
  info.bytes = 20;
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{-5}, {INT64_MAX, INT64_MAX}, {int64_t{1} << 62, 2, 2}}) {
    info.shape = shape;
    CHECK(absl::IsInvalidArgument(f.manager->Manage(info)));
  }
  info.shape = {5};
  REQUIRE(f.manager->Manage(info).ok());
  f.host.tensors["d"].assign(20, std::byte{3});
  REQUIRE(f.manager->Release({"d"}).ok());
  CHECK(f.host.tensors["d"].empty());
  REQUIRE(f.manager->Reload({"d"}).ok());
  CHECK(f.host.tensors["d"] == std::vector<std::byte>(20, std::byte{3}));
}

TEST_CASE("a tensor without bytes is released and restored like any other") {
  Fixture f(OffloadMode::kOffload);
  TensorInfo info;
  info.name = "zero";
  info.shape = {0, 4};
  REQUIRE(f.manager->Manage(info).ok());
  REQUIRE(f.manager->Release({"zero"}).ok());
  REQUIRE(f.manager->Reload({"zero"}).ok());
  CHECK(f.host.calls == std::vector<std::string>{"save zero", "release zero", "restore zero"});
}

TEST_CASE("unknown names release nothing, and do not keep the others from coming back") {
  for (OffloadMode mode : kBothModes) {
    Fixture f(mode);
    const absl::Status status = f.manager->Release({"a", "nobody"});
    CHECK(absl::IsNotFound(status));
    CHECK(absl::StrContains(status.message(), "\"nobody\""));
    CHECK(f.host.calls.empty());
    REQUIRE(f.manager->Release(kAll).ok());
    CHECK(absl::IsNotFound(f.manager->Reload({"nobody", "a", "b", "c"})));
    CHECK(f.AllThere());
    CHECK_FALSE(f.manager->resident("nobody"));
  }
}

TEST_CASE("a save that fails frees nothing") {
  for (const char* name : {"a", "b", "c"}) {
    Fixture f(OffloadMode::kOffload);
    f.host.fail_save = {name};
    const absl::Status status = f.manager->Release(kAll);
    CHECK(absl::IsAborted(status));
    CHECK(absl::StrContains(status.message(), absl::StrCat("\"", name, "\"")));
    CHECK(absl::StrContains(status.message(), "save refused"));
    CHECK(f.AllThere());
    f.host.fail_save.clear();
    REQUIRE(f.manager->Release(kAll).ok());
    REQUIRE(f.manager->Reload(kAll).ok());
    CHECK(f.AllThere());
  }
}

TEST_CASE("a full disk, at creation or at any write, frees nothing") {
  Fixture f(OffloadMode::kOffload);
  f.io.before_allocate = [](int) { return -ENOSPC; };
  const absl::Status status = f.manager->Release(kAll);
  CHECK(absl::IsResourceExhausted(status));
  CHECK(absl::StrContains(status.message(), absl::StrCat(4096 + 73728 + 4096)));
  CHECK(absl::StrContains(status.message(), f.dir.path()));
  CHECK(f.AllThere());
  f.io.before_allocate = nullptr;
  for (int k = 0; k < 3; ++k) {
    f.io.Clear();
    f.io.before_write = [=](int call) { return call == k ? -ENOSPC : 0; };
    CHECK(absl::IsResourceExhausted(f.manager->Release(kAll)));
    CHECK(f.AllThere());
  }
  f.io.before_write = nullptr;
  REQUIRE(f.manager->Release(kAll).ok());
  REQUIRE(f.manager->Reload(kAll).ok());
  CHECK(f.AllThere());
  CHECK(std::filesystem::is_empty(f.dir.path()));
}

TEST_CASE("a release that fails half way gives back what was freed") {
  for (OffloadMode mode : kBothModes) {
    for (const char* name : {"a", "b", "c"}) {
      for (bool throws : {false, true}) {
        Fixture f(mode);
        (throws ? f.host.throw_release : f.host.fail_release) = {name};
        const absl::Status status = f.manager->Release(kAll);
        CHECK(status.code() == (throws ? absl::StatusCode::kUnknown : absl::StatusCode::kAborted));
        CHECK(absl::StrContains(status.message(), absl::StrCat("\"", name, "\"")));
        CHECK(absl::StrContains(status.message(), throws ? "release threw" : "release refused"));
        CHECK(f.AllThere());
        f.host.fail_release.clear();
        f.host.throw_release.clear();
        REQUIRE(f.manager->Release(kAll).ok());
        REQUIRE(f.manager->Reload(kAll).ok());
        CHECK(f.AllThere());
      }
    }
  }
}

TEST_CASE("a failed release leaves what was released before as it was") {
  Fixture f(OffloadMode::kClean);
  REQUIRE(f.manager->Release({"a"}).ok());
  f.host.fail_release = {"c"};
  CHECK(absl::IsAborted(f.manager->Release(kAll)));
  CHECK_FALSE(f.manager->resident("a"));
  CHECK(f.manager->resident("b"));
  CHECK(f.manager->resident("c"));
}

TEST_CASE("when the way back fails too, the ledger knows, both errors are told, and reload mends it") {
  for (OffloadMode mode : kBothModes) {
    Fixture f(mode);
    f.host.fail_release = {"c"};
    f.host.fail_restore = {"a"};
    const absl::Status status = f.manager->Release(kAll);
    CHECK(absl::IsAborted(status));
    CHECK(absl::StrContains(status.message(), "release tensor \"c\""));
    CHECK(absl::StrContains(status.message(), "restore tensor \"a\""));
    CHECK_FALSE(f.manager->resident("a"));
    CHECK(f.manager->resident("b"));
    f.host.fail_restore.clear();
    REQUIRE(f.manager->Reload(kAll).ok());
    CHECK(f.AllThere());
  }
}

TEST_CASE("a restore that fails does not stop the others, and works the next time") {
  for (OffloadMode mode : kBothModes) {
    for (bool throws : {false, true}) {
      Fixture f(mode);
      REQUIRE(f.manager->Release(kAll).ok());
      (throws ? f.host.throw_restore : f.host.fail_restore) = {"a", "b"};
      const absl::Status status = f.manager->Reload(kAll);
      CHECK(status.code() == (throws ? absl::StatusCode::kUnknown : absl::StatusCode::kAborted));
      CHECK(absl::StrContains(status.message(), "2 of 3"));
      CHECK(absl::StrContains(status.message(), "\"a\""));
      CHECK(f.manager->resident("c"));
      CHECK(f.manager->released_bytes() == 71000);
      f.host.fail_restore.clear();
      f.host.throw_restore.clear();
      REQUIRE(f.manager->Reload(kAll).ok());
      CHECK(f.AllThere());
    }
  }
}

TEST_CASE("a read error on the way back leaves the tensor released, and the next try works") {
  for (OffloadMode mode : kBothModes) {
    for (int k = 0; k < 3; ++k) {
      Fixture f(mode);
      REQUIRE(f.manager->Release(kAll).ok());
      f.io.Clear();
      f.io.before_read = [=](int call) { return call == k ? -EIO : 0; };
      CHECK(absl::IsUnavailable(f.manager->Reload(kAll)));
      CHECK_FALSE(f.manager->resident(f.infos[k].name));
      REQUIRE(f.manager->Reload(kAll).ok());
      CHECK(f.AllThere());
    }
  }
}

TEST_CASE("a spill file that was tampered with is DATA_LOSS, never wrong weights") {
  Fixture f(OffloadMode::kOffload);
  REQUIRE(f.manager->Release(kAll).ok());
  f.io.Clear();
  f.io.after_read = [](int call, void* data, size_t) {
    if (call == 1) static_cast<unsigned char*>(data)[69999] ^= 128;
  };
  const absl::Status status = f.manager->Reload(kAll);
  CHECK(absl::IsDataLoss(status));
  CHECK(absl::StrContains(status.message(), "\"b\""));
  CHECK(f.host.tensors["b"].empty());
  REQUIRE(f.manager->Reload(kAll).ok());
  CHECK(f.AllThere());
}

TEST_CASE("a checkpoint that changed keeps clean mode from freeing anything") {
  Fixture f(OffloadMode::kClean);
  std::filesystem::resize_file(f.model.ShardPath(0), 50000);
  CHECK(absl::IsDataLoss(f.manager->Release(kAll)));
  CHECK(f.host.calls.empty());
  CHECK(f.AllThere());
}

TEST_CASE("a checkpoint that changes while tensors are away is DATA_LOSS, never wrong weights") {
  Fixture f(OffloadMode::kClean);
  REQUIRE(f.manager->Release(kAll).ok());
  f.host.calls.clear();
  const auto modified = std::filesystem::last_write_time(f.model.ShardPath(0));
  std::filesystem::last_write_time(f.model.ShardPath(0), modified + std::chrono::hours(1));
  CHECK(absl::IsDataLoss(f.manager->Reload(kAll)));
  CHECK(f.host.calls.empty());
  std::filesystem::last_write_time(f.model.ShardPath(0), modified);
  REQUIRE(f.manager->Reload(kAll).ok());
  CHECK(f.AllThere());
}

TEST_CASE("a cancel stops a release before anything is freed, and never a reload") {
  for (OffloadMode mode : kBothModes) {
    Fixture f(mode);
    f.cancel.Cancel();
    CHECK(absl::IsCancelled(f.manager->Release(kAll)));
    CHECK(f.AllThere());
    f.cancel.Reset();
    REQUIRE(f.manager->Release(kAll).ok());
    f.cancel.Cancel();
    REQUIRE(f.manager->Reload(kAll).ok());
    CHECK(f.AllThere());
  }
}

TEST_CASE("a scope brings everything back on every way out") {
  for (OffloadMode mode : kBothModes) {
    Fixture f(mode);
    {
      OffloadManager::Scope scope(*f.manager, {});
      REQUIRE(scope.status().ok());
      CHECK(f.manager->resident_bytes() == 0);
    }
    CHECK(f.AllThere());
    try {
      OffloadManager::Scope scope(*f.manager, {"a", "b"});
      REQUIRE(scope.status().ok());
      CHECK(f.manager->resident_bytes() == 24);
      throw std::runtime_error("the host's own trouble");
    } catch (const std::runtime_error&) {
    }
    CHECK(f.AllThere());
    {
      OffloadManager::Scope scope(*f.manager, {"a"});
      REQUIRE(scope.Reload().ok());
      CHECK(f.AllThere());
      f.host.calls.clear();
    }
    CHECK(f.host.calls.empty());
    CHECK(f.log.empty());
  }
}

TEST_CASE("scopes nest: the inner one leaves released what the outer one released") {
  Fixture f(OffloadMode::kClean);
  {
    OffloadManager::Scope outer(*f.manager, {"a"});
    {
      OffloadManager::Scope inner(*f.manager, {"a", "b"});
      CHECK_FALSE(f.manager->resident("b"));
    }
    CHECK_FALSE(f.manager->resident("a"));
    CHECK(f.manager->resident("b"));
    { OffloadManager::Scope nothing_left(*f.manager, {"a"}); }
    CHECK_FALSE(f.manager->resident("a"));
  }
  CHECK(f.AllThere());
}

TEST_CASE("a scope whose release failed has a status and nothing to undo") {
  Fixture f(OffloadMode::kOffload);
  {
    f.host.fail_release = {"b"};
    OffloadManager::Scope scope(*f.manager, {});
    CHECK(absl::IsAborted(scope.status()));
    CHECK(f.AllThere());
  }
  CHECK(f.AllThere());
  {
    f.host.fail_restore = {"a"};  // not even the way back worked: the end of the scope tries again
    OffloadManager::Scope scope(*f.manager, {});
    CHECK(absl::IsAborted(scope.status()));
    CHECK_FALSE(f.manager->resident("a"));
    f.host.fail_restore.clear();
  }
  CHECK(f.AllThere());
  OffloadManager::Scope unknown(*f.manager, {"nobody"});
  CHECK(absl::IsNotFound(unknown.status()));
}

TEST_CASE("a scope that cannot reload logs it, and the tensors can still be brought back") {
  for (bool throws : {false, true}) {
    Fixture f(OffloadMode::kOffload);
    {
      OffloadManager::Scope scope(*f.manager, {"a"});
      (throws ? f.host.throw_restore : f.host.fail_restore) = {"a"};
    }
    REQUIRE(f.log.size() == 1);
    CHECK(absl::StrContains(f.log[0], "\"a\""));
    CHECK_FALSE(f.manager->resident("a"));
    f.host.fail_restore.clear();
    f.host.throw_restore.clear();
    REQUIRE(f.manager->Reload(kAll).ok());
    CHECK(f.AllThere());
  }
}

TEST_CASE("dropping the manager gives back what is still released, and logs what it cannot") {
  for (OffloadMode mode : kBothModes) {
    Fixture f(mode);
    REQUIRE(f.manager->Release(kAll).ok());
    f.host.fail_restore = {"c"};
    f.manager.reset();
    CHECK(f.host.tensors["a"] == f.Expected("a"));
    CHECK(f.host.tensors["b"] == f.Expected("b"));
    CHECK(f.host.tensors["c"].empty());
    REQUIRE(f.log.size() == 1);
    CHECK(absl::StrContains(f.log[0], "\"c\""));
  }
}

TEST_CASE("a manager without the callbacks or the checkpoint that its mode needs is refused") {
  Fixture f(OffloadMode::kClean);
  OffloadManager::Options clean, offload;
  offload.mode = OffloadMode::kOffload;
  HostTensorCallbacks callbacks = f.host.Callbacks();
  CHECK(absl::IsInvalidArgument(OffloadManager::Create({}, nullptr, callbacks, clean).status()));
  callbacks.save = nullptr;
  CHECK(OffloadManager::Create({}, f.checkpoint.get(), callbacks, clean).ok());
  CHECK(absl::IsInvalidArgument(OffloadManager::Create({}, nullptr, callbacks, offload).status()));
  callbacks.restore = nullptr;
  CHECK(absl::IsInvalidArgument(OffloadManager::Create({}, f.checkpoint.get(), callbacks, clean).status()));
  clean.mode = static_cast<OffloadMode>(7);
  CHECK(absl::IsInvalidArgument(OffloadManager::Create({}, f.checkpoint.get(), f.host.Callbacks(), clean).status()));
}

TEST_CASE("the spill folder that the host names must exist") {
  Fixture f(OffloadMode::kOffload);
  OffloadManager::Options options;
  options.mode = OffloadMode::kOffload;
  options.work_dir = f.dir.path() + "/missing";
  auto manager = OffloadManager::Create(f.context, nullptr, f.host.Callbacks(), options);
  REQUIRE(manager.ok());
  REQUIRE((*manager)->Manage(f.infos[0]).ok());
  CHECK(absl::IsNotFound((*manager)->Release(kAll)));
  CHECK(f.host.tensors["a"] == f.Expected("a"));
}

}  // namespace
}  // namespace autoscheme
