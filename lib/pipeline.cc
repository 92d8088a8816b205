// The whole, stage by stage: skeleton -> layers -> plan -> sweeps -> score table -> selection. The only file that knows
// all rooms.
#include <ATen/ATen.h>
#include <ATen/Config.h>
#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <new>
#include <numeric>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#if defined(_OPENMP) && AT_PARALLEL_OPENMP
#include <omp.h>
#endif

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "autoscheme/scheme_generator.h"
#include "base/count.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "base/system_limits.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/imatrix_file.h"
#include "exec/lanes.h"
#include "exec/probe.h"
#include "exec/run_resources.h"
#include "exec/sweep.h"
#include "formats/data_types.h"
#include "formats/rules.h"
#include "formats/stand_in.h"
#include "model/decoder_spec.h"
#include "plan/calibration_ids.h"
#include "planner/planner.h"
#include "scorers/run_scorers.h"
#include "select/groups.h"
#include "stream/spill_file.h"

// MKL, which LibTorch brings or does not, has a number of its own for each thread, 0 for the process's. Returns the one
// before.
extern "C" __attribute__((weak)) int MKL_Set_Num_Threads_Local(int threads);

namespace autoscheme {

struct SchemeGenerator::Rep {
  Context context;
  const MetaSkeleton* skeleton = nullptr;
  Options options;
  Precision precision;
  std::vector<LayerInfo> layers;
  std::optional<Imatrix> imatrix;  // as given by file
  RunStats stats;
  int threads = 0;                          // 0 = as the process has it
  std::vector<RunDevice> devices;           // none: the processor
  std::optional<DeviceInput> device_input;  // for plans; none on the processor
  uint64_t bytes_before = 0;                // by the checkpoint itself, when a run of several lanes began
  uint64_t floor_bytes =
      0;  // what the process held when this was made: plans do not depend on what was done before them

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
  absl::StatusOr<PlannedRun> Plan(const Calibration& calibration, const MachineRates& rates = {}) const;
  absl::Status FindDevice(const Options& from);
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

// Sets how many threads of LibTorch work for the calling thread during one call, and puts the host's number back. Other
// threads of the host are not touched: at::set_num_threads would also set what threads take over that are born
// meanwhile.
class ThreadCount {
 public:
  explicit ThreadCount(int threads) : before_(at::get_num_threads()) {
    if (threads > 0 && threads != before_) Set(threads), changed_ = true;
    if (at::get_num_threads() == 1) return;  // alone
    // OpenMP keeps a thread's helpers for its later calls, and a fork leaves them behind: the child would wait for them
    // for ever.
    thread_local const pid_t helpers_process = getpid();
    survived_ = helpers_process == getpid();
  }
  ~ThreadCount() {
    if (changed_) Set(before_);
  }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

  // FAILED_PRECONDITION if nothing may be computed in this thread.
  absl::Status status() const {
    if (survived_) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "this thread computed before its process was forked off, and the threads that helped it are not here: call "
        "from a new "
        "thread, with option threads = 1, or from a process that is forked off before anything is computed");
  }

 private:
  void Set(int threads) {
#if defined(_OPENMP) && AT_PARALLEL_OPENMP
    omp_set_num_threads(threads);
    if (MKL_Set_Num_Threads_Local == nullptr) return;
    const int mkl = MKL_Set_Num_Threads_Local(changed_ ? mkl_before_ : threads);
    if (!changed_) mkl_before_ = mkl;
#else
    at::set_num_threads(threads);
#endif
  }

  int before_;
  int mkl_before_ = 0;
  bool changed_ = false;
  bool survived_ = true;
};

// LibTorch reports by exceptions; nothing of it may pass.
template <typename Body>
absl::Status Guarded(const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        "out of memory while scoring; give a smaller max_ram_bytes so that the plan keeps less");
  } catch (const c10::Error& e) {
    const std::string text = e.what_without_backtrace();
    if (absl::StrContains(text, "allocate"))
      return absl::ResourceExhaustedError(absl::StrCat("out of memory while scoring: ", text));
    return absl::InternalError(absl::StrCat("LibTorch: ", text));
  } catch (const std::exception& e) {
    return absl::InternalError(e.what());
  }
}

// The height of the head's tiles must do for the quantizers of all lanes.
absl::Status AgreeOnTiles(const Scorers& all, const LinearLayer& head, ExecutionPlan& plan) {
  for (int v = 0; v < all.needs().count(); ++v) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const Treatment treatment, all.Treat(v, head));
    AUTOSCHEME_ASSIGN_OR_RETURN(std::vector<Treatment> treatments, all.Candidates(v, head));
    treatments.push_back(treatment);
    for (const Treatment& one : treatments) {
      if (one.weight == nullptr) continue;
      const int64_t multiple = one.weight->row_multiple();
      plan.head_row_multiple = std::lcm(plan.head_row_multiple, multiple == 0 ? head.out_features : multiple);
    }
  }
  return absl::OkStatus();
}

// For what takes no time: a request to stop that was meant for an earlier call has no effect on it.
Context NotCancellable(Context context) {
  context.cancel = nullptr;
  return context;
}

// The file's rows by our layer names. INVALID_ARGUMENT for a row of another width than the layer's.
absl::StatusOr<Imatrix> ReadImatrix(const Context& context, const MetaSkeleton& skeleton, const std::string& path) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const ImatrixFile file, ReadImatrixFile(context, path));
  Imatrix imatrix;
  std::string missing;
  int missing_count = 0;
  absl::flat_hash_set<std::string> used;
  const auto take = [&](const LinearLayer& layer, const std::string& gguf_name) -> absl::Status {
    const auto found = file.find(absl::StrCat(gguf_name, ".weight"));
    if (found == file.end()) {
      if (missing_count++ == 0) missing = layer.name;
      return absl::OkStatus();
    }
    if (static_cast<int64_t>(found->second.size()) != layer.in_features) {
      return absl::InvalidArgumentError(absl::StrCat("importance matrix ", Quoted(path), ": ", Quoted(found->first),
                                                     " has ", Count(found->second.size(), "channel"), ", layer ",
                                                     Quoted(layer.name), " has ", layer.in_features,
                                                     "; was it made from another model?"));
    }
    imatrix[layer.name] = at::tensor(found->second, at::kFloat);
    used.insert(found->first);
    return absl::OkStatus();
  };
  const ModelSpec& spec = skeleton.spec();
  for (size_t b = 0; b < spec.blocks.size(); ++b) {
    for (size_t i = 0; i < spec.blocks[b].linears.size(); ++i) {
      AUTOSCHEME_RETURN_IF_ERROR(
          take(skeleton.blocks()[b].linears[i], absl::StrCat("blk.", b, ".", spec.blocks[b].linears[i].gguf_name)));
    }
  }
  // llama-imatrix leaves the head out unless it is asked for it.
  if (file.count(absl::StrCat(spec.head.gguf_name, ".weight")) > 0) {
    AUTOSCHEME_RETURN_IF_ERROR(take(skeleton.head(), spec.head.gguf_name));
  }
  if (imatrix.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("importance matrix ", Quoted(path),
                                                   " knows none of the model's layers; it begins with ",
                                                   Quoted(file.begin()->first)));
  }
  if (missing_count > 0) {
    context.Warn(absl::StrCat("importance matrix ", Quoted(path), " lacks ", Count(missing_count, "layer"), ", ",
                              Quoted(missing), missing_count == 1 ? "" : " among them",
                              ": k-quants are quantized without one there"));
  }
  if (used.size() < file.size()) {
    const auto stranger =
        std::find_if(file.begin(), file.end(), [&](const auto& row) { return !used.contains(row.first); });
    const size_t strangers = file.size() - used.size();
    context.Warn(absl::StrCat("importance matrix ", Quoted(path), " names ", strangers,
                              strangers == 1 ? " tensor" : " tensors", " that this model of ", spec.blocks.size(),
                              " blocks lacks, ", Quoted(stranger->first),
                              " among them: was it made from another, larger model?"));
  }
  return imatrix;
}

absl::StatusOr<Precision> PrecisionFor(const Options& o) {
  const bool gpu = o.device != "cpu";
  return ParsePrecision(o.dtype, {gpu, !gpu && MultipliesBfloat16()});
}

absl::Status CheckOptions(const Options& o) {
  if (o.schemes.empty()) return absl::InvalidArgumentError("option schemes is empty: give at least one, e.g. W4A16");
  for (const Scheme& scheme : o.schemes) AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(scheme));
  if (o.batch_size < 1)
    return absl::InvalidArgumentError(absl::StrCat("option batch_size is ", o.batch_size, ", must be at least 1"));
  if (o.threads < -1) {
    return absl::InvalidArgumentError(
        absl::StrCat("option threads is ", o.threads, ", must be -1 (by the CPU quota), 0 (leave) or more"));
  }
  if (o.max_ram_bytes < Options::kAllThatServes) {
    return absl::InvalidArgumentError(absl::StrCat("option max_ram_bytes is ", o.max_ram_bytes,
                                                   ", must be -1 (no limit), 0 (the default budget) or more"));
  }
  if (o.max_vram_bytes < 0) {
    return absl::InvalidArgumentError(absl::StrCat("option max_vram_bytes is ", o.max_vram_bytes,
                                                   ", must be 0 (nine tenths of what is free) or more"));
  }
  AUTOSCHEME_RETURN_IF_ERROR(PrecisionFor(o).status());
  return ScorerNamed(o.scorer, o.reference_rules).status();
}

// Threads beyond the time that a quota pays for would stop together whenever it is spent.
int ThreadsFor(const Options& options, Io& io) {
  if (options.threads != -1) return options.threads;
  const std::optional<double> quota = ReadCpuQuota(io);
  return quota.has_value() ? static_cast<int>(std::clamp(std::ceil(*quota), 1.0, 1.0 * at::get_num_threads())) : 0;
}

std::vector<LayerInfo> CandidateLayers(const MetaSkeleton& skeleton, const std::vector<Scheme>& menu) {
  std::vector<LayerInfo> layers;
  if (std::any_of(menu.begin(), menu.end(), IsKQuant)) {
    LayerInfo embedding;
    embedding.name = std::string(absl::StripSuffix(skeleton.spec().input.embedding, ".weight"));
    embedding.out_features = skeleton.vocab_size(), embedding.in_features = skeleton.hidden_size();
    embedding.is_embedding = true;
    layers.push_back(std::move(embedding));
  }
  for (size_t b = 0; b < skeleton.blocks().size(); ++b) {
    for (const LinearLayer& linear : skeleton.blocks()[b].linears) {
      LayerInfo info;
      info.name = linear.name, info.out_features = linear.out_features, info.in_features = linear.in_features;
      info.block = static_cast<int>(b);
      layers.push_back(std::move(info));
    }
  }
  LayerInfo head;
  head.name = skeleton.head().name, head.out_features = skeleton.head().out_features,
  head.in_features = skeleton.head().in_features;
  head.is_head = true;
  layers.push_back(std::move(head));
  return layers;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SchemeGenerator>> SchemeGenerator::Create(const Context& context,
                                                                         const MetaSkeleton& skeleton,
                                                                         Options options) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckOptions(options));
  auto rep = std::make_unique<Rep>();
  rep->context = context;
  rep->skeleton = &skeleton;
  AUTOSCHEME_RETURN_IF_ERROR(rep->FindDevice(options));
  AUTOSCHEME_ASSIGN_OR_RETURN(rep->precision, PrecisionFor(options));
  RuleOptions rules;
  rules.menu = options.schemes;
  rules.ignore_layers = options.ignore_layers;
  rules.layer_config = options.layer_config;
  rules.quant_lm_head = options.quant_lm_head;
  rules.tied_head = skeleton.tied_head();
  rules.config_text = skeleton.checkpoint().config_text();
  for (const TensorInfo& tensor : skeleton.checkpoint().tensors()) {
    rules.other_names.emplace_back(absl::StripSuffix(tensor.name, ".weight"));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(rep->layers, ResolveLayers(CandidateLayers(skeleton, options.schemes), rules, context));
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
    AUTOSCHEME_RETURN_IF_ERROR(Guarded([&]() -> absl::Status {
      AUTOSCHEME_ASSIGN_OR_RETURN(rep->imatrix, ReadImatrix(NotCancellable(context), skeleton, options.imatrix_file));
      return absl::OkStatus();
    }));
  }
  rep->threads = ThreadsFor(options, IoOf(context));
  AUTOSCHEME_ASSIGN_OR_RETURN(options.scorer, ScorerNamed(options.scorer, options.reference_rules));
  rep->options = std::move(options);
  rep->floor_bytes = ReadProcessMemory().rss;
  return std::unique_ptr<SchemeGenerator>(new SchemeGenerator(std::move(rep)));
}

// Loads what the device needs, before anything else of this process asks LibTorch for it.
absl::Status SchemeGenerator::Rep::FindDevice(const Options& from) {
  if (from.device == "cpu") return absl::OkStatus();
  device_input.emplace();
  device_input->name = from.device, device_input->max_vram_bytes = from.max_vram_bytes;
  absl::StatusOr<std::vector<RunDevice>> found = FindDevices(from.device);
  if (!found.ok()) {
    const bool absent = absl::StartsWith(from.device, "cuda") && !absl::IsInvalidArgument(found.status());
    if (!from.plan_only || !absent) return found.status();
    context.Warn(absl::StrCat("the plan is for a device that is not here: ", found.status().message()));
    return absl::OkStatus();
  }
  devices = *std::move(found);
  device_input->name = absl::StrJoin(devices, ",", [](std::string* out, const RunDevice& d) { out->append(d.name); });
  device_input->free_bytes = ~uint64_t{0};
  for (const RunDevice& device : devices) {
    if (!device.torch.is_cpu()) {
      AUTOSCHEME_RETURN_IF_ERROR(Guarded([&] {
        at::globalContext().lazyInitDevice(device.torch.type());
        return absl::OkStatus();
      }));
    }
    AUTOSCHEME_ASSIGN_OR_RETURN(const uint64_t free, device.device->FreeBytes());
    device_input->free_bytes = std::min(device_input->free_bytes, free);
  }
  return absl::OkStatus();
}

SchemeGenerator::SchemeGenerator(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
SchemeGenerator::~SchemeGenerator() = default;
const RunStats& SchemeGenerator::stats() const { return rep_->stats; }

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
  PlanInput input;
  input.skeleton = skeleton;
  input.calibration = &calibration;
  input.batch_size = options.batch_size;
  input.precision = precision;
  input.max_ram_bytes = options.max_ram_bytes;
  input.floor_bytes = options.process_budget ? (floor_bytes / kFloorStepBytes + 1) * kFloorStepBytes : 0;
  input.may_spill = !options.no_spill;
  input.free = ReadFreeMemory(IoOf(context));
  input.device = device_input;
  input.threads = threads > 0 ? threads : at::get_num_threads();
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
  RunStats stats;
};

absl::Status SchemeGenerator::Rep::RunLane(const Context& with, const Calibration& calibration,
                                           const ExecutionPlan& plan, Lanes* lanes, int index, Lane& lane) const {
  std::optional<Imatrix> on_device;
  if (imatrix.has_value()) {
    on_device.emplace();
    for (const auto& [name, row] : *imatrix) (*on_device)[name] = row.to(lane.device.torch);
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(RunScorers scorers,
                              MakeScorers(lane.schemes, on_device.has_value() ? &*on_device : nullptr));
  lane.terms = scorers.terms(), lane.first_variant = scorers.first_variant();
  if (lane.terms.schemes.empty()) return absl::OkStatus();
  RunResources run(with);  // outlives all that holds tensors
  run.precision = precision;
  run.io_engine = options.io_engine;
  run.work_dir = options.work_dir;
  run.stats = lane.stats;
  run.lanes = lanes, run.lane = index;
  if (plan.lanes > 1) run.bytes_before = bytes_before;
  c10::OptionalDeviceGuard guard;
  std::optional<GradientsOnThisThread> gradients;
  if (lane.device.device != nullptr) {
    gradients.emplace();
    if (!lane.device.torch.is_cpu()) guard.reset_device(lane.device.torch);
    AUTOSCHEME_RETURN_IF_ERROR(run.UseDevice(lane.device, plan));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(lane.losses, RunSweeps(run, *skeleton, calibration, plan, scorers.all()));
  lane.stats = run.stats;
  lane.terms = scorers.terms();
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
  rep.stats = {};
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
  const ProcessMemory memory = ReadProcessMemory();
  rep.stats.peak_rss_bytes = memory.peak_rss, rep.stats.rss_anon_bytes = memory.anon,
  rep.stats.rss_file_bytes = memory.file;
  const ProcessReads reads = ReadProcessReads();
  rep.stats.disk_read_bytes = reads.disk - reads_before.disk,
  rep.stats.read_call_bytes = reads.calls - reads_before.calls;
  rep.stats.total_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  table.run = rep.stats;
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

}  // namespace autoscheme
