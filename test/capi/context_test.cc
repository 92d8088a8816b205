// Callbacks, cancelling, one long call at a time.
#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "capi/capi_test.h"

namespace autoscheme {
namespace {

using Catch::Contains;

// Counts how often a host's pointer is given back.
struct Host {
  int freed = 0;
  int calls = 0;
  int32_t answer = 0;
  static void Free(void* self) { ++static_cast<Host*>(self)->freed; }
  static int32_t OnLog(void* self, const autoscheme_log_message*) {
    ++static_cast<Host*>(self)->calls;
    return static_cast<Host*>(self)->answer;
  }
  static int32_t OnProgress(void* self, const autoscheme_progress*) {
    ++static_cast<Host*>(self)->calls;
    return static_cast<Host*>(self)->answer;
  }
};

// A generator that is ready to score.
struct Ready : TinyCase {
  SkeletonPtr skeleton;
  CalibrationPtr calibration;
  GeneratorPtr generator;
  ScoresPtr scores;
  explicit Ready(const char* schemes = "W4A16,W8A16", const char* layer_config = "") {
    REQUIRE(Set(AUTOSCHEME_OPTION_SCHEMES, schemes).ok());
    REQUIRE(Set(AUTOSCHEME_OPTION_LAYER_CONFIG, layer_config).ok());
    REQUIRE(Open(skeleton).ok());
    REQUIRE(Load(calibration).ok());
    REQUIRE(Create(skeleton, generator).ok());
  }
  Result Score() { return TinyCase::Score(generator, calibration, scores); }
  Result OnProgress(autoscheme_progress_fn fn, void* data, void (*free)(void*) = nullptr) {
    return Call(
        [&](autoscheme_error** e) { return autoscheme_context_set_progress(context.get(), fn, data, free, e); });
  }
};

TEST_CASE("aliases open a model under its own name with the scores of what it is, until they are taken away") {
  Ready plain;
  REQUIRE(plain.Score().ok());
  TinyCase tiny;
  tiny.Disguise("mine");
  const auto set = [&](const char* json) {
    return Call([&](autoscheme_error** e) { return autoscheme_context_set_aliases(tiny.context.get(), json, e); });
  };
  SkeletonPtr skeleton;
  const Result unknown = tiny.Open(skeleton);
  CHECK(unknown.code == AUTOSCHEME_UNIMPLEMENTED);
  CHECK_THAT(unknown.message, Contains("alias"));
  REQUIRE(set(R"({"model_type": "mine", "as": "llama", "rename": {"my_eps": "rms_norm_eps"},
                  "set": {"attention_bias": false}})")
              .ok());
  CHECK(set("{\"model_type\":").code == AUTOSCHEME_DATA_LOSS);  // what was set stays
  CHECK(set(R"({"model_type": "mine", "as": "lama"})").code == AUTOSCHEME_INVALID_ARGUMENT);
  REQUIRE(tiny.Open(skeleton).ok());
  auto info = Struct<autoscheme_skeleton_info>();
  REQUIRE(autoscheme_skeleton_get_info(skeleton.get(), &info, nullptr) == AUTOSCHEME_OK);
  CHECK(std::string(info.model_type) == "mine");
  ScoresPtr scores;
  REQUIRE(tiny.ScoreAll(scores).ok());
  CHECK(MeasuredOf(JsonOf(scores)) == MeasuredOf(JsonOf(plain.scores)));
  CHECK_THAT(MeasuredOf(JsonOf(scores)), Contains("self_attn.q_proj"));
  REQUIRE(set(nullptr).ok());
  CHECK(tiny.Open(skeleton).code == AUTOSCHEME_UNIMPLEMENTED);
}

TEST_CASE("a callback's user data is given back exactly once: replaced, removed, with the context, on failure") {
  Host first, second, third, refused;
  {
    ContextPtr context;
    REQUIRE(Make(context, autoscheme_context_create).ok());
    REQUIRE(autoscheme_context_set_log(context.get(), Host::OnLog, &first, Host::Free, nullptr) == 0);
    CHECK(first.freed == 0);
    REQUIRE(autoscheme_context_set_log(context.get(), Host::OnLog, &second, Host::Free, nullptr) == 0);
    CHECK(first.freed == 1);
    REQUIRE(autoscheme_context_set_log(context.get(), nullptr, nullptr, nullptr, nullptr) == 0);
    CHECK(second.freed == 1);
    REQUIRE(autoscheme_context_set_progress(context.get(), Host::OnProgress, &third, Host::Free, nullptr) == 0);
    CHECK(autoscheme_context_set_log(nullptr, Host::OnLog, &refused, Host::Free, nullptr) ==
          AUTOSCHEME_INVALID_ARGUMENT);
    CHECK(refused.freed == 1);
    CHECK(third.freed == 0);
  }
  CHECK(first.freed == 1);
  CHECK(second.freed == 1);
  CHECK(third.freed == 1);
}

TEST_CASE("user data lives as long as anything made with the context") {
  Host host;
  {
    Ready ready;
    REQUIRE(ready.OnProgress(Host::OnProgress, &host, Host::Free).ok());
    ready.context.reset();
    CHECK(host.freed == 0);
    REQUIRE(ready.Score().ok());
    CHECK(host.calls >= 5);
    CHECK(host.freed == 0);
  }
  CHECK(host.freed == 1);
}

TEST_CASE("progress names its stages, counts up to the total and never goes back in bytes or time") {
  struct Seen {
    std::vector<std::string> stages;
    bool sound = true;
    int64_t bytes = 0;
    double elapsed = 0;
    std::thread::id thread;
  } seen;
  Ready ready;
  REQUIRE(ready
              .OnProgress(
                  [](void* data, const autoscheme_progress* p) -> int32_t {
                    auto& s = *static_cast<Seen*>(data);
                    if (s.stages.empty() || s.stages.back() != p->stage) s.stages.emplace_back(p->stage);
                    s.sound = s.sound && p->struct_size == sizeof(*p) && p->done >= 1 && p->done <= p->total &&
                              p->bytes_read >= s.bytes && p->elapsed_s >= s.elapsed;
                    s.bytes = p->bytes_read, s.elapsed = p->elapsed_s, s.thread = std::this_thread::get_id();
                    return 0;
                  },
                  &seen)
              .ok());
  REQUIRE(ready.Score().ok());
  CHECK(seen.sound);
  CHECK(seen.stages == std::vector<std::string>{"forward", "head", "backward"});
  CHECK(seen.bytes > 0);
  CHECK(seen.thread == std::this_thread::get_id());
}

TEST_CASE("what a progress callback returns comes back, at each of its calls, and the next run is right") {
  Ready ready;
  REQUIRE(ready.Score().ok());
  const std::string reference = WithoutRun(JsonOf(ready.scores));
  struct Stop {
    int at, seen;
  };
  int stopped = 0;
  for (int at = 0;; ++at) {
    Stop stop{at, 0};
    auto callback = [](void* data, const autoscheme_progress*) -> int32_t {
      auto& s = *static_cast<Stop*>(data);
      return s.seen++ == s.at ? -40 - s.at : 0;
    };
    REQUIRE(ready.OnProgress(callback, &stop).ok());
    const Result result = ready.Score();
    if (stop.seen <= at) break;
    CHECK(result.code == AUTOSCHEME_CALLBACK_FAILED);
    CHECK(result.callback_value == -40 - at);
    CHECK_THAT(result.message, Contains(std::to_string(-40 - at)));
    CHECK(ready.scores == nullptr);
    ++stopped;
    REQUIRE(ready.OnProgress(nullptr, nullptr).ok());
    REQUIRE(ready.Score().ok());
    CHECK(WithoutRun(JsonOf(ready.scores)) == reference);
  }
  CHECK(stopped >= 5);
}

TEST_CASE("scores that were made are handed out, whatever stops the selection after them") {
  Ready ready;
  REQUIRE(ready.Score().ok());
  const std::string reference = WithoutRun(JsonOf(ready.scores));
  REQUIRE(ready.Set(AUTOSCHEME_OPTION_AVG_BITS, "5,6").ok());
  REQUIRE(ready.Create(ready.skeleton, ready.generator).ok());
  struct Stopper {
    autoscheme_context* context;
    enum { kValue, kThrow, kCancel } how;
  };
  for (const auto how : {Stopper::kValue, Stopper::kThrow, Stopper::kCancel}) {
    Stopper stopper{ready.context.get(), how};
    const auto callback = [](void* data, const autoscheme_progress* p) -> int32_t {
      const auto& s = *static_cast<Stopper*>(data);
      if (std::string(p->stage) != "select") return 0;
      if (s.how == Stopper::kThrow) throw std::runtime_error("boo");
      if (s.how == Stopper::kCancel) autoscheme_cancel(s.context);
      return s.how == Stopper::kValue ? 7 : 0;
    };
    REQUIRE(ready.OnProgress(callback, &stopper).ok());
    ScoresPtr scores;
    RecipesPtr recipes;
    autoscheme_scores* handed_out = nullptr;
    const Result result = Make(recipes, [&](auto** out, auto** e) {
      return autoscheme_generator_run(ready.generator.get(), ready.calibration.get(), &handed_out, out, e);
    });
    scores.reset(handed_out);
    const autoscheme_status expected[] = {AUTOSCHEME_CALLBACK_FAILED, AUTOSCHEME_INTERNAL, AUTOSCHEME_CANCELLED};
    CHECK(result.code == expected[how]);
    CHECK(result.callback_value == (how == Stopper::kValue ? 7 : 0));
    CHECK(recipes == nullptr);
    REQUIRE(scores != nullptr);
    CHECK(WithoutRun(JsonOf(scores)) == reference);
    // Without a place for them they are freed.
    CHECK(Make(recipes, [&](auto** out, auto** e) {
            return autoscheme_generator_run(ready.generator.get(), ready.calibration.get(), nullptr, out, e);
          }).code == expected[how]);
    REQUIRE(ready.OnProgress(nullptr, nullptr).ok());
    CHECK(Make(recipes, [&](auto** out, auto** e) {
            return autoscheme_generator_select(ready.generator.get(), scores.get(), nullptr, 0, out, e);
          }).ok());
  }
}

TEST_CASE("an exception from a callback is INTERNAL and stays inside") {
  Ready ready;
  REQUIRE(
      ready.OnProgress([](void*, const autoscheme_progress*) -> int32_t { throw std::runtime_error("boo"); }, nullptr)
          .ok());
  CHECK(ready.Score().code == AUTOSCHEME_INTERNAL);
  REQUIRE(ready.OnProgress([](void*, const autoscheme_progress*) -> int32_t { throw 7; }, nullptr).ok());
  CHECK(ready.Score().code == AUTOSCHEME_INTERNAL);
  REQUIRE(ready.OnProgress(nullptr, nullptr).ok());
  CHECK(ready.Score().ok());
}

TEST_CASE("warnings reach the log callback, one that says stop has no effect outside of a long call") {
  TinyCase tiny;
  SkeletonPtr skeleton;
  GeneratorPtr generator;
  Host host;
  host.answer = 3;
  REQUIRE(autoscheme_context_set_log(tiny.context.get(), Host::OnLog, &host, Host::Free, nullptr) == 0);
  REQUIRE(tiny.Open(skeleton).ok());
  REQUIRE(tiny.Set(AUTOSCHEME_OPTION_IGNORE_LAYERS, "norm").ok());
  REQUIRE(tiny.Create(skeleton, generator).ok());
  CHECK(host.calls >= 1);
  CalibrationPtr calibration;
  ScoresPtr scores;
  REQUIRE(tiny.Load(calibration).ok());
  CHECK(TinyCase::Score(generator, calibration, scores).ok());
}

TEST_CASE("a log callback that says stop while selecting stops the selection") {
  Ready ready("W4A16,W8A16", R"({"layers.1.self_attn.v_proj": "W8A16"})");
  REQUIRE(ready.Score().ok());
  REQUIRE(ready.Set(AUTOSCHEME_OPTION_SHARED_LAYERS, "k_proj,v_proj").ok());
  Host host;
  REQUIRE(autoscheme_context_set_log(ready.context.get(), Host::OnLog, &host, Host::Free, nullptr) == 0);
  RecipesPtr recipes;
  auto select = [&] {
    return Make(recipes, [&](auto** out, auto** e) {
      return autoscheme_scores_select(ready.scores.get(), ready.options.get(), nullptr, 0, out, e);
    });
  };
  CHECK(select().ok());
  CHECK(host.calls >= 1);
  host.answer = 3;
  const Result stopped = select();
  CHECK(stopped.code == AUTOSCHEME_CALLBACK_FAILED);
  CHECK(stopped.callback_value == 3);
  CHECK(recipes == nullptr);
  host.answer = 0;
  CHECK(select().ok());
}

TEST_CASE("what a log callback returns does not hide why a call fails for another reason") {
  Ready ready("W4A16,W8A16", R"({"layers.1.self_attn.v_proj": "W8A16"})");
  REQUIRE(ready.Score().ok());
  REQUIRE(ready.Set(AUTOSCHEME_OPTION_SHARED_LAYERS, "k_proj,v_proj").ok());
  Host host;
  host.answer = 3;
  REQUIRE(autoscheme_context_set_log(ready.context.get(), Host::OnLog, &host, Host::Free, nullptr) == 0);
  RecipesPtr recipes;
  const double below = 0.5;
  const Result failed = Make(recipes, [&](auto** out, auto** e) {
    return autoscheme_scores_select(ready.scores.get(), ready.options.get(), &below, 1, out, e);
  });
  CHECK(host.calls >= 1);
  CHECK(failed.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(failed.callback_value == 0);
  CHECK_THAT(failed.message, Contains("0.5"));
}

TEST_CASE("cancel from another thread in each stage stops within a block, and the context runs again") {
  struct Shared {
    autoscheme_context* context;
    std::string stage;
    std::atomic<int> after{0};  // progress calls after the request
    std::thread canceller;
    bool asked = false;
  };
  Ready ready;
  REQUIRE(ready.Score().ok());
  const std::string reference = WithoutRun(JsonOf(ready.scores));
  const auto files = ready.dir.List();
  for (const char* stage : {"forward", "head", "backward"}) {
    INFO(stage);
    Shared shared{ready.context.get(), stage, {}, {}, false};
    REQUIRE(ready
                .OnProgress(
                    [](void* data, const autoscheme_progress* p) -> int32_t {
                      auto& s = *static_cast<Shared*>(data);
                      if (s.asked) {
                        ++s.after;
                      } else if (s.stage == p->stage) {
                        s.asked = true;
                        s.canceller = std::thread([&s] { autoscheme_cancel(s.context); });
                        s.canceller.join();
                      }
                      return 0;
                    },
                    &shared)
                .ok());
    const Result result = ready.Score();
    CHECK(result.code == AUTOSCHEME_CANCELLED);
    CHECK(result.callback_value == 0);
    CHECK(shared.after <= 1);
    CHECK(ready.scores == nullptr);
    CHECK(ready.dir.List() == files);
    REQUIRE(ready.OnProgress(nullptr, nullptr).ok());
    REQUIRE(ready.Score().ok());
    CHECK(WithoutRun(JsonOf(ready.scores)) == reference);
  }
}

TEST_CASE("cancelling an idle context does nothing, whatever is called next") {
  Ready ready("W4A16,W8A16");
  REQUIRE(ready.Score().ok());
  const std::string path = ready.dir / "scores.json", work = ready.dir / "recipe.json";
  RecipesPtr recipes;
  StreamerPtr streamer;
  OffloadPtr offload;
  SkeletonPtr skeleton;
  CalibrationPtr calibration;
  GeneratorPtr generator;
  ScoresPtr scores;
  autoscheme_plan* plan = nullptr;
  autoscheme_pareto* pareto = nullptr;
  const auto idle_cancelled = [&](const char* what, const std::function<Result()>& call) {
    INFO(what);
    autoscheme_cancel(ready.context.get());
    const Result result = call();
    INFO(result.message);
    CHECK(result.ok());
  };
  const auto call = [](auto&& function) { return [&] { return Call(function); }; };
  idle_cancelled("open", [&] { return ready.Open(skeleton); });
  idle_cancelled("load", [&] { return ready.Load(calibration); });
  idle_cancelled("create", [&] { return ready.Create(ready.skeleton, generator); });
  idle_cancelled(
      "plan", call([&](auto** e) { return autoscheme_generator_plan(generator.get(), calibration.get(), &plan, e); }));
  idle_cancelled("score", [&] { return ready.Score(); });
  idle_cancelled("run", [&] {
    return Make(recipes, [&](auto** out, auto** e) {
      return autoscheme_generator_run(generator.get(), calibration.get(), nullptr, out, e);
    });
  });
  idle_cancelled("generator_select", [&] {
    return Make(recipes, [&](auto** out, auto** e) {
      return autoscheme_generator_select(generator.get(), ready.scores.get(), nullptr, 0, out, e);
    });
  });
  idle_cancelled("scores_select", [&] {
    return Make(recipes, [&](auto** out, auto** e) {
      return autoscheme_scores_select(ready.scores.get(), ready.options.get(), nullptr, 0, out, e);
    });
  });
  idle_cancelled("pareto",
                 call([&](auto** e) { return autoscheme_scores_pareto(ready.scores.get(), nullptr, &pareto, e); }));
  idle_cancelled("pareto_save", call([&](auto** e) { return autoscheme_pareto_save(pareto, work.c_str(), e); }));
  idle_cancelled("scores_save",
                 call([&](auto** e) { return autoscheme_scores_save(ready.scores.get(), path.c_str(), e); }));
  idle_cancelled("recipes_save",
                 call([&](auto** e) { return autoscheme_recipes_save(recipes.get(), work.c_str(), e); }));
  idle_cancelled("scores_load", [&] {
    return Make(scores, [&](auto** out, auto** e) {
      return autoscheme_scores_load(ready.context.get(), path.c_str(), out, e);
    });
  });
  idle_cancelled("offload", [&] {
    autoscheme_offload_callbacks callbacks = {sizeof(callbacks), nullptr, [](void*, const char*) { return 0; },
                                              [](void*, const char*, const void*, size_t) { return 0; }};
    return Make(offload, [&](auto** out, auto** e) {
      return autoscheme_offload_create(ready.context.get(), ready.skeleton.get(), nullptr, &callbacks, nullptr, nullptr,
                                       out, e);
    });
  });
  idle_cancelled("release", call([&](auto** e) { return autoscheme_offload_release(offload.get(), nullptr, 0, e); }));
  idle_cancelled("reload", call([&](auto** e) { return autoscheme_offload_reload(offload.get(), nullptr, 0, e); }));
  idle_cancelled("streamer", [&] {
    const Result made = Make(streamer, [&](auto** out, auto** e) {
      return autoscheme_streamer_create(ready.context.get(), ready.skeleton.get(), nullptr, nullptr, 0, out, e);
    });
    if (!made.ok()) return made;
    return Call([&](auto** e) { return autoscheme_streamer_next(streamer.get(), nullptr, e); });
  });
  autoscheme_plan_free(plan);
  autoscheme_pareto_free(pareto);
}

TEST_CASE("a second long call on a busy context is refused, from a callback as from another thread") {
  struct Nested {
    Ready* ready;
    Result from_callback, from_thread;
  };
  Ready ready;
  Nested nested{&ready, {}, {}};
  REQUIRE(ready
              .OnProgress(
                  [](void* data, const autoscheme_progress*) -> int32_t {
                    auto& n = *static_cast<Nested*>(data);
                    ScoresPtr scores;
                    n.from_callback = TinyCase::Score(n.ready->generator, n.ready->calibration, scores);
                    std::thread([&] {
                      StreamerPtr streamer;
                      n.from_thread = Make(streamer, [&](auto** out, auto** e) {
                        return autoscheme_streamer_create(n.ready->context.get(), n.ready->skeleton.get(), nullptr,
                                                          nullptr, 0, out, e);
                      });
                    }).join();
                    return 0;
                  },
                  &nested)
              .ok());
  CHECK(ready.Score().ok());
  CHECK(nested.from_callback.code == AUTOSCHEME_FAILED_PRECONDITION);
  CHECK(nested.from_thread.code == AUTOSCHEME_FAILED_PRECONDITION);
}

TEST_CASE("two contexts run side by side to the same answer") {
  Ready a, b;
  Result other;
  std::thread thread([&] { other = b.Score(); });
  CHECK(a.Score().ok());
  thread.join();
  CHECK(other.ok());
  auto loss = [](const ScoresPtr& scores) {
    double weight = 0;
    CHECK(autoscheme_scores_get_loss(scores.get(), 0, 0, &weight, nullptr, nullptr) == 0);
    return weight;
  };
  CHECK(loss(a.scores) == Approx(loss(b.scores)).epsilon(1e-6));
}

}  // namespace
}  // namespace autoscheme
