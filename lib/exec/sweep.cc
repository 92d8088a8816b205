#include "exec/sweep.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "exec/boundaries.h"
#include "exec/embedding.h"
#include "exec/head.h"
#include "exec/unit_runner.h"
#include "exec/unit_source.h"
#include "exec/weights.h"
#include "model/architecture.h"

namespace autoscheme {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The tensors outside blocks, embedding and head, for Embed and FinalNorm.
class OuterOps : public BlockOps {
 public:
  absl::Status Load(const MetaSkeleton& skeleton, at::ScalarType dtype) {
    for (const TensorInfo* info : skeleton.other_tensors()) {
      std::vector<std::byte> bytes(info->bytes);
      AUTOSCHEME_RETURN_IF_ERROR(skeleton.checkpoint().Read(*info, 0, absl::MakeSpan(bytes)));
      const TensorView view{info, bytes.data()};
      AUTOSCHEME_RETURN_IF_ERROR(CheckFinite(view));
      params_.emplace(info->name, LoadTensor(view, dtype));
    }
    return absl::OkStatus();
  }
  at::Tensor Linear(int, const at::Tensor&) override {
    TORCH_CHECK(false, "no linear layer outside the blocks");
  }
  const at::Tensor& Param(absl::string_view name) override { return params_.at(name); }
  const at::Tensor& position_tables() const override { return none_; }

 private:
  absl::flat_hash_map<std::string, at::Tensor> params_;
  at::Tensor none_;
};

// Where nothing is differentiated there are no graphs to keep.
Schedule ScheduleOf(const SweepOptions& options, int units, bool gradients) {
  return Schedule(units, gradients ? options.kept_units : 0, options.boundary_interval);
}

// The autograd graph of y = f(x), ready for dL/dx. Of y it keeps the place in the graph, not the values.
class Graph {
 public:
  template <typename Function>
  Graph(const at::Tensor& input, const Function& f, at::Tensor* values = nullptr) {
    at::AutoGradMode with_grad(true);
    x_ = input.detach().requires_grad_(true);
    const at::Tensor y = f(x_);
    root_ = torch::autograd::impl::gradient_edge(y);
    if (values != nullptr) *values = y.detach();
  }
  at::Tensor Pullback(const at::Tensor& grad) const {
    torch::autograd::Engine::get_default_engine().execute({root_}, {grad}, /*keep_graph=*/false, /*create_graph=*/false,
                                                          /*accumulate_grad=*/true);
    return x_.grad();
  }

 private:
  at::Tensor x_;
  torch::autograd::Edge root_;
};

class Sweeps {
 public:
  Sweeps(const Context& context, const MetaSkeleton& skeleton, const Calibration& calibration, const SweepOptions& options,
         Measurement& measurement, SweepStats& stats)
      : context_(context), skeleton_(skeleton), architecture_(skeleton.architecture()), calibration_(calibration),
        options_(options), measurement_(measurement), stats_(stats),
        units_(MakeUnits(skeleton, options.segments_per_unit)), unit_count_(static_cast<int>(units_.size())),
        source_(context, skeleton.checkpoint(), units_,
                {options.unit_slots, options.cached_units, options.tiled, options.drop_page_cache, options.budget, options.io_engine}),
        tiles_(context, skeleton.checkpoint(), options.unit_slots, options.budget, options.io_engine) {
    shape_ = {calibration.nsamples, calibration.seqlen, options.batch_size, options.slice_rows};
    slices_ = shape_.slices();
    trajectories_ = measurement.trajectories();
    forward_only_ = measurement.forward_only_trajectories();
    gradients_ = forward_only_ < trajectories_;
    schedule_ = ScheduleOf(options, unit_count_, gradients_);
  }

  absl::Status Run() {
    started_ = Clock::now();
    bytes_before_ = skeleton_.checkpoint().bytes_read();
    AUTOSCHEME_RETURN_IF_ERROR(context_.CheckCancelled());
    AUTOSCHEME_RETURN_IF_ERROR(outer_.Load(skeleton_, options_.precision.dtype));
    tables_ = architecture_.PositionTables(calibration_.seqlen);
    const int gradients = trajectories_ - forward_only_;
    const at::ScalarType dtype = options_.precision.dtype;
    const BatchShape head_shape = HeadStoreShape(shape_);
    const bool boundaries = options_.boundaries_in_ram(), passing = options_.passing_in_ram();
    // All of them now, though some are used late: a disk without room shows before any work, and memory is not touched yet.
    AUTOSCHEME_RETURN_IF_ERROR(Open(embedded_, 1, 1, boundaries, shape_, dtype));
    AUTOSCHEME_RETURN_IF_ERROR(Open(stored_, schedule_.stored_count(), gradients, boundaries, shape_, dtype));
    AUTOSCHEME_RETURN_IF_ERROR(Open(places_, schedule_.place_count(), gradients, boundaries, shape_, dtype));
    AUTOSCHEME_RETURN_IF_ERROR(Open(up_, 1, trajectories_, passing, shape_, dtype));
    AUTOSCHEME_RETURN_IF_ERROR(Open(down_, 1, gradients, passing, shape_, dtype));
    AUTOSCHEME_RETURN_IF_ERROR(Open(sums_, 1, gradients, passing, head_shape, at::kFloat));
    AUTOSCHEME_RETURN_IF_ERROR(Open(picked_, 1, gradients, passing, head_shape, dtype));
    AUTOSCHEME_RETURN_IF_ERROR(Embed());
    AUTOSCHEME_RETURN_IF_ERROR(Stage(stats_.forward_s, [&] { return SweepUnits("forward", schedule_.Forward()); }));
    AUTOSCHEME_RETURN_IF_ERROR(Stage(stats_.head_s, [&] { return Head(); }));
    for (auto* store : {&up_, &sums_, &picked_}) Close(*store);
    if (gradients_) {
      AUTOSCHEME_RETURN_IF_ERROR(Stage(stats_.backward_s, [&] { return SweepUnits("backward", schedule_.Backward()); }));
    }
    stats_.read_bytes = BytesRead();
    stats_.io_engine = options_.tiled ? tiles_.engine() : source_.engine();
    stats_.stall_s += source_.stall_s() + tiles_.stall_s();
    for (auto* store : {&embedded_, &stored_, &places_, &down_}) Close(*store);
    return absl::OkStatus();
  }

 private:
  absl::Status Open(std::unique_ptr<TensorStore>& store, int64_t slots, int64_t trajectories, bool in_ram,
                    const BatchShape& shape, at::ScalarType dtype) {
    if (slots == 0 || trajectories == 0) return absl::OkStatus();
    auto opened = TensorStore::Create(context_, shape, skeleton_.hidden_size(), slots, trajectories, dtype, in_ram,
                                      options_.work_dir, options_.budget, options_.pool);
    if (!opened.ok()) return opened.status();
    store = std::make_unique<TensorStore>(*std::move(opened));
    return absl::OkStatus();
  }

  void Close(std::unique_ptr<TensorStore>& store) {
    if (store != nullptr) stats_.spill_bytes += store->spilled_bytes();
    store.reset();
  }

  // One stage of the run, timed. What the one before left of the pools' pages goes back first: each has a peak of its own.
  template <typename Body>
  absl::Status Stage(double& seconds, const Body& body) {
    const Clock::time_point start = Clock::now();
    for (TensorPool* pool : {options_.pool, options_.weight_pool}) {
      if (pool != nullptr) pool->Trim();
    }
    absl::Status status = body();
    seconds += SecondsSince(start);
    return status;
  }

  absl::Status Embed() {
    AUTOSCHEME_ASSIGN_OR_RETURN(EmbeddingRows rows, EmbeddingRows::Read(skeleton_, calibration_));
    at::NoGradGuard no_grad;
    for (size_t s = 0; s < slices_.size(); ++s) {
      at::Tensor place = NewTensor(options_.pool, {slices_[s].rows, calibration_.seqlen, skeleton_.hidden_size()}, options_.precision.dtype);
      const at::Tensor x = architecture_.Embed(rows.Of(calibration_, slices_[s], std::move(place)), outer_);
      for (int t = 0; t < trajectories_; ++t) measurement_.OnBoundary(0, t, static_cast<int>(s), x);
      AUTOSCHEME_RETURN_IF_ERROR(embedded_->Put(0, 0, s, x));
    }
    return absl::OkStatus();
  }

  absl::Status SweepUnits(absl::string_view stage, const std::vector<UnitStep>& steps) {
    at::NoGradGuard no_grad;
    AUTOSCHEME_RETURN_IF_ERROR(source_.Begin(steps));
    for (size_t i = 0; i < steps.size(); ++i) {
      AUTOSCHEME_RETURN_IF_ERROR(context_.CheckCancelled());
      AUTOSCHEME_ASSIGN_OR_RETURN(absl::Span<const TensorView> views, source_.Next());
      const UnitStep& step = steps[i];
      const int u = step.unit;
      tiles_.set_check_finite(IsFirst(step));
      UnitRunner runner(skeleton_, units_[u], views, options_.precision.dtype, tables_, measurement_);
      ResidentUnit resident;
      resident.index = u;
      resident.unit = &units_[u];
      resident.find = [&runner](absl::string_view name) { return runner.Find(name); };
      resident.tiles = options_.tiled ? &tiles_ : nullptr;
      for (int t = FirstTrajectory(step); t < trajectories_; ++t) {
        resident.keep = KeepsGraph(u, t);
        AUTOSCHEME_RETURN_IF_ERROR(measurement_.BeginUnit(step.pass, t, resident));
        for (int s = 0; s < static_cast<int>(slices_.size()); ++s) {
          AUTOSCHEME_RETURN_IF_ERROR(context_.CheckCancelled());
          AUTOSCHEME_ASSIGN_OR_RETURN(const Inputs inputs, TakeInputs(step, t, s));
          AnnounceNext(steps, i, t, s);
          const absl::Status done = step.pass == Pass::kBackward ? Backward(runner, u, t, s, inputs)
                                    : step.again                 ? ForwardAgain(runner, u, t, s, inputs)
                                                                 : Forward(runner, u, t, s, inputs);
          AUTOSCHEME_RETURN_IF_ERROR(tiles_.status());  // first: what was computed of tiles that did not come is anything
          AUTOSCHEME_RETURN_IF_ERROR(done);
        }
        AUTOSCHEME_RETURN_IF_ERROR(measurement_.EndUnit());
        AUTOSCHEME_RETURN_IF_ERROR(tiles_.status());
      }
      AUTOSCHEME_RETURN_IF_ERROR(Report(stage, static_cast<int64_t>(i) + 1, static_cast<int64_t>(steps.size())));
    }
    source_.End();
    return absl::OkStatus();
  }

  // Trajectories without gradients run forward once.
  int FirstTrajectory(const UnitStep& step) const { return IsFirst(step) ? 0 : forward_only_; }

  struct Inputs {
    at::Tensor x;     // undefined where a kept graph holds it
    at::Tensor grad;  // backward
  };
  absl::StatusOr<Inputs> TakeInputs(const UnitStep& step, int t, int s) {
    Inputs in;
    if (step.pass == Pass::kBackward) {
      AUTOSCHEME_ASSIGN_OR_RETURN(in.grad, down_->Get(0, t - forward_only_, s));
      if (KeepsGraph(step.unit, t)) return in;
    }
    AUTOSCHEME_ASSIGN_OR_RETURN(in.x, GetBoundary(step, t, s));
    return in;
  }

  // What will be taken after (step i, t, s), so that it is read while this one computes.
  void AnnounceNext(const std::vector<UnitStep>& steps, size_t i, int t, int s) const {
    if (++s == static_cast<int>(slices_.size())) {
      s = 0;
      if (++t == trajectories_) {
        if (++i == steps.size()) return;
        t = FirstTrajectory(steps[i]);
      }
    }
    const UnitStep& next = steps[i];
    if (next.pass == Pass::kBackward) down_->WillGet(0, t - forward_only_, s);
    if (next.unit == 0 || KeepsGraph(next.unit, t)) return;
    if (IsFirst(next) && !ReadFromStore(next.unit, t)) {
      up_->WillGet(0, t, s);
    } else {
      StoreOf(next.unit).WillGet(schedule_.Place(next.unit), t - forward_only_, s);
    }
  }

  absl::Status Forward(UnitRunner& runner, int u, int t, int s, const Inputs& in) {
    if (!KeepsGraph(u, t)) return PutBoundary(u + 1, t, s, runner.Run(in.x, /*values=*/true));
    at::Tensor y;
    Graph graph(in.x, [&](const at::Tensor& x) { return runner.Run(x, /*values=*/true); }, &y);
    kept_.insert_or_assign({u, t, s}, std::move(graph));
    return PutBoundary(u + 1, t, s, y);
  }

  absl::Status ForwardAgain(UnitRunner& runner, int u, int t, int s, const Inputs& in) {
    return StoreOf(u + 1).Put(schedule_.Place(u + 1), t - forward_only_, s, runner.Run(in.x, /*values=*/true));
  }

  absl::Status Backward(UnitRunner& runner, int u, int t, int s, const Inputs& in) {
    at::Tensor dx;
    if (auto kept = kept_.find({u, t, s}); kept != kept_.end()) {
      dx = kept->second.Pullback(in.grad);
      kept_.erase(kept);
    } else {
      dx = Graph(in.x, [&](const at::Tensor& x) { return runner.Run(x, /*values=*/false); }).Pullback(in.grad);
    }
    if (slices_[s].ends_batch) AUTOSCHEME_RETURN_IF_ERROR(measurement_.EndBatch());
    return PutGradient(t, s, dx);
  }

  absl::Status Head() {
    HeadInput input;
    input.skeleton = &skeleton_;
    input.calibration = &calibration_;
    input.shape = shape_;
    input.precision = options_.precision;
    input.tile_rows = options_.head_tile_rows;
    input.slots = options_.unit_slots;
    input.sums = sums_.get();
    input.picked = picked_.get();
    input.budget = options_.budget;
    input.io_engine = options_.io_engine;
    input.meter = options_.meter;
    input.pool = options_.pool;
    input.hidden = [&](int t, int s) -> absl::StatusOr<at::Tensor> {
      AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, up_->Get(0, t, s));
      return architecture_.FinalNorm(x, outer_);
    };
    input.take_gradient = [&](int t, int s, const at::Tensor& grad) -> absl::Status {
      AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, up_->Get(0, t, s));
      return PutGradient(t, s, Graph(x, [&](const at::Tensor& in) { return architecture_.FinalNorm(in, outer_); }).Pullback(grad));
    };
    input.step = [&](int64_t done, int64_t total) { return Report("head", done, total); };
    HeadStats head;
    AUTOSCHEME_RETURN_IF_ERROR(RunHead(context_, input, measurement_, &head));
    head_bytes_ = head.read_bytes;
    stats_.stall_s += head.stall_s;
    return absl::OkStatus();
  }

  // Boundary k = input of unit k, or the last unit's output, which waits in up_ for the head.
  TensorStore& StoreOf(int k) const { return schedule_.Stored(k) ? *stored_ : *places_; }
  // Whether the unit is differentiated from the graph of its forward pass.
  bool KeepsGraph(int unit, int t) const { return t >= forward_only_ && unit >= schedule_.first_kept(); }
  // What the forward pass leaves for the backward pass.
  bool IsLeft(int k, int t) const {
    return t >= forward_only_ && k > 0 && !KeepsGraph(k, t) && (schedule_.Stored(k) || k > schedule_.top());
  }
  // Whether the forward pass itself takes it from there: up_ is for what has no other place, or only one on disk.
  bool ReadFromStore(int k, int t) const {
    return IsLeft(k, t) && options_.spilled != Spilled::kBoundaries;
  }

  absl::StatusOr<at::Tensor> GetBoundary(const UnitStep& step, int t, int s) {
    const int k = step.unit;
    if (k == 0) return embedded_->Get(0, 0, s);
    if (IsFirst(step)) {
      if (KeepsGraph(k, t)) return std::move(handed_[{t, s}]);
      if (!ReadFromStore(k, t)) return up_->Get(0, t, s);
    }
    return StoreOf(k).Get(schedule_.Place(k), t - forward_only_, s);
  }
  absl::Status PutBoundary(int k, int t, int s, const at::Tensor& x) {
    measurement_.OnBoundary(k, t, s, x);
    if (IsLeft(k, t)) AUTOSCHEME_RETURN_IF_ERROR(StoreOf(k).Put(schedule_.Place(k), t - forward_only_, s, x));
    if (ReadFromStore(k, t)) return absl::OkStatus();
    if (KeepsGraph(k, t) && k < unit_count_) {
      handed_[{t, s}] = x;
      return absl::OkStatus();
    }
    return up_->Put(0, t, s, x);
  }
  absl::Status PutGradient(int t, int s, const at::Tensor& grad) {
    // One pass over a small tensor, and a NaN is named where it arises instead of spoiling every score below.
    if (!std::isfinite(grad.sum().item<double>()) && !grad.isfinite().all().item<bool>()) {
      return absl::DataLossError(
          absl::StrCat("the gradient of batch ", slices_[s].batch, " became NaN or infinite under trajectory ", t));
    }
    return down_->Put(0, t - forward_only_, s, grad);
  }

  absl::Status Report(absl::string_view stage, int64_t done, int64_t total) {
    if (!context_.progress) return absl::OkStatus();
    Progress p;
    p.stage = stage, p.done = done, p.total = total;
    p.bytes_read = static_cast<int64_t>(BytesRead());
    p.elapsed_s = SecondsSince(started_);
    return context_.progress(p);
  }

  uint64_t BytesRead() const {
    return source_.read_bytes() + tiles_.bytes_read() + head_bytes_ + skeleton_.checkpoint().bytes_read() - bytes_before_;
  }

  const Context& context_;
  const MetaSkeleton& skeleton_;
  const Architecture& architecture_;
  const Calibration& calibration_;
  const SweepOptions& options_;
  Measurement& measurement_;
  SweepStats& stats_;
  const std::vector<Unit> units_;
  const int unit_count_;
  UnitSource source_;
  WeightTiles tiles_;
  BatchShape shape_;
  std::vector<Slice> slices_;
  int trajectories_ = 0, forward_only_ = 0;
  Schedule schedule_{0, 0, 1};
  bool gradients_ = false;
  Clock::time_point started_;
  uint64_t bytes_before_ = 0;  // of the checkpoint's own counter
  uint64_t head_bytes_ = 0;
  OuterOps outer_;
  at::Tensor tables_;
  // Input of unit 0, which all trajectories share; the other stored inputs; places for those that are not stored; what
  // goes from unit to unit, forward and backward; what goes from tile to tile of the head.
  std::unique_ptr<TensorStore> embedded_, stored_, places_, up_, down_, sums_, picked_;
  absl::flat_hash_map<std::pair<int, int>, at::Tensor> handed_;          // (trajectory, slice) -> next unit's input
  absl::flat_hash_map<std::tuple<int, int, int>, Graph> kept_;  // (unit, trajectory, slice)
};

// Times that the weight of one linear is read in all passes when it comes by tiles (ScoredLinear); `again`: how often its
// unit runs forward again.
int64_t TiledUses(const LinearLayer& layer, bool in_last_segment, int again, const BatchShape& shape, Measurement& measurement) {
  const int64_t slices = static_cast<int64_t>(shape.slices().size());
  int64_t uses = 0;
  for (int t = 0; t < measurement.trajectories(); ++t) {
    const WeightUse use = measurement.weight_use(t, layer);
    uses += slices + use.prepared;
    if (t < measurement.forward_only_trajectories()) continue;
    const bool recomputed = !(layer.ends_segment && in_last_segment);
    uses += slices * (recomputed ? 2 : 1) + use.prepared + (use.folded ? shape.batches() : 0);
    uses += again * (slices + use.prepared);
  }
  return uses;
}

}  // namespace

uint64_t PlannedReadBytes(const MetaSkeleton& skeleton, const Calibration& calibration, const SweepOptions& options,
                          Measurement& measurement) {
  const bool gradients = measurement.forward_only_trajectories() < measurement.trajectories();
  const BatchShape shape{calibration.nsamples, calibration.seqlen, options.batch_size, options.slice_rows};
  const std::vector<Unit> units = MakeUnits(skeleton, options.segments_per_unit);
  const int count = static_cast<int>(units.size());
  const std::vector<int> again = ScheduleOf(options, count, gradients).Again();
  uint64_t bytes = 0;
  for (size_t u = 0; u < units.size(); ++u) {
    const bool cached = u + options.cached_units >= units.size();
    const uint64_t passes = gradients && !cached ? 2 + again[u] : 1;
    bytes += units[u].bytes * passes;
    if (!options.tiled) continue;
    const Unit::Part& last = units[u].parts.back();
    for (const LinearLayer* layer : units[u].linears) {
      const absl::string_view block = skeleton.blocks()[last.block].name;
      const bool in_last_segment = layer->segment == last.segment && absl::StartsWith(layer->name, absl::StrCat(block, "."));
      bytes += layer->weight->bytes * (TiledUses(*layer, in_last_segment, again[u], shape, measurement) - passes);
    }
  }
  const LinearLayer& head = skeleton.head();
  bytes += head.weight->bytes * HeadPasses(measurement) + (head.bias != nullptr ? head.bias->bytes : 0);
  bytes += EmbeddingReadBytes(skeleton, calibration);
  for (const TensorInfo* info : skeleton.other_tensors()) bytes += info->bytes;
  return bytes;
}

absl::Status RunSweeps(const Context& context, const MetaSkeleton& skeleton, const Calibration& calibration,
                       const SweepOptions& options, Measurement& measurement, SweepStats* stats) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckCalibration(calibration, skeleton));
  SweepStats local;
  SweepStats& out = stats != nullptr ? *stats : local;
  out.planned_read_bytes = PlannedReadBytes(skeleton, calibration, options, measurement);
  return Sweeps(context, skeleton, calibration, options, measurement, out).Run();
}

}  // namespace autoscheme
