#include "run_setup.h"

#include <ATen/ATen.h>
#include <ATen/Config.h>
#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <string>
#include <utility>
#if defined(_OPENMP) && AT_PARALLEL_OPENMP
#include <omp.h>
#endif

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/count.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "base/system_limits.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/imatrix_file.h"
#include "exec/lanes.h"
#include "formats/data_types.h"
#include "formats/rules.h"
#include "model/decoder_spec.h"
#include "scorers/linear_layers.h"

// MKL, which LibTorch brings or does not, has a number of its own for each thread, 0 for the process's. Returns the one
// before.
extern "C" __attribute__((weak)) int MKL_Set_Num_Threads_Local(int threads);

namespace autoscheme {
namespace {

absl::StatusOr<Imatrix> RowsOfFile(const Context& context, const MetaSkeleton& skeleton, const std::string& path) {
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
  for (LayerInfo& linear : LinearLayersOf(skeleton)) layers.push_back(std::move(linear));
  return layers;
}

}  // namespace

ThreadCount::ThreadCount(int threads) : before_(at::get_num_threads()) {
  if (threads > 0 && threads != before_) Set(threads), changed_ = true;
  if (at::get_num_threads() == 1) return;  // alone
  // OpenMP keeps a thread's helpers for its later calls, and a fork leaves them behind: the child would wait for them
  // for ever.
  thread_local const pid_t helpers_process = getpid();
  survived_ = helpers_process == getpid();
}

ThreadCount::~ThreadCount() {
  if (changed_) Set(before_);
}

absl::Status ThreadCount::status() const {
  if (survived_) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "this thread computed before its process was forked off, and the threads that helped it are not here: call "
      "from a new "
      "thread, with option threads = 1, or from a process that is forked off before anything is computed");
}

void ThreadCount::Set(int threads) {
#if defined(_OPENMP) && AT_PARALLEL_OPENMP
  omp_set_num_threads(threads);
  if (MKL_Set_Num_Threads_Local == nullptr) return;
  const int mkl = MKL_Set_Num_Threads_Local(changed_ ? mkl_before_ : threads);
  if (!changed_) mkl_before_ = mkl;
#else
  at::set_num_threads(threads);
#endif
}

absl::Status Guarded(const std::function<absl::Status()>& body) {
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

Context NotCancellable(Context context) {
  context.cancel = nullptr;
  return context;
}

absl::Status CheckMachineOptions(const Options& o) {
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
  return PrecisionFor(o).status();
}

absl::StatusOr<std::vector<LayerInfo>> LayersFor(const Context& context, const MetaSkeleton& skeleton,
                                                 const Options& options) {
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
  return ResolveLayers(CandidateLayers(skeleton, options.schemes), rules, context);
}

void AddProcessFigures(const ProcessReads& before, RunStats& stats) {
  const ProcessMemory memory = ReadProcessMemory();
  stats.peak_rss_bytes = memory.peak_rss, stats.rss_anon_bytes = memory.anon, stats.rss_file_bytes = memory.file;
  const ProcessReads reads = ReadProcessReads();
  stats.disk_read_bytes = reads.disk - before.disk, stats.read_call_bytes = reads.calls - before.calls;
}

void AddCosts(const RunStats& more, RunStats& stats) {
  stats.planned_read_bytes += more.planned_read_bytes, stats.read_bytes += more.read_bytes;
  stats.spill_bytes = std::max(stats.spill_bytes, more.spill_bytes);
  stats.planned_peak_bytes = std::max(stats.planned_peak_bytes, more.planned_peak_bytes);
  stats.peak_rss_bytes = std::max(stats.peak_rss_bytes, more.peak_rss_bytes);
  stats.planned_vram_bytes = std::max(stats.planned_vram_bytes, more.planned_vram_bytes);
  stats.peak_vram_bytes = std::max(stats.peak_vram_bytes, more.peak_vram_bytes);
  stats.forward_s += more.forward_s, stats.head_s += more.head_s, stats.backward_s += more.backward_s;
  stats.stall_s += more.stall_s, stats.total_s += more.total_s;
  stats.product_s += more.product_s, stats.product_flops += more.product_flops;
  stats.rss_anon_bytes = more.rss_anon_bytes, stats.rss_file_bytes = more.rss_file_bytes;
  stats.disk_read_bytes += more.disk_read_bytes, stats.read_call_bytes += more.read_call_bytes;
  stats.io_engine = more.io_engine;
}

absl::Status RunSetup::Begin(const Context& with, const MetaSkeleton& of, const Options& by) {
  context = with, skeleton = &of, options = by;
  AUTOSCHEME_RETURN_IF_ERROR(FindDevice());
  AUTOSCHEME_ASSIGN_OR_RETURN(precision, PrecisionFor(options));
  threads = ThreadsFor(options, IoOf(context));
  return absl::OkStatus();
}

absl::Status RunSetup::ReadImatrix() {
  return Guarded([&]() -> absl::Status {
    AUTOSCHEME_ASSIGN_OR_RETURN(imatrix, RowsOfFile(NotCancellable(context), *skeleton, options.imatrix_file));
    return absl::OkStatus();
  });
}

PlanInput RunSetup::PlanInputOf(const Calibration& calibration) const {
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
  return input;
}

std::optional<Imatrix> RunSetup::ImatrixOn(const RunDevice& device) const {
  if (!imatrix.has_value()) return std::nullopt;
  std::optional<Imatrix> there(std::in_place);
  for (const auto& [name, row] : *imatrix) (*there)[name] = row.to(device.torch);
  return there;
}

absl::Status RunSetup::WithResources(const Context& with, const RunDevice& device, const ExecutionPlan& plan,
                                     const std::function<absl::Status(RunResources& run)>& body) const {
  RunResources run(with);  // outlives all that holds tensors
  run.precision = precision;
  run.io_engine = options.io_engine;
  run.work_dir = options.work_dir;
  c10::OptionalDeviceGuard guard;
  std::optional<GradientsOnThisThread> gradients;
  if (device.device != nullptr) {
    gradients.emplace();
    if (!device.torch.is_cpu()) guard.reset_device(device.torch);
    AUTOSCHEME_RETURN_IF_ERROR(run.UseDevice(device, plan));
  }
  return body(run);
}

absl::Status RunSetup::FindDevice() {
  if (options.device == "cpu") return absl::OkStatus();
  device_input.emplace();
  device_input->name = options.device, device_input->max_vram_bytes = options.max_vram_bytes;
  absl::StatusOr<std::vector<RunDevice>> found = FindDevices(options.device);
  if (!found.ok()) {
    const bool absent = absl::StartsWith(options.device, "cuda") && !absl::IsInvalidArgument(found.status());
    if (!options.plan_only || !absent) return found.status();
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

}  // namespace autoscheme
