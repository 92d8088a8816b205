// What the tests of the C interface share: handles that free themselves, calls with their error, a tiny model on disk.
#pragma once

#include <autoscheme.h>

#include <memory>
#include <string>

#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* handle) const {
    Free(handle);
  }
};
using ContextPtr = std::unique_ptr<autoscheme_context, Freer<autoscheme_context_free>>;
using OptionsPtr = std::unique_ptr<autoscheme_options, Freer<autoscheme_options_free>>;
using SkeletonPtr = std::unique_ptr<autoscheme_skeleton, Freer<autoscheme_skeleton_free>>;
using CalibrationPtr = std::unique_ptr<autoscheme_calibration, Freer<autoscheme_calibration_free>>;
using GeneratorPtr = std::unique_ptr<autoscheme_generator, Freer<autoscheme_generator_free>>;
using PlanPtr = std::unique_ptr<autoscheme_plan, Freer<autoscheme_plan_free>>;
using ScoresPtr = std::unique_ptr<autoscheme_scores, Freer<autoscheme_scores_free>>;
using RecipesPtr = std::unique_ptr<autoscheme_recipes, Freer<autoscheme_recipes_free>>;
using StreamerPtr = std::unique_ptr<autoscheme_streamer, Freer<autoscheme_streamer_free>>;
using OffloadPtr = std::unique_ptr<autoscheme_offload, Freer<autoscheme_offload_free>>;

struct Result {
  autoscheme_status code = AUTOSCHEME_OK;
  std::string message;
  int32_t callback_value = 0;
  bool ok() const { return code == AUTOSCHEME_OK; }
};

// Runs `call`, which takes an autoscheme_error**.
template <typename F>
Result Call(F&& call) {
  autoscheme_error* error = nullptr;
  Result result;
  result.code = call(&error);
  if ((error != nullptr) != (result.code != AUTOSCHEME_OK)) result.message = "error object does not fit the status";
  if (error == nullptr) return result;
  if (autoscheme_error_code(error) == result.code) result.message = autoscheme_error_message(error);
  result.callback_value = autoscheme_error_callback_value(error);
  autoscheme_error_free(error);
  return result;
}

// The same for a function that makes a handle: `call` also takes a T**.
template <typename Handle, typename F>
Result Make(Handle& handle, F&& call) {
  typename Handle::pointer made = reinterpret_cast<typename Handle::pointer>(16);  // must be overwritten in any case
  Result result = Call([&](autoscheme_error** error) { return call(&made, error); });
  handle.reset(made);
  return result;
}

// What a visible struct is filled into.
template <typename T>
T Struct() {
  T value{};
  value.struct_size = sizeof(T);
  return value;
}

// A model of two blocks with fourteen layers, and calibration for it.
struct TinyCase {
  TempDir dir;
  TinyModel model;
  std::string model_dir, tokens;
  ContextPtr context;
  OptionsPtr options;

  explicit TinyCase(int shards = 1) {
    model.hidden = 64, model.intermediate = 64, model.shards = shards;
    dir.Write("model/.keep", "");
    model_dir = dir / "model";
    WriteTinyModel(model, model_dir);
    tokens = dir.Write("tokens.json", TinyTokens(4, 8, model.vocab));
    Make(context, autoscheme_context_create);
    Make(options, autoscheme_options_create);
    Set(AUTOSCHEME_OPTION_SCHEMES, "W4A16,W8A16");
    Set(AUTOSCHEME_OPTION_AVG_BITS, "6");
    Set(AUTOSCHEME_OPTION_BATCH_SIZE, "2");
    Set(AUTOSCHEME_OPTION_THREADS, "1");  // a tiny model is faster so, and tests run side by side
  }
  // Gives the model another type, and its eps another key, my_eps.
  void Disguise(const std::string& model_type) const {
    std::string config = TinyConfig(model);
    const auto replace = [&](const std::string& from, const std::string& to) {
      config.replace(config.find(from), from.size(), to);
    };
    replace("\"llama\"", "\"" + model_type + "\""), replace("rms_norm_eps", "my_eps");
    dir.Write("model/config.json", config);
  }
  Result Set(int32_t id, const char* value) {
    return Call([&](autoscheme_error** e) { return autoscheme_options_set_str(options.get(), id, value, e); });
  }
  Result Open(SkeletonPtr& skeleton) {
    return Make(skeleton, [&](autoscheme_skeleton** out, autoscheme_error** e) {
      return autoscheme_skeleton_open(context.get(), model_dir.c_str(), out, e);
    });
  }
  Result Load(CalibrationPtr& calibration) {
    return Make(calibration, [&](autoscheme_calibration** out, autoscheme_error** e) {
      return autoscheme_calibration_load(context.get(), tokens.c_str(), out, e);
    });
  }
  Result Create(const SkeletonPtr& skeleton, GeneratorPtr& generator) {
    return Make(generator, [&](autoscheme_generator** out, autoscheme_error** e) {
      return autoscheme_generator_create(context.get(), skeleton.get(), options.get(), out, e);
    });
  }
  static Result Score(const GeneratorPtr& generator, const CalibrationPtr& calibration, ScoresPtr& scores) {
    return Make(scores, [&](autoscheme_scores** out, autoscheme_error** e) {
      return autoscheme_generator_score(generator.get(), calibration.get(), out, e);
    });
  }
  // All of the above; the first failure.
  Result ScoreAll(ScoresPtr& scores) {
    SkeletonPtr skeleton;
    CalibrationPtr calibration;
    GeneratorPtr generator;
    Result result = Open(skeleton);
    if (result.ok()) result = Load(calibration);
    if (result.ok()) result = Create(skeleton, generator);
    if (result.ok()) result = Score(generator, calibration, scores);
    return result;
  }
};

inline std::string JsonOf(const ScoresPtr& scores) {
  const char* json = nullptr;
  size_t length = 0;
  Call([&](autoscheme_error** e) { return autoscheme_scores_json(scores.get(), &json, &length, e); });
  return json == nullptr ? std::string() : std::string(json, length);
}

// Without what the run has cost, which differs from run to run, and what the model is called.
inline std::string MeasuredOf(const std::string& scores_json) {
  const size_t from = scores_json.find("\n  \"calibration\": {");
  return from == std::string::npos ? "" : scores_json.substr(from, scores_json.find("\n  \"run\": {") - from);
}

// Without what the run has cost, which differs from run to run.
inline std::string WithoutRun(const std::string& scores_json) {
  return scores_json.substr(0, scores_json.find("\n  \"run\": {"));
}

}  // namespace autoscheme
