// A process that is forked off: it must never wait for threads that were left behind.
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>

#include "capi/capi_test.h"

extern "C" {
struct DLManagedTensorVersioned {
  uint32_t major, minor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
};
}

namespace autoscheme {
namespace {

// Runs `body` in a child. True if it says true; a child that waits for ever is ended by its alarm.
bool InChild(const std::function<bool()>& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(body() ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  if (WIFSIGNALED(status)) std::fprintf(stderr, "the child died of signal %d\n", WTERMSIG(status));
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// In the child: says what is wrong, since Catch2's own report goes nowhere.
bool Expect(const char* what, bool good) {
  if (!good) std::fprintf(stderr, "in the child: %s\n", what);
  return good;
}
bool Refused(const char* what, const Result& result) {
  const bool good = result.code == AUTOSCHEME_FAILED_PRECONDITION && result.message.find("fork") != std::string::npos;
  if (!good) std::fprintf(stderr, "in the child: %s gives %d: %s\n", what, result.code, result.message.c_str());
  return good;
}

struct Forking : TinyCase {
  SkeletonPtr skeleton;
  CalibrationPtr calibration;
  GeneratorPtr generator;
  ScoresPtr scores;
  RecipesPtr recipes;
  StreamerPtr streamer;
  OffloadPtr offload;
  Forking() {
    REQUIRE(Set(AUTOSCHEME_OPTION_THREADS, "2").ok());
    REQUIRE(Open(skeleton).ok());
    REQUIRE(Load(calibration).ok());
    REQUIRE(Create(skeleton, generator).ok());
  }
  Result OpenStreamer() {
    return Make(streamer, [&](auto** out, auto** e) {
      return autoscheme_streamer_create(context.get(), skeleton.get(), nullptr, nullptr, 0, out, e);
    });
  }
  Result Run() {
    return Make(recipes, [&](auto** out, auto** e) {
      return autoscheme_generator_run(generator.get(), calibration.get(), nullptr, out, e);
    });
  }
  Result Plan() {
    return Call([&](autoscheme_error** e) {
      autoscheme_plan* plan = nullptr;
      const autoscheme_status status = autoscheme_generator_plan(generator.get(), calibration.get(), &plan, e);
      autoscheme_plan_free(plan);
      return status;
    });
  }
  Result MakeOffload() {
    autoscheme_offload_callbacks callbacks = {sizeof(callbacks), nullptr, [](void*, const char*) { return 0; },
                                              [](void*, const char*, const void*, size_t) { return 0; }};
    return Make(offload, [&](auto** out, auto** e) {
      return autoscheme_offload_create(context.get(), skeleton.get(), nullptr, &callbacks, nullptr, nullptr, out, e);
    });
  }
  void FreeAll() {
    offload.reset();
    streamer.reset();
    recipes.reset();
    scores.reset();
    generator.reset();
    skeleton.reset();
    context.reset();
  }
};

// All that a child makes of its own on the same files.
Result ScoreAnew(const Forking& parent, const char* threads, std::string* json) {
  TinyCase own;
  own.model_dir = parent.model_dir, own.tokens = parent.tokens;
  own.Set(AUTOSCHEME_OPTION_THREADS, threads);
  ScoresPtr scores;
  Result result = own.ScoreAll(scores);
  if (result.ok()) *json = WithoutRun(JsonOf(scores));
  return result;
}

TEST_CASE("a child is refused every call on its parent's handles, may ask what is immutable, and frees in no time") {
  Forking f;
  REQUIRE(f.Set(AUTOSCHEME_OPTION_THREADS, "1").ok());
  REQUIRE(f.ScoreAll(f.scores).ok());
  REQUIRE(f.Run().ok());
  int freed = 0;
  REQUIRE(autoscheme_context_set_log(
              f.context.get(), [](void*, const autoscheme_log_message*) { return 0; }, &freed,
              [](void* count) { ++*static_cast<int*>(count); }, nullptr) == AUTOSCHEME_OK);
  REQUIRE(f.MakeOffload().ok());
  REQUIRE(f.OpenStreamer().ok());
  REQUIRE(Call([&](autoscheme_error** e) { return autoscheme_streamer_next(f.streamer.get(), nullptr, e); }).ok());
  DLManagedTensorVersioned* tensor = nullptr;
  REQUIRE(autoscheme_streamer_get_tensor(f.streamer.get(), 0, &tensor, nullptr) == AUTOSCHEME_OK);
  const std::string saved = f.dir / "of_child.json";
  CHECK(InChild([&] {
    bool good = true;
    auto refused = [&](const char* what, const Result& result) { good = Refused(what, result) && good; };
    const auto streamer_call = [&](auto&& call) {
      return Call([&](autoscheme_error** e) { return call(f.streamer.get(), e); });
    };
    StreamerPtr second;
    SkeletonPtr skeleton;
    CalibrationPtr calibration;
    GeneratorPtr generator;
    ScoresPtr scores;
    RecipesPtr recipes;
    refused("next", streamer_call([](auto* s, auto** e) { return autoscheme_streamer_next(s, nullptr, e); }));
    refused("get_tensor", streamer_call([](auto* s, auto** e) {
              DLManagedTensorVersioned* out = nullptr;
              return autoscheme_streamer_get_tensor(s, 0, &out, e);
            }));
    refused("get_tensor_info", streamer_call([](auto* s, auto** e) {
              auto info = Struct<autoscheme_tensor_info>();
              return autoscheme_streamer_get_tensor_info(s, 0, &info, e);
            }));
    refused("get_stats", streamer_call([](auto* s, auto** e) {
              auto stats = Struct<autoscheme_streamer_stats>();
              return autoscheme_streamer_get_stats(s, &stats, e);
            }));
    refused("streamer", Make(second, [&](auto** out, auto** e) {
              return autoscheme_streamer_create(f.context.get(), f.skeleton.get(), nullptr, nullptr, 0, out, e);
            }));
    refused("open", Make(skeleton, [&](auto** out, auto** e) {
              return autoscheme_skeleton_open(f.context.get(), f.model_dir.c_str(), out, e);
            }));
    refused("load", f.Load(calibration));
    refused("create", f.Create(f.skeleton, generator));
    refused("score", TinyCase::Score(f.generator, f.calibration, scores));
    refused("run", f.Run());
    refused("plan", f.Plan());
    const double target = 6;
    refused("select", Make(recipes, [&](auto** out, auto** e) {
              return autoscheme_generator_select(f.generator.get(), f.scores.get(), &target, 1, out, e);
            }));
    refused("scores_select", Make(recipes, [&](auto** out, auto** e) {
              return autoscheme_scores_select(f.scores.get(), nullptr, &target, 1, out, e);
            }));
    refused("pareto", Call([&](autoscheme_error** e) {
              autoscheme_pareto* pareto = nullptr;
              return autoscheme_scores_pareto(f.scores.get(), nullptr, &pareto, e);
            }));
    refused("scores_load",
            Make(scores, [&](auto** out, auto** e) { return autoscheme_scores_load(f.context.get(), "x", out, e); }));
    refused("set_log", Call([&](autoscheme_error** e) {
              return autoscheme_context_set_log(f.context.get(), nullptr, nullptr, nullptr, e);
            }));
    refused("set_progress", Call([&](autoscheme_error** e) {
              return autoscheme_context_set_progress(f.context.get(), nullptr, nullptr, nullptr, e);
            }));
    refused("set_aliases",
            Call([&](autoscheme_error** e) { return autoscheme_context_set_aliases(f.context.get(), nullptr, e); }));
    refused("release",
            Call([&](autoscheme_error** e) { return autoscheme_offload_release(f.offload.get(), nullptr, 0, e); }));
    refused("reload",
            Call([&](autoscheme_error** e) { return autoscheme_offload_reload(f.offload.get(), nullptr, 0, e); }));
    refused("manage", Call([&](autoscheme_error** e) {
              return autoscheme_offload_manage(f.offload.get(), "x", AUTOSCHEME_DTYPE_F32, nullptr, 0, e);
            }));
    autoscheme_offload_callbacks callbacks = {sizeof(callbacks), nullptr, [](void*, const char*) { return 0; },
                                              [](void*, const char*, const void*, size_t) { return 0; }};
    OffloadPtr offload;
    refused("offload_create", Make(offload, [&](auto** out, auto** e) {
              return autoscheme_offload_create(f.context.get(), f.skeleton.get(), nullptr, &callbacks, nullptr, nullptr,
                                               out, e);
            }));
    autoscheme_cancel(f.context.get());
    good = Expect("JSON", !JsonOf(f.scores).empty()) && good;
    good = Expect("save", autoscheme_scores_save(f.scores.get(), saved.c_str(), nullptr) == AUTOSCHEME_OK) && good;
    tensor->deleter(tensor);
    f.FreeAll();
    return Expect("user data", freed == 0) && good;
  }));
  CHECK(Slurp(saved) == JsonOf(f.scores));
  // The parent goes on as if nothing had been.
  tensor->deleter(tensor);
  CHECK(Call([&](autoscheme_error** e) { return autoscheme_streamer_next(f.streamer.get(), nullptr, e); }).ok());
  f.FreeAll();
  CHECK(freed == 1);
}

TEST_CASE("a tensor whose streamer is gone is given back in a child and in its parent") {
  Forking f;
  REQUIRE(f.OpenStreamer().ok());
  REQUIRE(Call([&](autoscheme_error** e) { return autoscheme_streamer_next(f.streamer.get(), nullptr, e); }).ok());
  DLManagedTensorVersioned* tensor = nullptr;
  REQUIRE(autoscheme_streamer_get_tensor(f.streamer.get(), 0, &tensor, nullptr) == AUTOSCHEME_OK);
  f.streamer.reset();
  CHECK(InChild([&] {
    tensor->deleter(tensor);
    return true;
  }));
  tensor->deleter(tensor);
}

TEST_CASE("a child of a thread that has computed computes with a context of its own: alone, or in a new thread") {
  Forking f;
  REQUIRE(TinyCase::Score(f.generator, f.calibration, f.scores).ok());
  const std::string reference = WithoutRun(JsonOf(f.scores));
  CHECK(InChild([&] {
    std::string json;
    bool good = Refused("score with two threads", ScoreAnew(f, "2", &json));
    good = Expect("score alone", ScoreAnew(f, "1", &json).ok()) && good;
    Result in_thread;
    std::thread thread([&] { in_thread = ScoreAnew(f, "2", &json); });
    thread.join();
    return Expect("score in a new thread", in_thread.ok()) && Expect("its scores", json == reference) && good;
  }));
  REQUIRE(TinyCase::Score(f.generator, f.calibration, f.scores).ok());
  CHECK(WithoutRun(JsonOf(f.scores)) == reference);
}

TEST_CASE("a child of a thread that has not computed does, with a context of its own") {
  Forking f;
  REQUIRE(TinyCase::Score(f.generator, f.calibration, f.scores).ok());
  const std::string reference = WithoutRun(JsonOf(f.scores));
  bool good = false;
  std::thread([&] {
    good = InChild([&] {
      std::string json;
      return Expect("score", ScoreAnew(f, "2", &json).ok()) && Expect("scores", json == reference);
    });
  }).join();
  CHECK(good);
}

}  // namespace
}  // namespace autoscheme
