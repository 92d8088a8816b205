// Scoring, stage by stage: skeleton -> layers -> plan -> sweeps -> score table -> selection. Of the files that know all
// rooms this is the one to read; evaluate.cc goes the same way for recipes, and run_setup.cc has what both begin with.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "autoscheme/scheme_generator.h"
#include "base/count.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "base/system_limits.h"
#include "checkpoint/checkpoint.h"
#include "exec/lanes.h"
#include "exec/probe.h"
#include "exec/run_resources.h"
#include "exec/sweep.h"
#include "formats/data_types.h"
#include "formats/scorer_names.h"
#include "formats/stand_in.h"
#include "plan/calibration_ids.h"
#include "planner/planner.h"
#include "refine.h"
#include "run_setup.h"
#include "scorers/run_scorers.h"
#include "select/groups.h"
#include "stream/spill_file.h"
#include "until_stable.h"
#include "verify.h"

namespace autoscheme {

struct SchemeGenerator::Rep : RunSetup {
  std::vector<LayerInfo> layers;
  RunStats stats, verify_stats, refine_stats;
  Imatrix collected;          // by the last run, on the host; empty where a file gave one or no scheme needs one
  uint64_t bytes_before = 0;  // by the checkpoint itself, when a run of several lanes began

  ScoreTable EmptyTable() const;
  SelectOptions ForTargets(const std::vector<double>& avg_bits, const std::vector<int64_t>& target_bytes) const {
    SelectOptions select;
    select.avg_bits = avg_bits;
    select.ignore_scale_zp_bits = options.ignore_scale_zp_bits;
    select.target_bytes = target_bytes;
    select.shared_layers = options.shared_layers;
    select.reference_rules = options.reference_rules;
    return select;
  }
  OfGenerator ForEvaluation() const { return {&collected, floor_bytes}; }
  absl::StatusOr<PlannedRun> Plan(const Calibration& calibration, const MachineRates& rates = {}) const;
  absl::Status CheckSpillFolder(uint64_t bytes) const;
  std::vector<std::vector<int>> SchemesOfLanes() const;
  // Borrows the matrix that a file gave, if any.
  absl::StatusOr<RunScorers> MakeScorers(const std::vector<int>& schemes, const Imatrix* from_file) const;
  struct Lane;
  absl::Status RunLane(const Context& with, const Calibration& calibration, const ExecutionPlan& plan, Lanes* lanes,
                       int index, Lane& lane) const;
  absl::Status RunLanes(const Calibration& calibration, const ExecutionPlan& plan, std::vector<Lane>& lanes);
  absl::Status Sweep(const Calibration& calibration, const PlannedRun& planned, ScoreTable& table);
};

namespace {

// The height of the head's tiles must do for the quantizers of all lanes.
absl::Status AgreeOnTiles(const Scorers& all, const LinearLayer& head, ExecutionPlan& plan) {
  for (int v = 0; v < all.needs().count(); ++v) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const Treatment treatment, all.Treat(v, head));
    AUTOSCHEME_ASSIGN_OR_RETURN(std::vector<Treatment> treatments, all.Candidates(v, head));
    treatments.push_back(treatment);
    for (const Treatment& one : treatments) {
      plan.head_row_multiple = CommonRowMultiple(plan.head_row_multiple, one.weight.get());
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const Options& o) {
  if (o.schemes.empty()) return absl::InvalidArgumentError("option schemes is empty: give at least one, e.g. W4A16");
  for (const Scheme& scheme : o.schemes) AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(scheme));
  AUTOSCHEME_RETURN_IF_ERROR(CheckMachineOptions(o));
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string scorer, ScorerNamed(o.scorer, o.reference_rules));
  if (o.reference_rules && scorer != kTwoTermScorer) {
    return absl::InvalidArgumentError(absl::StrCat("option reference_rules does as AutoRound does, whose scorer is ",
                                                   kTwoTermScorer, "; option scorer is ", Quoted(scorer)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SchemeGenerator>> SchemeGenerator::Create(const Context& context,
                                                                         const MetaSkeleton& skeleton,
                                                                         Options options) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckOptions(options));
  auto rep = std::make_unique<Rep>();
  AUTOSCHEME_RETURN_IF_ERROR(rep->Begin(context, skeleton, options));
  AUTOSCHEME_ASSIGN_OR_RETURN(rep->layers, LayersFor(context, skeleton, options));
  AUTOSCHEME_RETURN_IF_ERROR(CheckSharedLayers(rep->layers, options.shared_layers));
  for (const Scheme& scheme : options.schemes) {
    AUTOSCHEME_RETURN_IF_ERROR(MakeWeightQuantizer(scheme).status());
    AUTOSCHEME_RETURN_IF_ERROR(MakeActivationQuantizer(scheme).status());
  }
  const bool weighs = std::any_of(options.schemes.begin(), options.schemes.end(), UsesImatrix);
  const bool searches = std::any_of(rep->layers.begin(), rep->layers.end(), [&](const LayerInfo& layer) {
    if (layer.fixed.has_value() || layer.is_embedding) return false;
    return std::any_of(options.schemes.begin(), options.schemes.end(), [&](const Scheme& scheme) {
      return UsesImatrix(scheme) && (options.reference_rules || !StandIn(scheme, layer).has_value());
    });
  });
  if (!options.imatrix_file.empty() && weighs && !searches) {
    context.Warn(absl::StrCat(
        "importance matrix ", Quoted(options.imatrix_file),
        " is not used: no layer that is scored has rows of a multiple of 256 weights, which k-quants need"));
  }
  if (!options.imatrix_file.empty() && !weighs) {
    context.Warn(absl::StrCat(
        "importance matrix ", Quoted(options.imatrix_file),
        " is not used: only k-quants (GGUF:Q4_K_S and the like) are searched with one, and the menu has none"));
  }
  if (!options.imatrix_file.empty() && weighs) {
    AUTOSCHEME_RETURN_IF_ERROR(rep->ReadImatrix());
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(rep->options.scorer, ScorerNamed(options.scorer, options.reference_rules));
  rep->floor_bytes = ReadProcessMemory().rss;
  return std::unique_ptr<SchemeGenerator>(new SchemeGenerator(std::move(rep)));
}

SchemeGenerator::SchemeGenerator(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
SchemeGenerator::~SchemeGenerator() = default;
const RunStats& SchemeGenerator::stats() const { return rep_->stats; }
const RunStats& SchemeGenerator::verify_stats() const { return rep_->verify_stats; }
const RunStats& SchemeGenerator::refine_stats() const { return rep_->refine_stats; }

ScoreTable SchemeGenerator::Rep::EmptyTable() const {
  ScoreTable table;
  table.model = skeleton->model();
  table.model_type = skeleton->model_type();
  table.fingerprint = skeleton->fingerprint();
  table.tied_head = skeleton->tied_head();
  table.batch_size = options.batch_size;
  table.dtype = precision.name;
  table.scorer = options.scorer;
  table.schemes = options.schemes;
  table.layers = layers;
  int64_t other = static_cast<int64_t>(skeleton->total_bytes());
  absl::flat_hash_map<std::string, const TensorInfo*> weights;
  for (const Block& block : skeleton->blocks()) {
    for (const LinearLayer& linear : block.linears) weights[linear.name] = linear.weight;
  }
  // The bytes of a tied head are the embedding's.
  if (!skeleton->tied_head()) weights[skeleton->head().name] = skeleton->head().weight;
  for (const LayerInfo& layer : layers) {
    const auto found = weights.find(layer.name);
    if (layer.is_embedding) other -= static_cast<int64_t>(skeleton->embedding()->bytes);
    if (found != weights.end()) other -= static_cast<int64_t>(found->second->bytes);
  }
  table.other_bytes = other;
  return table;
}

absl::StatusOr<PlannedRun> SchemeGenerator::Rep::Plan(const Calibration& calibration, const MachineRates& rates) const {
  AUTOSCHEME_RETURN_IF_ERROR(CheckCalibration(calibration, *skeleton));
  PlanInput input = PlanInputOf(calibration);
  if (std::any_of(options.schemes.begin(), options.schemes.end(), UsesImatrix))
    input.quantize_s = fitted::kSearchSeconds;
  const Imatrix* const from_file = imatrix.has_value() ? &*imatrix : nullptr;
  std::vector<int> menu(options.schemes.size());
  std::iota(menu.begin(), menu.end(), 0);
  AUTOSCHEME_ASSIGN_OR_RETURN(const RunScorers all, MakeScorers(menu, from_file));
  const std::vector<std::vector<int>> of_lanes = SchemesOfLanes();
  input.needs = input.all_needs = &all.all().needs();
  if (of_lanes.size() == 1) return PlanRun(input, rates);
  const auto& busiest = *std::max_element(of_lanes.begin(), of_lanes.end(),
                                          [](const auto& a, const auto& b) { return a.size() < b.size(); });
  AUTOSCHEME_ASSIGN_OR_RETURN(const RunScorers scorers, MakeScorers(busiest, from_file));
  input.needs = &scorers.all().needs();
  input.device->lanes = static_cast<int>(of_lanes.size());
  AUTOSCHEME_ASSIGN_OR_RETURN(PlannedRun planned, PlanRun(input, rates));
  AUTOSCHEME_RETURN_IF_ERROR(AgreeOnTiles(all.all(), skeleton->head(), planned.choice));
  return planned;
}

absl::StatusOr<Plan> SchemeGenerator::MakePlan(const Calibration& calibration) const {
  AUTOSCHEME_RETURN_IF_ERROR(rep_->Plan(calibration).status());
  // Only a plan that exists is worth a measurement, which itself needs memory.
  MachineRates rates;
  const bool measures = !rep_->device_input.has_value();
  ThreadCount threads(rep_->threads);
  AUTOSCHEME_RETURN_IF_ERROR(threads.status());
  AUTOSCHEME_RETURN_IF_ERROR(Guarded([&]() -> absl::Status {
    if (!measures) return absl::OkStatus();
    AUTOSCHEME_ASSIGN_OR_RETURN(rates, MeasureRates(NotCancellable(rep_->context), *rep_->skeleton,
                                                    TorchType(rep_->precision.operands), rep_->options.io_engine));
    return absl::OkStatus();
  }));
  AUTOSCHEME_ASSIGN_OR_RETURN(PlannedRun run, rep_->Plan(calibration, rates));
  if (!run.warning.empty()) rep_->context.Warn(run.warning);
  if (run.plan.spill_bytes > 0) AUTOSCHEME_RETURN_IF_ERROR(rep_->CheckSpillFolder(run.plan.spill_bytes));
  return run.plan;
}

// Whether the folder takes a spill file, though not yet one of that size.
absl::Status SchemeGenerator::Rep::CheckSpillFolder(uint64_t bytes) const {
  Context quiet = NotCancellable(context);
  quiet.log = nullptr;
  const absl::Status made = SpillFile::Create(quiet, options.work_dir, 1, "what the plan spills").status();
  if (made.ok()) return made;
  return absl::Status(made.code(), absl::StrCat("a run would spill ", Count(bytes, "byte"), ": ", made.message()));
}

// The schemes of each lane, as indices into the menu: as many for one as for the other, but for one at most.
std::vector<std::vector<int>> SchemeGenerator::Rep::SchemesOfLanes() const {
  const size_t schemes = options.schemes.size(), lanes = std::clamp<size_t>(devices.size(), 1, schemes);
  std::vector<std::vector<int>> of_lanes(lanes);
  for (size_t s = 0; s < schemes; ++s) of_lanes[s * lanes / schemes].push_back(static_cast<int>(s));
  return of_lanes;
}

absl::StatusOr<RunScorers> SchemeGenerator::Rep::MakeScorers(const std::vector<int>& schemes,
                                                             const Imatrix* from_file) const {
  std::vector<Scheme> menu;
  for (const int s : schemes) menu.push_back(options.schemes[s]);
  return RunScorers::Create(options.scorer, {skeleton, menu, layers, from_file, options.reference_rules});
}

// One lane's part of a run.
struct SchemeGenerator::Rep::Lane {
  std::vector<int> schemes;  // indices into the menu
  RunDevice device;
  absl::Status status;
  ScoreTerms terms;       // whose schemes count from 0 in `schemes`
  int first_variant = 0;  // in `losses`, of the scorer that found them
  Losses losses;
  Imatrix collected;
  RunStats stats;
};

absl::Status SchemeGenerator::Rep::RunLane(const Context& with, const Calibration& calibration,
                                           const ExecutionPlan& plan, Lanes* lanes, int index, Lane& lane) const {
  const std::optional<Imatrix> on_device = ImatrixOn(lane.device);
  AUTOSCHEME_ASSIGN_OR_RETURN(RunScorers scorers,
                              MakeScorers(lane.schemes, on_device.has_value() ? &*on_device : nullptr));
  lane.terms = scorers.terms(), lane.first_variant = scorers.first_variant();
  if (lane.terms.schemes.empty()) return absl::OkStatus();
  AUTOSCHEME_RETURN_IF_ERROR(WithResources(with, lane.device, plan, [&](RunResources& run) -> absl::Status {
    run.stats = lane.stats;
    run.lanes = lanes, run.lane = index;
    if (plan.lanes > 1) run.bytes_before = bytes_before;
    AUTOSCHEME_ASSIGN_OR_RETURN(lane.losses, RunSweeps(run, *skeleton, calibration, plan, scorers.all()));
    lane.stats = run.stats;
    return absl::OkStatus();
  }));
  lane.terms = scorers.terms();
  for (const auto& [name, row] : scorers.collected()) lane.collected[name] = row.cpu();
  return absl::OkStatus();
}

// All lanes: the first in this thread, each other in one of its own.
absl::Status SchemeGenerator::Rep::RunLanes(const Calibration& calibration, const ExecutionPlan& plan,
                                            std::vector<Lane>& lanes) {
  std::vector<const Device*> used;
  for (const Lane& lane : lanes) used.push_back(lane.device.device.get());
  Lanes together(used);
  bytes_before = skeleton->checkpoint().bytes_read();
  const auto run = [&](int index, const Context& with) {
    Lane& lane = lanes[index];
    Lanes* const shared = lane.device.device != nullptr ? &together : nullptr;
    lane.status = Guarded([&] { return RunLane(with, calibration, plan, shared, index, lane); });
    if (!lane.status.ok()) together.Fail(lane.status);
  };
  Context silent = context;
  silent.progress = nullptr;  // is called in the caller's thread
  std::vector<std::thread> threads;
  absl::Status begun;
  for (int index = 1; index < static_cast<int>(lanes.size()) && begun.ok(); ++index) {
    try {
      threads.emplace_back([&run, &silent, index] { run(index, silent); });
    } catch (const std::system_error& e) {
      begun =
          absl::ResourceExhaustedError(absl::StrCat("no thread for device ", lanes[index].device.name, ": ", e.what()));
      together.Fail(begun);
    }
  }
  run(0, context);
  for (std::thread& thread : threads) thread.join();
  AUTOSCHEME_RETURN_IF_ERROR(begun);
  for (const Lane& lane : lanes) AUTOSCHEME_RETURN_IF_ERROR(lane.status);
  return absl::OkStatus();
}

absl::Status SchemeGenerator::Rep::Sweep(const Calibration& calibration, const PlannedRun& planned, ScoreTable& table) {
  table.scores.assign(table.schemes.size(), std::vector<LayerScore>(table.layers.size()));
  for (size_t s = 0; s < table.schemes.size() && !options.reference_rules; ++s) {
    for (size_t l = 0; l < table.layers.size(); ++l) {
      const LayerInfo& layer = table.layers[l];
      table.scores[s][l].stand_in = !layer.fixed.has_value() && StandIn(table.schemes[s], layer).has_value();
    }
  }
  table.ce_loss.assign(table.schemes.size(), {});

  std::vector<Lane> lanes;
  for (std::vector<int>& schemes : SchemesOfLanes()) {
    Lane lane;
    if (!devices.empty()) lane.device = devices[lanes.size()];
    lane.schemes = std::move(schemes);
    lane.stats = stats;
    lanes.push_back(std::move(lane));
  }
  AUTOSCHEME_RETURN_IF_ERROR(RunLanes(calibration, planned.choice, lanes));
  for (const Lane& lane : lanes) {
    for (size_t k = 0; k < lane.terms.schemes.size(); ++k) {
      const int s = lane.schemes[lane.terms.schemes[k]], variant = lane.terms.variants[k];
      const std::vector<std::vector<double>>& terms = lane.terms.terms[k];
      for (size_t l = 0; l < table.layers.size(); ++l) {
        table.scores[s][l].weight = terms[0][l], table.scores[s][l].activation = terms[1][l];
        if (terms.size() > 2) table.scores[s][l].standard_error = terms[2][l];
      }
      if (variant >= 0) table.ce_loss[s] = lane.losses[lane.first_variant + variant];
    }
    if (!lane.collected.empty()) collected = lane.collected;
    if (&lane == &lanes[0]) {
      stats = lane.stats;
      continue;
    }
    stats.spill_bytes += lane.stats.spill_bytes, stats.product_flops += lane.stats.product_flops;
    stats.product_s = std::max(stats.product_s, lane.stats.product_s);
    stats.peak_vram_bytes = std::max(stats.peak_vram_bytes, lane.stats.peak_vram_bytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<ScoreTable> SchemeGenerator::Score(const Calibration& calibration) {
  const auto start = std::chrono::steady_clock::now();
  Rep& rep = *rep_;
  rep.stats = {}, rep.collected.clear();
  if (rep.options.plan_only) {
    return absl::FailedPreconditionError(
        "this generator is for plans alone: make one without option plan_only to score");
  }
  AUTOSCHEME_RETURN_IF_ERROR(rep.skeleton->checkpoint().CheckHasWeights());
  const ProcessReads reads_before = ReadProcessReads();
  AUTOSCHEME_ASSIGN_OR_RETURN(PlannedRun run, rep.Plan(calibration));
  if (!run.warning.empty()) rep.context.Warn(run.warning);
  rep.stats.planned_peak_bytes = run.plan.peak_bytes, rep.stats.planned_vram_bytes = run.plan.vram_peak_bytes;

  ScoreTable table = rep.EmptyTable();
  table.nsamples = calibration.nsamples, table.seqlen = calibration.seqlen;
  table.calibration_sha256 = Sha256(calibration);

  ThreadCount threads(rep.threads);
  AUTOSCHEME_RETURN_IF_ERROR(threads.status());
  AUTOSCHEME_RETURN_IF_ERROR(Guarded([&] { return rep.Sweep(calibration, run, table); }));
  AddProcessFigures(reads_before, rep.stats);
  rep.stats.total_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  table.run = rep.stats;
  return table;
}

absl::StatusOr<ScoreTable> SchemeGenerator::ScoreUntilStable(const Calibration& calibration,
                                                             const std::vector<double>& avg_bits,
                                                             const std::vector<int64_t>& target_bytes) {
  if (avg_bits.empty() && target_bytes.empty()) {
    return absl::InvalidArgumentError("there is no target, and so nothing whose choice could become stable");
  }
  AUTOSCHEME_RETURN_IF_ERROR(CheckTargets(avg_bits, target_bytes));
  AUTOSCHEME_RETURN_IF_ERROR(rep_->Plan(calibration).status());
  Context quiet = rep_->context;  // what selection warns of is said when the last choice is made
  quiet.log = nullptr;
  UntilStable by;
  by.score = [&](const Calibration& part) { return Score(part); };
  by.select = [&](const ScoreTable& table) {
    return SelectRecipes(table, rep_->ForTargets(avg_bits, target_bytes), quiet);
  };
  by.say = [&](const std::string& text) {
    if (rep_->context.log) rep_->context.log(LogLevel::kInfo, text);
  };
  by.batch_size = rep_->options.batch_size;
  AUTOSCHEME_ASSIGN_OR_RETURN(ScoreTable table, ScoreByParts(calibration, by));
  if (table.run.has_value()) rep_->stats = *table.run;
  return table;
}

absl::Status SchemeGenerator::CheckTargets(const std::vector<double>& avg_bits,
                                           const std::vector<int64_t>& target_bytes) const {
  ScoreTable table = rep_->EmptyTable();
  table.scores.assign(table.schemes.size(), std::vector<LayerScore>(table.layers.size()));
  return SelectRecipes(table, rep_->ForTargets(avg_bits, target_bytes), {})
      .status();  // what it warns of will be said once, by Select
}

absl::StatusOr<std::vector<Recipe>> SchemeGenerator::Select(const ScoreTable& table,
                                                            const std::vector<double>& avg_bits,
                                                            const std::vector<int64_t>& target_bytes) const {
  return SelectRecipes(table, rep_->ForTargets(avg_bits, target_bytes), rep_->context);
}

absl::StatusOr<Plan> SchemeGenerator::PlanRefine(const Calibration& held_back, int64_t recipes,
                                                 int64_t evaluations) const {
  return PlanRefinement(rep_->context, *rep_->skeleton, rep_->options, held_back, recipes, evaluations,
                        rep_->ForEvaluation());
}

absl::Status SchemeGenerator::Refine(const ScoreTable& table, const Calibration& held_back, int64_t evaluations,
                                     std::vector<Recipe>& recipes) {
  return RefineRecipes(rep_->context, *rep_->skeleton, rep_->options, rep_->ForTargets({}, {}), table, held_back,
                       evaluations, rep_->ForEvaluation(), recipes, rep_->refine_stats);
}

absl::StatusOr<Plan> SchemeGenerator::PlanVerify(const Calibration& held_back, int64_t recipes) const {
  return PlanVerification(rep_->context, *rep_->skeleton, rep_->options, held_back, recipes, rep_->ForEvaluation());
}

absl::Status SchemeGenerator::Verify(const ScoreTable& table, const Calibration& held_back,
                                     std::vector<Recipe>& recipes) {
  return VerifyRecipes(rep_->context, *rep_->skeleton, rep_->options, rep_->ForTargets({}, {}), table, held_back,
                       rep_->ForEvaluation(), recipes, rep_->verify_stats);
}

}  // namespace autoscheme
