// eval: recipes and schemes side by side, and what each does to the model's predictions.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "commands.h"
#include "job.h"
#include "output_file.h"
#include "printable.h"
#include "progress.h"
#include "report.h"

namespace cli {
namespace {

// The recipes of all files, by whose names they are called.
struct Files {
  std::vector<std::string> names;
  std::vector<RecipesHandle> handles;
};

absl::StatusOr<Files> LoadRecipes(const Session& session) {
  Files files;
  for (const std::string& path : RecipeFiles(session.flags)) {
    RecipesHandle recipes;
    CLI_RETURN_IF_ERROR(Make(recipes, [&](autoscheme_recipes** out, autoscheme_error** error) {
      return autoscheme_recipes_load(session.context.get(), path.c_str(), out, error);
    }));
    files.names.push_back(path), files.handles.push_back(std::move(recipes));
  }
  return files;
}

absl::StatusOr<EvaluationHandle> Evaluate(const Session& session, const Job& job, const Files& files) {
  std::vector<const autoscheme_recipes*> recipes;
  std::vector<const char*> names;
  for (const RecipesHandle& handle : files.handles) recipes.push_back(handle.get());
  for (const std::string& name : files.names) names.push_back(name.c_str());
  EvaluationHandle evaluation;
  CLI_RETURN_IF_ERROR(Make(evaluation, [&](autoscheme_evaluation** out, autoscheme_error** error) {
    return autoscheme_evaluate(session.context.get(), job.skeleton.get(), session.options.get(), job.calibration.get(),
                               recipes.empty() ? nullptr : recipes.data(), names.data(),
                               static_cast<int64_t>(recipes.size()), out, error);
  }));
  return evaluation;
}

absl::Status PrintWorst(const autoscheme_evaluation* evaluation, int64_t recipe,
                        const autoscheme_recipe_evaluation& info) {
  if (info.worst_count == 0) return absl::OkStatus();
  Table table("r");
  table.Add({"  row", "position", "KL"});
  for (int64_t i = 0; i < info.worst_count; ++i) {
    int64_t row = 0, position = 0;
    double kl = 0;
    CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
      return autoscheme_evaluation_get_worst(evaluation, recipe, i, &row, &position, &kl, error);
    }));
    table.Add({absl::StrCat(row), absl::StrCat(position), absl::StrFormat("%.4g", kl)});
  }
  absl::PrintF("\nworst tokens of %s\n%s", Printable(info.name), table.ToString());
  return absl::OkStatus();
}

absl::Status PrintFigures(const autoscheme_evaluation* evaluation, const autoscheme_evaluation_info& info) {
  Table table;
  table.Add({"", "avg bits", "KL", "+-", "top-1", "cross entropy", "perplexity"});
  table.Add({"full precision", "", "", "", "", absl::StrFormat("%.4f", info.cross_entropy),
             absl::StrFormat("%.4f", info.perplexity)});
  std::vector<autoscheme_recipe_evaluation> recipes;
  for (int64_t i = 0; i < info.recipe_count; ++i) {
    auto recipe = Struct<autoscheme_recipe_evaluation>();
    CLI_RETURN_IF_ERROR(Call(
        [&](autoscheme_error** error) { return autoscheme_evaluation_get_recipe(evaluation, i, &recipe, error); }));
    table.Add({recipe.name, absl::StrFormat("%.4f", recipe.avg_bits), absl::StrFormat("%.5g", recipe.kl),
               absl::StrFormat("%.2g", recipe.kl_error), absl::StrFormat("%.2f%%", 100 * recipe.top1),
               absl::StrFormat("%.4f", recipe.cross_entropy), absl::StrFormat("%.4f", recipe.perplexity)});
    recipes.push_back(recipe);
  }
  absl::PrintF("%s", table.ToString());
  absl::PrintF("KL(full precision || recipe) in nats per token; +- one standard error, of the mean over %s\n",
               info.error_over_rows != 0 ? "rows" : "tokens");
  for (int64_t i = 0; i < info.note_count; ++i) {
    absl::PrintF("note: %s\n", Printable(autoscheme_evaluation_note(evaluation, i)));
  }
  for (int64_t i = 0; i < info.recipe_count; ++i) CLI_RETURN_IF_ERROR(PrintWorst(evaluation, i, recipes[i]));
  return absl::OkStatus();
}

absl::Status PrintTables(const Session& session, const Job& job, const autoscheme_evaluation* evaluation) {
  auto model = Struct<autoscheme_skeleton_info>();
  CLI_RETURN_IF_ERROR(
      Call([&](autoscheme_error** error) { return autoscheme_skeleton_get_info(job.skeleton.get(), &model, error); }));
  auto info = Struct<autoscheme_evaluation_info>();
  CLI_RETURN_IF_ERROR(
      Call([&](autoscheme_error** error) { return autoscheme_evaluation_get_info(evaluation, &info, error); }));
  absl::PrintF("model        %s: %s, %s, %s parameters\n", Printable(model.directory), Printable(model.model_type),
               Count(model.block_count, "block"), HumanCount(model.total_params));
  absl::PrintF("tokens       %d x %s\n\n", info.nsamples, Count(info.seqlen, "token"));
  CLI_RETURN_IF_ERROR(PrintFigures(evaluation, info));
  auto stats = Struct<autoscheme_stats>();
  CLI_RETURN_IF_ERROR(
      Call([&](autoscheme_error** error) { return autoscheme_evaluation_get_stats(evaluation, &stats, error); }));
  PrintStats(stats, MaxRam(session));
  return absl::OkStatus();
}

}  // namespace

absl::Status Eval(Session& session) {
  const std::string out = OutputPath(session.flags, "out");
  auto reporting = Reporting::Start(session.flags, session.context.get());
  if (!reporting.ok()) return reporting.status();
  const auto job = PrepareJob(session, {out});
  if (!job.ok()) return job.status();
  const auto files = LoadRecipes(session);
  if (!files.ok()) return files.status();
  const auto evaluation = Evaluate(session, *job, *files);
  if (!evaluation.ok()) return evaluation.status();
  Delivery delivery(session.flags);
  if (!out.empty()) {
    delivery.Deliver("evaluation", out, [&](const std::string& path) {
      return Call(
          [&](autoscheme_error** error) { return autoscheme_evaluation_save(evaluation->get(), path.c_str(), error); });
    });
  }
  (*reporting)->Finish();
  CLI_RETURN_IF_ERROR(delivery.status());
  if (session.flags.Has("json") && !AnyIsStdout({out})) {
    const char* json = nullptr;
    CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
      return autoscheme_evaluation_json(evaluation->get(), &json, nullptr, error);
    }));
    absl::PrintF("%s", json);
    return absl::OkStatus();
  }
  if (!Prints(session, {out})) return absl::OkStatus();
  CLI_RETURN_IF_ERROR(PrintTables(session, *job, evaluation->get()));
  if (!out.empty()) absl::PrintF("wrote %s\n", Printable(out));
  return absl::OkStatus();
}

}  // namespace cli
