// Evaluation, stage by stage: recipes -> variants -> plan -> forward sweep and head -> figures by recipe.
#include "evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "exec/lanes.h"
#include "exec/sweep.h"
#include "formats/bits.h"
#include "formats/data_types.h"
#include "formats/stand_in.h"
#include "plan/calibration_ids.h"
#include "planner/planner.h"
#include "run_setup.h"
#include "scorers/evaluation.h"

namespace autoscheme {
namespace {

using Figures = EvaluationScorer::Figures;

// What scoring leaves in the process when it has ended: libraries' pages, and heap that is not given back.
constexpr uint64_t kLeftByScoringBytes = 8 << 20;

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// The error of the mean of values that are independent.
double StandardError(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double mean = Mean(values), count = static_cast<double>(values.size());
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / (count - 1) / count);
}

std::vector<TokenDivergence> Worst(const std::vector<double>& kl, int64_t positions, int64_t count) {
  std::vector<int64_t> order(kl.size());
  std::iota(order.begin(), order.end(), 0);
  const auto wanted = order.begin() + std::min<int64_t>(count, static_cast<int64_t>(order.size()));
  std::partial_sort(order.begin(), wanted, order.end(),
                    [&](int64_t a, int64_t b) { return kl[a] != kl[b] ? kl[a] > kl[b] : a < b; });
  std::vector<TokenDivergence> worst;
  for (auto token = order.begin(); token != wanted; ++token) {
    worst.push_back({*token / positions, *token % positions, kl[*token]});
  }
  return worst;
}

void CountBits(const std::vector<LayerInfo>& layers, bool ignore_scale_zp_bits, const Recipe& recipe,
               RecipeEvaluation& of) {
  absl::flat_hash_map<std::string, const LayerInfo*> by_name;
  for (const LayerInfo& layer : layers) by_name[layer.name] = &layer;
  for (const LayerChoice& choice : recipe.layers) {
    const LayerInfo& layer = *by_name.at(choice.layer);
    of.total_bits +=
        LayerBits(StoredScheme(choice.scheme, layer), layer.out_features, layer.in_features, ignore_scale_zp_bits);
    of.total_params += layer.out_features * layer.in_features;
  }
  of.avg_bits = static_cast<double>(of.total_bits) / static_cast<double>(of.total_params);
}

// The figures of one recipe out of those of its tokens.
void Summarize(const Figures& figures, int64_t rows, int64_t positions, const EvaluateOptions& evaluate,
               RecipeEvaluation& to) {
  const std::vector<double>& kl = figures.kl;
  to.row_kl.assign(rows, 0);
  std::vector<double> by_position(positions);
  for (size_t token = 0; token < kl.size(); ++token) {
    to.row_kl[token / positions] += kl[token] / static_cast<double>(positions);
    by_position[token % positions] += kl[token] / static_cast<double>(rows);
  }
  to.kl = Mean(kl);
  to.kl_error = StandardError(rows > 1 ? to.row_kl : kl);
  to.top1 = static_cast<double>(std::accumulate(figures.agrees.begin(), figures.agrees.end(), int64_t{0})) /
            static_cast<double>(figures.agrees.size());
  to.cross_entropy = Mean(figures.cross_entropy);
  to.perplexity = std::exp(to.cross_entropy);
  if (evaluate.by_position) to.position_kl = std::move(by_position);
  to.worst = Worst(kl, positions, evaluate.worst_tokens);
}

absl::Status Check(const Options& options, const EvaluateOptions& evaluate, const MetaSkeleton& skeleton) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckMachineOptions(options));
  if (evaluate.worst_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("worst_tokens is ", evaluate.worst_tokens, ", must be 0 (none) or more"));
  }
  return skeleton.checkpoint().CheckHasWeights();
}

// An empty evaluation of these tokens.
Evaluation Begin(const RunSetup& setup, const Calibration& tokens) {
  Evaluation evaluation;
  evaluation.model = setup.skeleton->model(), evaluation.model_type = setup.skeleton->model_type();
  evaluation.fingerprint = setup.skeleton->fingerprint();
  evaluation.nsamples = tokens.nsamples, evaluation.seqlen = tokens.seqlen;
  evaluation.tokens_sha256 = Sha256(tokens);
  evaluation.dtype = setup.precision.name;
  evaluation.error_over_rows = tokens.nsamples > 1;
  return evaluation;
}

void AddNotes(const EvaluationScorer& scorer, Evaluation& evaluation) {
  evaluation.searched_unweighed = scorer.searches_unweighed();
  if (evaluation.searched_unweighed) {
    evaluation.notes.push_back(
        "k-quants were searched without an importance matrix; with one they lose less (--imatrix, option "
        "imatrix_file)");
  }
  if (evaluation.nsamples == 1) {
    evaluation.notes.push_back(
        "one row: the standard error takes its tokens for independent, and is too small (give several rows)");
  }
}

// What an evaluation works with. Addresses in it are borrowed by its own members, so it stays where it is.
struct Prepared {
  RunSetup setup;
  std::optional<Imatrix> imatrix;
  std::unique_ptr<EvaluationScorer> scorer;
};

RunDevice FirstDevice(const RunSetup& setup) { return setup.devices.empty() ? RunDevice() : setup.devices[0]; }

absl::Status Prepare(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                     const Calibration& tokens, const std::vector<NamedRecipe>& recipes, const OfGenerator& of,
                     Prepared& to) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckCalibration(tokens, skeleton));
  AUTOSCHEME_RETURN_IF_ERROR(to.setup.Begin(context, skeleton, options));
  if (!options.imatrix_file.empty()) {
    AUTOSCHEME_RETURN_IF_ERROR(to.setup.ReadImatrix());
  } else if (of.collected != nullptr && !of.collected->empty()) {
    to.setup.imatrix = *of.collected;
  }
  AUTOSCHEME_RETURN_IF_ERROR(Guarded([&] {
    to.imatrix = to.setup.ImatrixOn(FirstDevice(to.setup));
    return absl::OkStatus();
  }));
  to.setup.floor_bytes = of.floor_bytes > 0 ? of.floor_bytes + kLeftByScoringBytes : ReadProcessMemory().rss;
  AUTOSCHEME_ASSIGN_OR_RETURN(
      to.scorer, EvaluationScorer::Create({&skeleton, recipes, to.imatrix.has_value() ? &*to.imatrix : nullptr,
                                           tokens.nsamples, tokens.seqlen}));
  return absl::OkStatus();
}

absl::StatusOr<PlannedRun> PlanFor(const RunSetup& setup, const Calibration& tokens, const EvaluationScorer& scorer,
                                   const Scorers& scorers) {
  PlanInput input = setup.PlanInputOf(tokens);
  input.needs = input.all_needs = &scorers.needs();
  if (scorer.searches()) input.quantize_s = fitted::kSearchSeconds;
  return PlanRun(input);
}

// Plans, sweeps, and leaves the figures in the scorer.
absl::Status Sweep(const RunSetup& setup, const Calibration& tokens, EvaluationScorer& scorer, RunStats& stats) {
  const Scorers scorers({&scorer});
  AUTOSCHEME_ASSIGN_OR_RETURN(const PlannedRun planned, PlanFor(setup, tokens, scorer, scorers));
  if (!planned.warning.empty()) setup.context.Warn(planned.warning);
  stats.planned_peak_bytes = planned.plan.peak_bytes, stats.planned_vram_bytes = planned.plan.vram_peak_bytes;
  const RunDevice device = FirstDevice(setup);
  Lanes lanes({device.device.get()});
  return Guarded([&] {
    return setup.WithResources(setup.context, device, planned.choice, [&](RunResources& run) -> absl::Status {
      run.stats = stats;
      if (device.device != nullptr) run.lanes = &lanes;
      AUTOSCHEME_RETURN_IF_ERROR(RunSweeps(run, *setup.skeleton, tokens, planned.choice, scorers).status());
      stats = run.stats;
      return absl::OkStatus();
    });
  });
}

}  // namespace

absl::StatusOr<Evaluation> Evaluate(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                    const Calibration& tokens, const std::vector<NamedRecipe>& recipes,
                                    const EvaluateOptions& evaluate) {
  return EvaluateFor(context, skeleton, options, tokens, recipes, evaluate, {});
}

absl::StatusOr<Evaluation> EvaluateFor(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                       const Calibration& tokens, const std::vector<NamedRecipe>& recipes,
                                       const EvaluateOptions& evaluate, const OfGenerator& of) {
  const auto start = std::chrono::steady_clock::now();
  AUTOSCHEME_RETURN_IF_ERROR(Check(options, evaluate, skeleton));
  const ProcessReads reads_before = ReadProcessReads();
  Prepared prepared;
  AUTOSCHEME_RETURN_IF_ERROR(Prepare(context, skeleton, options, tokens, recipes, of, prepared));
  const RunSetup& setup = prepared.setup;
  EvaluationScorer* const scorer = prepared.scorer.get();

  Evaluation evaluation = Begin(setup, tokens);
  ThreadCount threads(setup.threads);
  AUTOSCHEME_RETURN_IF_ERROR(threads.status());
  AUTOSCHEME_RETURN_IF_ERROR(Sweep(setup, tokens, *scorer, evaluation.run));
  evaluation.cross_entropy = Mean(scorer->figures(0).cross_entropy);
  evaluation.perplexity = std::exp(evaluation.cross_entropy);
  const std::vector<LayerInfo> layers = LayersOfRecipes(skeleton);
  for (size_t r = 0; r < recipes.size(); ++r) {
    RecipeEvaluation& figures = evaluation.recipes.emplace_back();
    figures.name = recipes[r].name;
    CountBits(layers, options.ignore_scale_zp_bits, recipes[r].recipe, figures);
    Summarize(scorer->figures(static_cast<int>(r) + 1), tokens.nsamples, tokens.seqlen - 1, evaluate, figures);
  }
  AddNotes(*scorer, evaluation);
  AddProcessFigures(reads_before, evaluation.run);
  evaluation.run.total_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return evaluation;
}

absl::StatusOr<Plan> PlanEvaluations(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                     const Calibration& tokens, int64_t count, const OfGenerator& of) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckMachineOptions(options));
  Context quiet = context;  // what there is to warn of was said when the generator was made
  quiet.log = nullptr;
  // A recipe that is yet to be chosen needs about what a uniform one does.
  std::vector<NamedRecipe> recipes;
  for (const Scheme& scheme : options.schemes) {
    AUTOSCHEME_ASSIGN_OR_RETURN(Recipe uniform, UniformRecipe(quiet, skeleton, scheme, options));
    recipes.push_back({scheme.name, std::move(uniform)});
  }
  const size_t uniforms = recipes.size();
  recipes.resize(count);
  for (size_t r = uniforms; r < recipes.size(); ++r) recipes[r] = recipes[r - uniforms];
  Prepared prepared;
  AUTOSCHEME_RETURN_IF_ERROR(Prepare(quiet, skeleton, options, tokens, recipes, of, prepared));
  AUTOSCHEME_ASSIGN_OR_RETURN(const PlannedRun planned,
                              PlanFor(prepared.setup, tokens, *prepared.scorer, Scorers({prepared.scorer.get()})));
  return planned.plan;
}

Context NamingStages(Context context, const std::string& name, const PartOfStages& part) {
  if (!context.progress) return context;
  context.progress = [report = context.progress, name, part](const Progress& progress) {
    const std::string stage = absl::StrCat(name, " ", progress.stage);
    Progress named = progress;
    named.stage = stage;
    named.done += static_cast<int64_t>(part.part) * progress.total;
    named.total *= static_cast<int64_t>(part.parts);
    named.bytes_read += static_cast<int64_t>(part.before.read_bytes), named.elapsed_s += part.before.total_s;
    return report(named);
  };
  return context;
}

absl::StatusOr<Recipe> UniformRecipe(const Context& context, const MetaSkeleton& skeleton, const Scheme& scheme,
                                     const Options& options) {
  AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(scheme));
  Options alone = options;
  alone.schemes = {scheme};
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::vector<LayerInfo> layers, LayersFor(context, skeleton, alone));
  Recipe recipe;
  for (const LayerInfo& layer : layers) {
    const Scheme stored = StoredScheme(layer.fixed.value_or(scheme), layer);
    recipe.layers.push_back({layer.name, stored, layer.fixed.has_value()});
    recipe.total_bits += LayerBits(stored, layer.out_features, layer.in_features, options.ignore_scale_zp_bits);
    recipe.total_params += layer.out_features * layer.in_features;
    recipe.layer_bytes += FileBytes(stored, layer.out_features, layer.in_features);
  }
  recipe.avg_bits = static_cast<double>(recipe.total_bits) / static_cast<double>(recipe.total_params);
  recipe.target_avg_bits = recipe.avg_bits;
  return recipe;
}

}  // namespace autoscheme
