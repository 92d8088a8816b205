// The generator: options and a skeleton -> plan, scores, recipes.
#include "autoscheme/scheme_generator.h"
#include "calibration.h"
#include "options.h"
#include "results.h"
#include "skeleton.h"

using autoscheme::SchemeGenerator;
using autoscheme::capi::CheckProcess;
using autoscheme::capi::Clear;
using autoscheme::capi::Guard;
using autoscheme::capi::LongCall;
using autoscheme::capi::MakeContext;
using autoscheme::capi::Outcome;

namespace {

// Declared in the order of who borrows from whom: the generator goes first.
struct GeneratorState {
  std::shared_ptr<autoscheme::capi::ContextState> context_state;
  std::shared_ptr<autoscheme::capi::SkeletonState> skeleton;
  autoscheme_options options;
  std::unique_ptr<SchemeGenerator> generator;
};

// Scores that may have taken hours: the host gets them however the call goes on, by an exception as well.
struct ScoresForHost {
  autoscheme_scores* made;
  autoscheme_scores** out;  // null: the host does not want them
  ~ScoresForHost() {
    if (out != nullptr) {
      *out = made;
    } else {
      autoscheme_scores_free(made);
    }
  }
};

}  // namespace

struct autoscheme_generator {
  std::shared_ptr<GeneratorState> state;
};

namespace {

// How many recipes the options' targets will make; 1 where there is none yet.
int64_t TargetCount(const GeneratorState& state) {
  const auto targets = autoscheme::capi::GetTargets(&state.options, nullptr, 0);
  return targets.ok() ? static_cast<int64_t>(targets->avg_bits.size() + targets->bytes.size()) : 1;
}

// A plan for measuring on `held_back` what the options' targets will make: plan(generator, how many recipes).
template <typename Plan>
autoscheme_status PlanOf(const autoscheme_generator* generator, const autoscheme_calibration* held_back,
                         autoscheme_plan** out, autoscheme_error** error, const Plan& plan) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(generator);
    CAPI_REQUIRE(held_back);
    CAPI_REQUIRE(out);
    CAPI_RETURN_IF_ERROR(CheckProcess(*generator->state->context_state));
    auto made = plan(*generator->state->generator, TargetCount(*generator->state));
    if (!made.ok()) return made.status();
    *out = autoscheme::capi::MakePlanHandle(*std::move(made));
    return absl::OkStatus();
  });
}

// A long call that measures the recipes, and may change them: measure(generator).
template <typename F>
autoscheme_status Measure(autoscheme_generator* generator, const autoscheme_scores* scores,
                          const autoscheme_calibration* held_back, autoscheme_recipes* recipes,
                          autoscheme_error** error, const F& measure) {
  return Guard(error, [&]() -> Outcome {
    CAPI_REQUIRE(generator);
    CAPI_REQUIRE(scores);
    CAPI_REQUIRE(held_back);
    CAPI_REQUIRE(recipes);
    LongCall call(generator->state->context_state);
    CAPI_RETURN_IF_ERROR(call.status());
    return call.Finish(measure(*generator->state->generator));
  });
}

autoscheme_status GetStats(const autoscheme_generator* generator, autoscheme_stats* stats, autoscheme_error** error,
                           const autoscheme::RunStats& (SchemeGenerator::*which)() const) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(generator);
    CAPI_REQUIRE(stats);
    return autoscheme::capi::FillStats(((*generator->state->generator).*which)(), stats);
  });
}

}  // namespace

extern "C" {

autoscheme_status autoscheme_generator_create(autoscheme_context* context, const autoscheme_skeleton* skeleton,
                                              const autoscheme_options* options, autoscheme_generator** out,
                                              autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(context);
    CAPI_REQUIRE(skeleton);
    CAPI_REQUIRE(options);
    CAPI_REQUIRE(out);
    CAPI_RETURN_IF_ERROR(CheckProcess(*context->state));
    auto converted = autoscheme::capi::ToOptions(*options);
    if (!converted.ok()) return converted.status();
    auto state = std::make_shared<GeneratorState>();
    state->context_state = context->state;
    state->skeleton = skeleton->state;
    state->options = *options;
    auto generator = SchemeGenerator::Create(MakeContext(context->state.get(), /*cancellable=*/true),
                                             *skeleton->state->skeleton, *std::move(converted));
    if (!generator.ok()) return generator.status();
    state->generator = *std::move(generator);
    *out = new autoscheme_generator{std::move(state)};
    return absl::OkStatus();
  });
}

void autoscheme_generator_free(autoscheme_generator* generator) {
  if (generator != nullptr) autoscheme::capi::FreeHandle(generator, *generator->state->context_state);
}

autoscheme_status autoscheme_generator_plan(const autoscheme_generator* generator,
                                            const autoscheme_calibration* calibration, autoscheme_plan** out,
                                            autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(generator);
    CAPI_REQUIRE(calibration);
    CAPI_REQUIRE(out);
    CAPI_RETURN_IF_ERROR(CheckProcess(*generator->state->context_state));
    auto plan = generator->state->generator->MakePlan(calibration->calibration);
    if (!plan.ok()) return plan.status();
    *out = autoscheme::capi::MakePlanHandle(*std::move(plan));
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_generator_score(autoscheme_generator* generator, const autoscheme_calibration* calibration,
                                             autoscheme_scores** out, autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> Outcome {
    CAPI_REQUIRE(generator);
    CAPI_REQUIRE(calibration);
    CAPI_REQUIRE(out);
    // Targets that are set already are checked before hours of work.
    if (const auto targets = autoscheme::capi::GetTargets(&generator->state->options, nullptr, 0); targets.ok()) {
      CAPI_RETURN_IF_ERROR(generator->state->generator->CheckTargets(targets->avg_bits, targets->bytes));
    }
    LongCall call(generator->state->context_state);
    CAPI_RETURN_IF_ERROR(call.status());
    auto table = generator->state->generator->Score(calibration->calibration);
    if (!table.ok()) return call.Finish(table.status());
    *out = autoscheme::capi::MakeScoresHandle(generator->state->context_state, *std::move(table));
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_generator_score_until_stable(autoscheme_generator* generator,
                                                          const autoscheme_calibration* calibration,
                                                          autoscheme_scores** out, autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> Outcome {
    CAPI_REQUIRE(generator);
    CAPI_REQUIRE(calibration);
    CAPI_REQUIRE(out);
    const auto targets = autoscheme::capi::GetTargets(&generator->state->options, nullptr, 0);
    if (!targets.ok()) return targets.status();
    LongCall call(generator->state->context_state);
    CAPI_RETURN_IF_ERROR(call.status());
    auto table =
        generator->state->generator->ScoreUntilStable(calibration->calibration, targets->avg_bits, targets->bytes);
    if (!table.ok()) return call.Finish(table.status());
    *out = autoscheme::capi::MakeScoresHandle(generator->state->context_state, *std::move(table));
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_generator_select(const autoscheme_generator* generator, const autoscheme_scores* scores,
                                              const double* avg_bits, int64_t count, autoscheme_recipes** out,
                                              autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> Outcome {
    CAPI_REQUIRE(generator);
    CAPI_REQUIRE(scores);
    CAPI_REQUIRE(out);
    const auto targets = autoscheme::capi::GetTargets(&generator->state->options, avg_bits, count);
    if (!targets.ok()) return targets.status();
    LongCall call(generator->state->context_state);
    CAPI_RETURN_IF_ERROR(call.status());
    auto recipes = generator->state->generator->Select(scores->table, targets->avg_bits, targets->bytes);
    if (!recipes.ok()) return call.Finish(recipes.status());
    *out = autoscheme::capi::MakeRecipesHandle(generator->state->context_state, *std::move(recipes));
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_generator_plan_refine(const autoscheme_generator* generator,
                                                   const autoscheme_calibration* held_back, int64_t evaluations,
                                                   autoscheme_plan** out, autoscheme_error** error) {
  return PlanOf(generator, held_back, out, error, [&](const SchemeGenerator& of, int64_t recipes) {
    return of.PlanRefine(held_back->calibration, recipes, evaluations);
  });
}

autoscheme_status autoscheme_generator_refine(autoscheme_generator* generator, const autoscheme_scores* scores,
                                              const autoscheme_calibration* held_back, int64_t evaluations,
                                              autoscheme_recipes* recipes, autoscheme_error** error) {
  return Measure(generator, scores, held_back, recipes, error, [&](SchemeGenerator& by) {
    return by.Refine(scores->table, held_back->calibration, evaluations, recipes->recipes);
  });
}

autoscheme_status autoscheme_generator_plan_verify(const autoscheme_generator* generator,
                                                   const autoscheme_calibration* held_back, autoscheme_plan** out,
                                                   autoscheme_error** error) {
  return PlanOf(generator, held_back, out, error, [&](const SchemeGenerator& of, int64_t recipes) {
    return of.PlanVerify(held_back->calibration, recipes);
  });
}

autoscheme_status autoscheme_generator_verify(autoscheme_generator* generator, const autoscheme_scores* scores,
                                              const autoscheme_calibration* held_back, autoscheme_recipes* recipes,
                                              autoscheme_error** error) {
  return Measure(generator, scores, held_back, recipes, error, [&](SchemeGenerator& by) {
    return by.Verify(scores->table, held_back->calibration, recipes->recipes);
  });
}

autoscheme_status autoscheme_generator_run(autoscheme_generator* generator, const autoscheme_calibration* calibration,
                                           autoscheme_scores** out_scores, autoscheme_recipes** out,
                                           autoscheme_error** error) {
  Clear(out_scores, out);
  return Guard(error, [&]() -> Outcome {
    CAPI_REQUIRE(generator);
    CAPI_REQUIRE(calibration);
    CAPI_REQUIRE(out);
    const auto targets = autoscheme::capi::GetTargets(&generator->state->options, nullptr, 0);
    if (!targets.ok()) return targets.status();
    CAPI_RETURN_IF_ERROR(generator->state->generator->CheckTargets(targets->avg_bits, targets->bytes));
    LongCall call(generator->state->context_state);
    CAPI_RETURN_IF_ERROR(call.status());
    auto table = generator->state->generator->Score(calibration->calibration);
    if (!table.ok()) return call.Finish(table.status());
    const ScoresForHost scores{autoscheme::capi::MakeScoresHandle(generator->state->context_state, *std::move(table)),
                               out_scores};
    auto recipes = generator->state->generator->Select(scores.made->table, targets->avg_bits, targets->bytes);
    if (!recipes.ok()) return call.Finish(recipes.status());
    *out = autoscheme::capi::MakeRecipesHandle(generator->state->context_state, *std::move(recipes));
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_generator_get_stats(const autoscheme_generator* generator, autoscheme_stats* stats,
                                                 autoscheme_error** error) {
  return GetStats(generator, stats, error, &SchemeGenerator::stats);
}

autoscheme_status autoscheme_generator_get_refine_stats(const autoscheme_generator* generator, autoscheme_stats* stats,
                                                        autoscheme_error** error) {
  return GetStats(generator, stats, error, &SchemeGenerator::refine_stats);
}

autoscheme_status autoscheme_generator_get_verify_stats(const autoscheme_generator* generator, autoscheme_stats* stats,
                                                        autoscheme_error** error) {
  return GetStats(generator, stats, error, &SchemeGenerator::verify_stats);
}

}  // extern "C"

namespace autoscheme::capi {

absl::Status FillStats(const RunStats& from, autoscheme_stats* stats) {
  autoscheme_stats filled{};
  filled.planned_read_bytes = from.planned_read_bytes;
  filled.read_bytes = from.read_bytes;
  filled.spill_bytes = from.spill_bytes;
  filled.planned_peak_bytes = from.planned_peak_bytes;
  filled.peak_rss_bytes = from.peak_rss_bytes;
  filled.forward_s = from.forward_s;
  filled.head_s = from.head_s;
  filled.backward_s = from.backward_s;
  filled.stall_s = from.stall_s;
  filled.total_s = from.total_s;
  filled.product_s = from.product_s, filled.product_flops = from.product_flops;
  filled.rss_anon_bytes = from.rss_anon_bytes, filled.rss_file_bytes = from.rss_file_bytes;
  filled.io_engine = IoEngineName(from.io_engine).data();
  filled.planned_vram_bytes = from.planned_vram_bytes, filled.peak_vram_bytes = from.peak_vram_bytes;
  filled.disk_read_bytes = from.disk_read_bytes, filled.read_call_bytes = from.read_call_bytes;
  return FillStruct(filled, stats);
}

}  // namespace autoscheme::capi
