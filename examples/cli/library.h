// The C interface as this program uses it: handles that free themselves, failures as absl::Status.
#pragma once

#include <autoscheme.h>

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace cli {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* handle) const {
    Free(handle);
  }
};

using ContextHandle = std::unique_ptr<autoscheme_context, Deleter<autoscheme_context_free>>;
using OptionsHandle = std::unique_ptr<autoscheme_options, Deleter<autoscheme_options_free>>;
using SkeletonHandle = std::unique_ptr<autoscheme_skeleton, Deleter<autoscheme_skeleton_free>>;
using CalibrationHandle = std::unique_ptr<autoscheme_calibration, Deleter<autoscheme_calibration_free>>;
using EvaluationHandle = std::unique_ptr<autoscheme_evaluation, Deleter<autoscheme_evaluation_free>>;
using GeneratorHandle = std::unique_ptr<autoscheme_generator, Deleter<autoscheme_generator_free>>;
using ParetoHandle = std::unique_ptr<autoscheme_pareto, Deleter<autoscheme_pareto_free>>;
using PlanHandle = std::unique_ptr<autoscheme_plan, Deleter<autoscheme_plan_free>>;
using ScoresHandle = std::unique_ptr<autoscheme_scores, Deleter<autoscheme_scores_free>>;
using RecipesHandle = std::unique_ptr<autoscheme_recipes, Deleter<autoscheme_recipes_free>>;

// Runs `call`, which takes an autoscheme_error**, and takes its error over. What Ctrl-C has stopped is CANCELLED,
// whether by autoscheme_cancel or by our callbacks, which fail for no other reason.
template <typename F>
absl::Status Call(F&& call) {
  autoscheme_error* error = nullptr;
  const autoscheme_status status = call(&error);
  if (status == AUTOSCHEME_OK) return absl::OkStatus();
  const std::string message = autoscheme_error_message(error);
  autoscheme_error_free(error);
  if (status == AUTOSCHEME_CALLBACK_FAILED || status == AUTOSCHEME_CANCELLED)
    return absl::CancelledError("interrupted");
  return absl::Status(static_cast<absl::StatusCode>(status), message);
}

// The same for a function that makes a handle: `call` also takes a T**.
template <typename Handle, typename F>
absl::Status Make(Handle& handle, F&& call) {
  typename Handle::pointer made = nullptr;
  absl::Status status = Call([&](autoscheme_error** error) { return call(&made, error); });
  handle.reset(made);
  return status;
}

// A visible struct with its size set.
template <typename T>
T Struct() {
  T value{};
  value.struct_size = sizeof(T);
  return value;
}

}  // namespace cli

#define CLI_RETURN_IF_ERROR(expression) \
  if (absl::Status cli_status_ = (expression); !cli_status_.ok()) return cli_status_
