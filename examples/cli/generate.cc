// plan, score, select and run: from a model and calibration ids to scores and recipes.
#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "commands.h"
#include "interrupt.h"
#include "job.h"
#include "output_file.h"
#include "printable.h"
#include "progress.h"
#include "report.h"

namespace cli {
namespace {

// What scoring works on.
struct ScoringJob : Job {
  GeneratorHandle generator;
};

// Opens all inputs, then looks at the result files, so that nothing fails late that can fail early.
absl::StatusOr<ScoringJob> Prepare(const Session& session, const std::vector<std::string>& outputs) {
  absl::StatusOr<Job> begun = PrepareJob(session, outputs);
  if (!begun.ok()) return begun.status();
  ScoringJob job;
  static_cast<Job&>(job) = *std::move(begun);
  // A person wants the best choice; number for number parity with another tool is asked for by name.
  if (!session.flags.Has("scorer")) {
    CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
      return autoscheme_options_set_str(session.options.get(), AUTOSCHEME_OPTION_SCORER, "auto", error);
    }));
  }
  CLI_RETURN_IF_ERROR(Make(job.generator, [&](autoscheme_generator** out, autoscheme_error** error) {
    return autoscheme_generator_create(session.context.get(), job.skeleton.get(), session.options.get(), out, error);
  }));
  return job;
}

absl::Status Save(const autoscheme_scores* scores, const std::string& path) {
  return Call([&](autoscheme_error** error) { return autoscheme_scores_save(scores, path.c_str(), error); });
}
absl::Status Save(const autoscheme_recipes* recipes, const std::string& path) {
  return Call([&](autoscheme_error** error) { return autoscheme_recipes_save(recipes, path.c_str(), error); });
}
absl::Status Save(const autoscheme_pareto* pareto, const std::string& path) {
  return Call([&](autoscheme_error** error) { return autoscheme_pareto_save(pareto, path.c_str(), error); });
}
// For Delivery::Deliver, within the result's life.
template <typename Handle>
Delivery::Save SaveOf(const Handle& result) {
  return [made = result.get()](const std::string& path) { return Save(made, path); };
}

absl::Status PrintHead(const ScoringJob& job, const autoscheme_scores* scores) {
  auto model = Struct<autoscheme_skeleton_info>();
  CLI_RETURN_IF_ERROR(
      Call([&](autoscheme_error** error) { return autoscheme_skeleton_get_info(job.skeleton.get(), &model, error); }));
  auto info = Struct<autoscheme_scores_info>();
  CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) { return autoscheme_scores_get_info(scores, &info, error); }));
  absl::PrintF("model        %s: %s, %s, %s parameters\n", Printable(model.directory), Printable(model.model_type),
               Count(model.block_count, "block"), HumanCount(model.total_params));
  absl::PrintF("calibration  %d x %s, batches of %d\n", info.nsamples, Count(info.seqlen, "token"), info.batch_size);
  absl::PrintF("scored       %s under %s\n", Count(info.layer_count, "layer"), Count(info.scheme_count, "scheme"));
  return absl::OkStatus();
}

// The figures of the scoring, or those that another function gives.
using GetStats = decltype(&autoscheme_generator_get_stats);
absl::StatusOr<autoscheme_stats> StatsOf(const ScoringJob& job, GetStats get = autoscheme_generator_get_stats) {
  auto stats = Struct<autoscheme_stats>();
  CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) { return get(job.generator.get(), &stats, error); }));
  return stats;
}

// One line on work that came after the scoring, if there was any.
absl::Status PrintFurther(const ScoringJob& job, GetStats get, absl::string_view what) {
  const auto stats = StatsOf(job, get);
  if (!stats.ok()) return stats.status();
  if (stats->total_s == 0) return absl::OkStatus();
  absl::PrintF("      and %s to %s; %s read, peak memory %s planned, %s of the whole run\n",
               HumanSeconds(stats->total_s), what, HumanBytes(stats->read_bytes), HumanBytes(stats->planned_peak_bytes),
               HumanBytes(stats->peak_rss_bytes));
  return absl::OkStatus();
}

absl::StatusOr<ScoresHandle> RunScoring(const ScoringJob& job, bool until_stable = false) {
  ScoresHandle scores;
  const auto score = until_stable ? autoscheme_generator_score_until_stable : autoscheme_generator_score;
  CLI_RETURN_IF_ERROR(Make(scores, [&](autoscheme_scores** out, autoscheme_error** error) {
    return score(job.generator.get(), job.calibration.get(), out, error);
  }));
  return scores;
}

// Makes one result after another. The library does not hear of a Ctrl-C that comes between two calls.
template <typename Handle, typename F>
absl::Status MakeNext(Handle& handle, const F& call) {
  return Interrupted() ? absl::CancelledError("interrupted") : Make(handle, call);
}

// What a plan holds, one row for each.
template <typename Get>
absl::Status AddItems(const autoscheme_plan* plan, int64_t count, Get* get, Table& table) {
  for (int64_t i = 0; i < count; ++i) {
    auto item = Struct<autoscheme_plan_item>();
    CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) { return get(plan, i, &item, error); }));
    table.Add({absl::StrCat("  ", item.name), HumanBytes(item.bytes)});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MakePlan(Session& session) {
  auto reporting = Reporting::Start(session.flags, session.context.get());
  if (!reporting.ok()) return reporting.status();
  CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
    return autoscheme_options_set_i64(session.options.get(), AUTOSCHEME_OPTION_PLAN_ONLY, 1, error);
  }));
  const auto job = Prepare(session, {});
  if (!job.ok()) return job.status();
  PlanHandle plan;
  CLI_RETURN_IF_ERROR(Make(plan, [&](autoscheme_plan** out, autoscheme_error** error) {
    return autoscheme_generator_plan(job->generator.get(), job->calibration.get(), out, error);
  }));
  if (session.flags.Has("json")) {
    const char* json = nullptr;
    CLI_RETURN_IF_ERROR(
        Call([&](autoscheme_error** error) { return autoscheme_plan_json(plan.get(), &json, nullptr, error); }));
    absl::PrintF("%s\n", json);
    return absl::OkStatus();
  }
  auto info = Struct<autoscheme_plan_info>();
  CLI_RETURN_IF_ERROR(
      Call([&](autoscheme_error** error) { return autoscheme_plan_get_info(plan.get(), &info, error); }));
  Table table;
  if (info.vram_item_count > 0) {
    table.Add({absl::StrCat("in the memory of ", info.device, " at the peak"), "size"});
    CLI_RETURN_IF_ERROR(AddItems(plan.get(), info.vram_item_count, autoscheme_plan_get_vram_item, table));
    table.Add({"peak", HumanBytes(info.vram_peak_bytes)});
    table.Add({"budget", HumanBytes(info.vram_budget_bytes)});
    table.Add({"smallest --max-vram sure to do", HumanBytes(info.vram_least_bytes)});
  }
  table.Add({"in memory at the peak", "size"});
  CLI_RETURN_IF_ERROR(AddItems(plan.get(), info.item_count, autoscheme_plan_get_item, table));
  table.Add({"peak", HumanBytes(info.peak_bytes)});
  table.Add({"budget", info.budget_bytes > 0 ? HumanBytes(info.budget_bytes) : "none"});
  table.Add({"smallest --max-ram sure to do", HumanBytes(info.least_bytes)});
  table.Add({"bytes to read", HumanBytes(info.read_bytes)});
  table.Add({"spill file", HumanBytes(info.spill_bytes)});
  table.Add({"matrix products", absl::StrFormat("%.2f TFLOP", info.flops / 1e12)});
  table.Add({"estimated time", HumanSeconds(info.estimated_s)});
  absl::PrintF("%s", table.ToString());
  absl::PrintF("how   %s of weights, %d in memory at once%s; %s of a batch computed at once\n",
               Count(info.units, "unit"), info.slots,
               info.tile_bytes != 0 ? ", by row tiles that are read at every use" : "",
               Count(info.micro_batch_rows, "row"));
  absl::PrintF("      budget: %s%s\n", info.budget_reason,
               session.flags.Has("max-ram") ? "" : " (--max-ram names another)");
  if (info.vram_item_count > 0) {
    absl::PrintF("      %s: %s%s; saved inputs %s; its speed is assumed, an H100's (docs/cuda.md)\n", info.device,
                 info.vram_budget_reason, session.flags.Has("max-vram") ? "" : " (--max-vram names another)",
                 info.inputs_in_vram != 0  ? "lie there"
                 : info.inputs_in_ram != 0 ? "lie in host memory"
                                           : "are spilled");
  }
  if (info.input_interval > 1) {
    absl::PrintF("      inputs of every %d units are stored; those between are computed again\n", info.input_interval);
  }
  if (info.saved_units > 0) absl::PrintF("      activations of the last %s stay\n", Count(info.saved_units, "unit"));
  if (info.cached_units > 0) absl::PrintF("      weights of the last %s stay\n", Count(info.cached_units, "unit"));
  return absl::OkStatus();
}

absl::Status Score(Session& session) {
  const std::string out = OutputPath(session.flags, "out");
  auto reporting = Reporting::Start(session.flags, session.context.get());
  if (!reporting.ok()) return reporting.status();
  const auto job = Prepare(session, {out});
  if (!job.ok()) return job.status();
  const auto scores = RunScoring(*job);
  if (!scores.ok()) return scores.status();
  Delivery delivery(session.flags);
  delivery.Deliver("scores", out, SaveOf(*scores));
  (*reporting)->Finish();
  CLI_RETURN_IF_ERROR(delivery.status());
  if (!Prints(session, {out})) return absl::OkStatus();
  CLI_RETURN_IF_ERROR(PrintHead(*job, scores->get()));
  const auto stats = StatsOf(*job);
  if (!stats.ok()) return stats.status();
  PrintStats(*stats, MaxRam(session));
  absl::PrintF("wrote %s\n", Printable(out));
  return absl::OkStatus();
}

absl::Status Select(Session& session) {
  const std::string out = OutputPath(session.flags, "out"), front = OutputPath(session.flags, "pareto");
  auto reporting = Reporting::Start(session.flags, session.context.get());
  if (!reporting.ok()) return reporting.status();
  ScoresHandle scores;
  CLI_RETURN_IF_ERROR(Make(scores, [&](autoscheme_scores** made, autoscheme_error** error) {
    return autoscheme_scores_load(session.context.get(), session.flags.Get("scores").c_str(), made, error);
  }));
  CLI_RETURN_IF_ERROR(CheckOutputs(session.context.get(), {out, front}, Inputs(session, nullptr)));
  Delivery delivery(session.flags);
  if (!front.empty()) {
    ParetoHandle pareto;
    const absl::Status found = MakeNext(pareto, [&](autoscheme_pareto** made, autoscheme_error** error) {
      return autoscheme_scores_pareto(scores.get(), session.options.get(), made, error);
    });
    if (found.ok()) {
      delivery.Deliver("front", front, SaveOf(pareto));
    } else {
      delivery.Fail(found);
    }
  }
  RecipesHandle recipes;
  if (!out.empty()) {
    const absl::Status selected = MakeNext(recipes, [&](autoscheme_recipes** made, autoscheme_error** error) {
      return autoscheme_scores_select(scores.get(), session.options.get(), nullptr, 0, made, error);
    });
    if (selected.ok()) {
      delivery.Deliver("recipe", out, SaveOf(recipes));
    } else {
      delivery.Fail(selected);
    }
  }
  (*reporting)->Finish();
  CLI_RETURN_IF_ERROR(delivery.status());
  if (!Prints(session, {out, front})) return absl::OkStatus();
  if (recipes != nullptr) CLI_RETURN_IF_ERROR(PrintRecipes(recipes.get(), scores.get()));
  absl::PrintF("%swrote %s%s%s\n", out.empty() ? "" : "\n", Printable(out), out.empty() || front.empty() ? "" : " and ",
               Printable(front));
  return absl::OkStatus();
}

// How many recipes --refine measures; 0: none.
int64_t Evaluations(const Session& session) { return session.flags.GetCount("refine").value_or(0); }

// Whether they serve, and what measuring on them takes, before anything is scored.
absl::Status CheckVerification(const Session& session, const ScoringJob& job, const autoscheme_calibration* rows) {
  PlanHandle plan;
  if (Evaluations(session) > 0) {
    CLI_RETURN_IF_ERROR(Make(plan, [&](autoscheme_plan** out, autoscheme_error** error) {
      return autoscheme_generator_plan_refine(job.generator.get(), rows, Evaluations(session), out, error);
    }));
  }
  return Make(plan, [&](autoscheme_plan** out, autoscheme_error** error) {
    return autoscheme_generator_plan_verify(job.generator.get(), rows, out, error);
  });
}

absl::StatusOr<CalibrationHandle> LoadVerifyTokens(const Session& session, const ScoringJob& job,
                                                   Reporting& reporting) {
  const std::string path = session.flags.Get("verify-tokens");
  CalibrationHandle rows;
  CLI_RETURN_IF_ERROR(Make(rows, [&](autoscheme_calibration** out, autoscheme_error** error) {
    return autoscheme_calibration_load(session.context.get(), path.c_str(), out, error);
  }));
  const absl::Status checked = CheckVerification(session, job, rows.get());
  if (!checked.ok()) {
    return absl::Status(checked.code(), absl::StrCat("--verify-tokens ", Printable(path), ": ", checked.message()));
  }
  auto info = Struct<autoscheme_calibration_info>(), scored = info;
  CLI_RETURN_IF_ERROR(
      Call([&](autoscheme_error** error) { return autoscheme_calibration_get_info(rows.get(), &info, error); }));
  CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
    return autoscheme_calibration_get_info(job.calibration.get(), &scored, error);
  }));
  const bool same = std::string(info.sha256) == scored.sha256 || path == session.flags.Get("tokens");
  if (same) reporting.Warn("--verify-tokens are rows that are scored: the choice will look better than it is");
  return rows;
}

// Rows that recipes are verified on, which are then not scored; null where that is not wanted, or not asked for and
// impossible.
absl::StatusOr<CalibrationHandle> RowsToVerifyOn(const Session& session, ScoringJob& job, Reporting& reporting) {
  constexpr int64_t kFewestRows = 4;
  CalibrationHandle rows, rest;
  if (session.flags.Has("verify-tokens")) return LoadVerifyTokens(session, job, reporting);
  auto info = Struct<autoscheme_calibration_info>();
  CLI_RETURN_IF_ERROR(Call(
      [&](autoscheme_error** error) { return autoscheme_calibration_get_info(job.calibration.get(), &info, error); }));
  const bool asked = session.flags.Has("verify") || session.flags.Has("refine");
  const bool automatic =
      (!session.flags.Has("scorer") || session.flags.Get("scorer") == "auto") && !session.flags.Has("reference-rules");
  if (session.flags.Has("no-verify") || (!automatic && !asked)) return rows;
  if (!asked && info.nsamples < kFewestRows) {
    reporting.Warn(absl::StrCat("the recipe is not verified: ", Count(info.nsamples, "row"), " of calibration, and ",
                                kFewestRows, " are needed to keep one back; --verify-tokens names others"));
    return rows;
  }
  if (info.nsamples < 2) {
    return absl::InvalidArgumentError(
        "--verify and --refine keep a quarter of the rows back, and there is one row; give more, or --verify-tokens "
        "FILE");
  }
  autoscheme_calibration* held_back = nullptr;
  CLI_RETURN_IF_ERROR(Make(rest, [&](autoscheme_calibration** out, autoscheme_error** error) {
    return autoscheme_calibration_hold_back(job.calibration.get(), 0, out, &held_back, error);
  }));
  rows.reset(held_back);
  const absl::Status checked = CheckVerification(session, job, rows.get());
  if (absl::IsResourceExhausted(checked) && !asked) {
    reporting.Warn(absl::StrCat("the recipe is not verified: ", checked.message()));
    return CalibrationHandle();
  }
  CLI_RETURN_IF_ERROR(checked);
  job.calibration = std::move(rest);
  return rows;
}

// Refines the recipes if that is asked for, and verifies them.
absl::Status MeasureChoice(const Session& session, const ScoringJob& job, const autoscheme_scores* scores,
                           const autoscheme_calibration* held_back, autoscheme_recipes* recipes) {
  if (Evaluations(session) > 0) {
    CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
      return autoscheme_generator_refine(job.generator.get(), scores, held_back, Evaluations(session), recipes, error);
    }));
    if (Interrupted()) return absl::CancelledError("interrupted");
  }
  return Call([&](autoscheme_error** error) {
    return autoscheme_generator_verify(job.generator.get(), scores, held_back, recipes, error);
  });
}

absl::Status Run(Session& session) {
  const std::string out = OutputPath(session.flags, "out"), kept = OutputPath(session.flags, "save-scores");
  auto reporting = Reporting::Start(session.flags, session.context.get());
  if (!reporting.ok()) return reporting.status();
  auto job = Prepare(session, {out, kept});
  if (!job.ok()) return job.status();
  const auto held_back = RowsToVerifyOn(session, *job, **reporting);
  if (!held_back.ok()) return held_back.status();
  const auto scores = RunScoring(*job, session.flags.Has("until-stable"));
  if (!scores.ok()) return scores.status();
  const auto stats = StatsOf(*job);
  if (!stats.ok()) return stats.status();
  Delivery delivery(session.flags);
  if (!kept.empty()) delivery.Deliver("scores", kept, SaveOf(*scores));
  RecipesHandle recipes;
  absl::Status selected = MakeNext(recipes, [&](autoscheme_recipes** made, autoscheme_error** error) {
    return autoscheme_generator_select(job->generator.get(), scores->get(), nullptr, 0, made, error);
  });
  if (selected.ok() && *held_back != nullptr) {
    // What was chosen stays of use where measuring it fails.
    const absl::Status measured = MeasureChoice(session, *job, scores->get(), held_back->get(), recipes.get());
    if (!measured.ok()) delivery.Fail(measured);
  }
  if (selected.ok()) {
    delivery.Deliver("recipe", out, SaveOf(recipes));
  } else {
    delivery.Fail(selected);
    if (kept.empty()) delivery.Deliver("scores", "", SaveOf(*scores));
  }
  (*reporting)->Finish();
  CLI_RETURN_IF_ERROR(delivery.status());
  if (!Prints(session, {out, kept})) return absl::OkStatus();
  CLI_RETURN_IF_ERROR(PrintHead(*job, scores->get()));
  CLI_RETURN_IF_ERROR(PrintRecipes(recipes.get(), scores->get()));
  PrintStats(*stats, MaxRam(session));
  CLI_RETURN_IF_ERROR(PrintFurther(*job, autoscheme_generator_get_refine_stats, "refine them"));
  CLI_RETURN_IF_ERROR(PrintFurther(*job, autoscheme_generator_get_verify_stats, "measure the recipes"));
  absl::PrintF("wrote %s%s%s\n", Printable(out), kept.empty() ? "" : " and ", Printable(kept));
  return absl::OkStatus();
}

}  // namespace cli
