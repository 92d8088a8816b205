// Both sweeps go through the same steps (SweepUnits): bring a unit, and for every variant and micro-batch take its
// input, compute, and hand the result on.
// - In what order units come, and which inputs are saved, is the Schedule's business; where inputs and gradients lie is
//   SavedActivations'; where weights come from, UnitSource's and WeightTiles'.
// - Compute runs a unit in one of three ways. Forward: the result goes on, and where the unit's graph is saved the
// graph
//   stays. Recompute: forward once more, for an input that was not saved. Backward: the saved graph, or one made anew
//   from the saved input, is pulled back by the gradient from above; the linears show the scorers their gradients on
//   the way.
// - Between the sweeps the head (head.cc) turns last outputs into losses and first gradients; or, where logits are
//   compared, into what each variant says of the tokens (eval_head.cc).
#include "exec/sweep.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "exec/embedding.h"
#include "exec/eval_head.h"
#include "exec/graph.h"
#include "exec/head.h"
#include "exec/saved_activations.h"
#include "exec/unit_linears.h"
#include "exec/unit_runner.h"
#include "exec/unit_source.h"
#include "exec/weight_tiles.h"
#include "nn/decoder.h"
#include "plan/calibration_ids.h"
#include "plan/reads.h"

namespace autoscheme {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The tensors outside blocks, embedding and head, for EmbeddedRows and HeadInputs.
class OuterOps : public BlockOps {
 public:
  absl::Status Load(const MetaSkeleton& skeleton, const RunResources& run) {
    for (const TensorInfo* info : skeleton.other_tensors()) {
      std::vector<std::byte> bytes(info->bytes);
      AUTOSCHEME_RETURN_IF_ERROR(skeleton.checkpoint().Read(*info, 0, absl::MakeSpan(bytes)));
      const TensorView view{info, bytes.data()};
      AUTOSCHEME_RETURN_IF_ERROR(CheckFinite(view));
      params_.push_back(LoadTensor(view, run.dtype()).to(run.device.torch));
    }
    return absl::OkStatus();
  }
  at::Tensor Linear(int, const at::Tensor&) override { TORCH_CHECK(false, "no linear layer outside the blocks"); }
  const at::Tensor& Param(int index) override { return params_.at(index); }
  const at::Tensor& position_tables(int) const override { TORCH_CHECK(false, "no attention outside the blocks"); }

 private:
  std::vector<at::Tensor> params_;  // by ModelSpec::others
};

class Sweeps {
 public:
  Sweeps(RunResources& run, const MetaSkeleton& skeleton, const Calibration& calibration, const ExecutionPlan& plan,
         const Scorers& scorers)
      : run_(run),
        skeleton_(skeleton),
        spec_(skeleton.spec()),
        calibration_(calibration),
        plan_(plan),
        scorers_(scorers),
        variants_(scorers.needs().count()),
        forward_only_(scorers.needs().forward_only()),
        units_(MakeUnits(skeleton, plan.sublayers_per_unit)),
        unit_count_(static_cast<int>(units_.size())),
        shape_{calibration.nsamples, calibration.seqlen, plan.batch_size, plan.micro_batch_rows},
        micro_batches_(shape_.micro_batches()),
        source_(run, plan, skeleton.checkpoint(), units_),
        tiles_(run, skeleton.checkpoint(), plan.unit_slots),
        activations_(run, plan, shape_, skeleton.hidden_size(), skeleton.head().in_features, unit_count_,
                     scorers.needs()) {}

  absl::StatusOr<Losses> Run() {
    started_ = Clock::now();
    bytes_before_ = run_.bytes_before.value_or(skeleton_.checkpoint().bytes_read());
    AUTOSCHEME_RETURN_IF_ERROR(run_.context.CheckCancelled());
    AUTOSCHEME_RETURN_IF_ERROR(outer_.Load(skeleton_, run_));
    tables_ = PositionTables(spec_, calibration_.seqlen);
    for (at::Tensor& table : tables_) table = table.to(run_.device.torch);
    AUTOSCHEME_RETURN_IF_ERROR(activations_.Open());
    AUTOSCHEME_RETURN_IF_ERROR(Embed());
    const Schedule& schedule = activations_.schedule();
    AUTOSCHEME_RETURN_IF_ERROR(Stage(run_.stats.forward_s, [&] { return SweepUnits("forward", schedule.Forward()); }));
    Losses losses;
    AUTOSCHEME_RETURN_IF_ERROR(Stage(run_.stats.head_s, [&] { return Head(losses); }));
    activations_.CloseForHead();
    if (forward_only_ < variants_) {
      AUTOSCHEME_RETURN_IF_ERROR(
          Stage(run_.stats.backward_s, [&] { return SweepUnits("backward", schedule.Backward()); }));
    }
    activations_.Close();
    run_.stats.read_bytes = BytesRead();
    run_.stats.product_s = run_.products.seconds(), run_.stats.product_flops = run_.products.flops();
    return losses;
  }

 private:
  // One stage of the run, timed. What the one before left of the pools' pages goes back first: each has a peak of its
  // own.
  template <typename Body>
  absl::Status Stage(double& seconds, const Body& body) {
    const Clock::time_point start = Clock::now();
    run_.activations.Trim(), run_.weights.Trim();
    absl::Status status = body();
    seconds += SecondsSince(start);
    return status;
  }

  absl::Status Embed() {
    AUTOSCHEME_ASSIGN_OR_RETURN(EmbeddingRows rows, EmbeddingRows::Read(skeleton_, calibration_));
    at::NoGradGuard no_grad;
    for (int m = 0; m < micro_batch_count(); ++m) {
      at::Tensor place =
          NewTensor(&run_.activations, {micro_batches_[m].rows, calibration_.seqlen, spec_.input.width}, run_.dtype());
      const at::Tensor embedded = rows.Of(calibration_, micro_batches_[m], std::move(place));
      AUTOSCHEME_RETURN_IF_ERROR(activations_.PutEmbedded(0, m, EmbeddedRows(spec_, embedded, outer_)));
      const at::Tensor flat = embedded.view({-1, embedded.size(-1)});
      for (int form = 1; form < scorers_.needs().embeddings(); ++form) {
        const at::Tensor quantized = scorers_.TreatEmbedding(form)->Forward(flat, {}).view(embedded.sizes());
        AUTOSCHEME_RETURN_IF_ERROR(activations_.PutEmbedded(form, m, EmbeddedRows(spec_, quantized, outer_)));
      }
    }
    return absl::OkStatus();
  }

  absl::Status SweepUnits(absl::string_view stage, const std::vector<UnitStep>& steps) {
    at::NoGradGuard no_grad;
    AUTOSCHEME_RETURN_IF_ERROR(source_.Begin(steps));
    for (size_t i = 0; i < steps.size(); ++i) {
      AUTOSCHEME_RETURN_IF_ERROR(run_.context.CheckCancelled());
      AUTOSCHEME_ASSIGN_OR_RETURN(absl::Span<const TensorView> views, source_.Next());
      tiles_.set_check_finite(steps[i].pass == Pass::kForward);
      UnitRunner runner(skeleton_, units_[steps[i].unit], views, run_, tables_);
      for (int v = FirstVariant(steps[i]); v < variants_; ++v) AUTOSCHEME_RETURN_IF_ERROR(RunUnit(runner, steps, i, v));
      AUTOSCHEME_RETURN_IF_ERROR(Report(stage, static_cast<int64_t>(i) + 1, static_cast<int64_t>(steps.size())));
    }
    source_.End();
    return absl::OkStatus();
  }

  // Forward-only variants go through each unit once.
  int FirstVariant(const UnitStep& step) const { return step.pass == Pass::kForward ? 0 : forward_only_; }

  // All micro-batches of one variant through the unit of step i.
  absl::Status RunUnit(UnitRunner& runner, const std::vector<UnitStep>& steps, size_t i, int v) {
    const UnitStep& step = steps[i];
    const bool saves = activations_.SavesGraph(step.unit, v);
    AUTOSCHEME_ASSIGN_OR_RETURN(std::unique_ptr<UnitLinears> linears, TakeLinears(step.unit, v));
    const auto find = [&runner](absl::string_view name) { return runner.Find(name); };
    ResidentRows resident(run_, find);
    linears->set_saves_graph(saves);
    linears->Bind(find, plan_.tiled ? static_cast<WeightRows&>(tiles_) : resident);
    for (int m = 0; m < micro_batch_count(); ++m) {
      AUTOSCHEME_RETURN_IF_ERROR(run_.context.CheckCancelled());
      AUTOSCHEME_ASSIGN_OR_RETURN(const SavedActivations::Inputs inputs, activations_.Take(step, v, m));
      AnnounceNext(steps, i, v, m);
      const absl::Status done = Compute(runner, *linears, step, v, m, inputs);
      AUTOSCHEME_RETURN_IF_ERROR(tiles_.status());  // first: what was computed of tiles that did not come is anything
      AUTOSCHEME_RETURN_IF_ERROR(done);
    }
    linears->Unbind();
    if (step.pass == Pass::kForward && saves) saved_linears_[{step.unit, v}] = std::move(linears);
    return tiles_.status();
  }

  absl::StatusOr<std::unique_ptr<UnitLinears>> TakeLinears(int unit, int v) {
    if (auto saved = saved_linears_.find({unit, v}); saved != saved_linears_.end()) {
      std::unique_ptr<UnitLinears> linears = std::move(saved->second);
      saved_linears_.erase(saved);
      return linears;
    }
    return UnitLinears::Create(run_, plan_, units_[unit], scorers_, v);
  }

  // What will be taken after (step i, v, m), so that it is read while this one computes.
  void AnnounceNext(const std::vector<UnitStep>& steps, size_t i, int v, int m) const {
    if (++m == micro_batch_count()) {
      m = 0;
      if (++v == variants_) {
        if (++i == steps.size()) return;
        v = FirstVariant(steps[i]);
      }
    }
    activations_.Announce(steps[i], v, m);
  }

  absl::Status Compute(UnitRunner& runner, UnitLinears& linears, const UnitStep& step, int v, int m,
                       const SavedActivations::Inputs& in) {
    const auto unit = [&](bool values) {
      return [&runner, &linears, values](const at::Tensor& x) { return runner.Run(x, linears, values); };
    };
    if (step.pass == Pass::kRecompute) return activations_.PutRecomputed(step.unit + 1, v, m, unit(true)(in.x));
    if (step.pass == Pass::kForward) {
      if (!activations_.SavesGraph(step.unit, v)) return activations_.PutInput(step.unit + 1, v, m, unit(true)(in.x));
      at::Tensor y;
      Graph graph(in.x, unit(true), &y);
      saved_graphs_.insert_or_assign({step.unit, v, m}, std::move(graph));
      return activations_.PutInput(step.unit + 1, v, m, y);
    }
    at::Tensor dx;
    if (auto saved = saved_graphs_.find({step.unit, v, m}); saved != saved_graphs_.end()) {
      dx = saved->second.Pullback(in.grad);
      saved_graphs_.erase(saved);
    } else {
      dx = Graph(in.x, unit(false)).Pullback(in.grad);
    }
    if (micro_batches_[m].ends_batch) linears.EndBatch();
    return PutGradient(v, m, dx);
  }

  absl::Status Head(Losses& losses) {
    HeadInput input;
    input.first_row = calibration_.first_row;
    input.shape = shape_;
    input.sums = activations_.sums();
    input.label_rows = activations_.label_rows();
    input.hidden = [&](int v, int m) -> absl::StatusOr<at::Tensor> {
      AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, activations_.LastOutput(v, m));
      return HeadInputs(spec_, x, outer_);
    };
    input.take_gradient = [&](int v, int m, const at::Tensor& grad) -> absl::Status {
      AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, activations_.LastOutput(v, m));
      return PutGradient(v, m,
                         Graph(x, [&](const at::Tensor& in) { return HeadInputs(spec_, in, outer_); }).Pullback(grad));
    };
    input.step = [&](int64_t done, int64_t total) { return Report("head", done, total); };
    if (scorers_.needs().compares_logits) {
      return RunEvalHead(run_, skeleton_, calibration_, plan_, scorers_, input);
    }
    AUTOSCHEME_ASSIGN_OR_RETURN(losses, RunHead(run_, skeleton_, calibration_, plan_, scorers_, input));
    return absl::OkStatus();
  }

  absl::Status PutGradient(int v, int m, const at::Tensor& grad) {
    // One pass over a small tensor, and a NaN is named where it arises instead of spoiling every score below.
    if (!std::isfinite(grad.sum().item<double>()) && !grad.isfinite().all().item<bool>()) {
      return absl::DataLossError(absl::StrCat("the gradient of batch ", micro_batches_[m].batch,
                                              " became NaN or infinite under ", scorers_.needs().variants[v].name));
    }
    return activations_.PutGradient(v, m, grad);
  }

  absl::Status Report(absl::string_view stage, int64_t done, int64_t total) {
    AUTOSCHEME_RETURN_IF_ERROR(run_.SampleDeviceMemory());
    if (!run_.context.progress) return absl::OkStatus();
    Progress p;
    p.stage = stage, p.done = done, p.total = total;
    p.bytes_read = static_cast<int64_t>(BytesRead());
    p.elapsed_s = SecondsSince(started_);
    return run_.context.progress(p);
  }

  // Reads by the streamers, and by the checkpoint itself.
  uint64_t BytesRead() const {
    return run_.stats.read_bytes + source_.bytes_read() + skeleton_.checkpoint().bytes_read() - bytes_before_;
  }
  int micro_batch_count() const { return static_cast<int>(micro_batches_.size()); }

  RunResources& run_;
  const MetaSkeleton& skeleton_;
  const ModelSpec& spec_;
  const Calibration& calibration_;
  const ExecutionPlan& plan_;
  const Scorers& scorers_;
  const int variants_, forward_only_;
  const std::vector<Unit> units_;
  const int unit_count_;
  const BatchShape shape_;
  const std::vector<MicroBatch> micro_batches_;
  UnitSource source_;
  WeightTiles tiles_;
  SavedActivations activations_;
  Clock::time_point started_;
  uint64_t bytes_before_ = 0;  // by the checkpoint's own counter
  OuterOps outer_;
  std::vector<at::Tensor> tables_;
  // Linear layers that saved graphs point at, by unit and variant; and the graphs, by micro-batch too.
  absl::flat_hash_map<std::pair<int, int>, std::unique_ptr<UnitLinears>> saved_linears_;
  absl::flat_hash_map<std::tuple<int, int, int>, Graph> saved_graphs_;
};

}  // namespace

absl::StatusOr<Losses> RunSweeps(RunResources& run, const MetaSkeleton& skeleton, const Calibration& calibration,
                                 const ExecutionPlan& plan, const Scorers& scorers) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckCalibration(calibration, skeleton));
  run.stats.planned_read_bytes = PlannedReadBytes(skeleton, calibration, plan, scorers.needs());
  return Sweeps(run, skeleton, calibration, plan, scorers).Run();
}

}  // namespace autoscheme
