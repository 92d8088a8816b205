#include "score/sweep.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "autoscheme/block_streamer.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "score/boundaries.h"
#include "score/head.h"
#include "score/weights.h"
#include "skeleton/architecture.h"

namespace autoscheme {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::vector<int32_t> DistinctIds(const Calibration& calibration) {
  std::vector<int32_t> ids = calibration.ids;
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

absl::Status CheckCalibration(const Calibration& c, const MetaSkeleton& skeleton) {
  if (c.nsamples < 1 || c.seqlen < 1 || static_cast<int64_t>(c.ids.size()) != c.nsamples * c.seqlen) {
    return absl::InvalidArgumentError(absl::StrCat("calibration of ", c.nsamples, " rows of ", c.seqlen, " tokens holds ",
                                                   c.ids.size(), " ids; at least one row is needed"));
  }
  if (c.seqlen < 2) {
    return absl::InvalidArgumentError("calibration rows of 1 token predict nothing; the loss needs at least 2 tokens per row");
  }
  if (skeleton.max_positions() > 0 && c.seqlen > skeleton.max_positions()) {
    return absl::InvalidArgumentError(absl::StrCat("calibration rows of ", c.seqlen, " tokens are longer than the model's ",
                                                   skeleton.max_positions(), " positions; use a smaller seqlen"));
  }
  for (size_t i = 0; i < c.ids.size(); ++i) {
    if (c.ids[i] < 0 || c.ids[i] >= skeleton.vocab_size()) {
      return absl::InvalidArgumentError(absl::StrCat("calibration row ", i / c.seqlen, ", column ", i % c.seqlen, ": id ",
                                                     c.ids[i], " is outside the vocabulary of ", skeleton.vocab_size(),
                                                     "; were the ids made with another tokenizer?"));
    }
  }
  return absl::OkStatus();
}

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

// One resident block: its small tensors here, its linears with the measurement.
class ResidentOps : public BlockOps {
 public:
  ResidentOps(const Block& block, const BlockView& view, at::ScalarType dtype, const at::Tensor& tables, Measurement& measurement)
      : tables_(tables), measurement_(measurement) {
    for (const TensorView& t : view.tensors) views_.emplace(t.info->name, t);
    for (const TensorView& t : view.tensors) {
      const bool linear = std::any_of(block.linears.begin(), block.linears.end(), [&](const LinearLayer& l) {
        return l.weight == t.info || l.bias == t.info;
      });
      if (!linear) params_.emplace(t.info->name.substr(block.name.size() + 1), LoadTensor(t, dtype));
    }
  }
  at::Tensor Linear(int index, const at::Tensor& x) override { return measurement_.Linear(index, x); }
  const at::Tensor& Param(absl::string_view name) override { return params_.at(name); }
  const at::Tensor& position_tables() const override { return tables_; }
  TensorView Find(absl::string_view name) const {
    auto it = views_.find(name);
    return it == views_.end() ? TensorView{} : it->second;
  }

 private:
  const at::Tensor& tables_;
  Measurement& measurement_;
  absl::flat_hash_map<std::string, TensorView> views_;
  absl::flat_hash_map<std::string, at::Tensor> params_;
};

class Sweeps {
 public:
  Sweeps(const Context& context, const MetaSkeleton& skeleton, const Calibration& calibration, const SweepOptions& options,
         Measurement& measurement, SweepStats& stats)
      : context_(context), skeleton_(skeleton), architecture_(skeleton.architecture()), calibration_(calibration),
        options_(options), measurement_(measurement), stats_(stats) {
    shape_ = {calibration.nsamples, calibration.seqlen, options.batch_size};
    trajectories_ = measurement.trajectories();
    forward_only_ = measurement.forward_only_trajectories();
    gradients_ = forward_only_ < trajectories_;
    blocks_ = static_cast<int>(skeleton.blocks().size());
  }

  absl::Status Run() {
    started_ = Clock::now();
    bytes_before_ = skeleton_.checkpoint().bytes_read();
    AUTOSCHEME_RETURN_IF_ERROR(context_.CheckCancelled());
    AUTOSCHEME_RETURN_IF_ERROR(outer_.Load(skeleton_, options_.dtype));
    tables_ = architecture_.PositionTables(calibration_.seqlen);
    AUTOSCHEME_RETURN_IF_ERROR(Open(boundaries_, blocks_ + 1, trajectories_ - forward_only_));
    // Without gradients a boundary is dead once the next block has read it: two slots take turns.
    AUTOSCHEME_RETURN_IF_ERROR(Open(passing_, 2, forward_only_));
    AUTOSCHEME_RETURN_IF_ERROR(Embed());
    AUTOSCHEME_RETURN_IF_ERROR(Timed(stats_.forward_s, [&] { return Forward(); }));
    AUTOSCHEME_RETURN_IF_ERROR(Open(gradient_store_, 1, trajectories_ - forward_only_));
    AUTOSCHEME_RETURN_IF_ERROR(Timed(stats_.head_s, [&] { return Head(); }));
    if (gradients_) AUTOSCHEME_RETURN_IF_ERROR(Timed(stats_.backward_s, [&] { return Backward(); }));
    stats_.read_bytes = BytesRead();
    if (!options_.boundaries_in_ram) {
      for (const auto* store : {&boundaries_, &passing_, &gradient_store_}) {
        if (*store != nullptr) stats_.spill_bytes += (*store)->bytes_written();
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Open(std::unique_ptr<TensorStore>& store, int64_t slots, int64_t trajectories) {
    if (trajectories == 0) return absl::OkStatus();
    auto opened = TensorStore::Create(context_, shape_, skeleton_.hidden_size(), slots, trajectories, options_.dtype,
                                      options_.boundaries_in_ram, options_.work_dir, options_.budget);
    if (!opened.ok()) return opened.status();
    store = std::make_unique<TensorStore>(*std::move(opened));
    return absl::OkStatus();
  }

  // Input of block k, or the last block's output.
  absl::StatusOr<at::Tensor> GetBoundary(int k, int t, int64_t b) {
    return t < forward_only_ ? passing_->Get(k % 2, t, b) : boundaries_->Get(k, t - forward_only_, b);
  }
  absl::Status PutBoundary(int k, int t, int64_t b, const at::Tensor& x) {
    measurement_.OnBoundary(k, t, static_cast<int>(b), x);
    return t < forward_only_ ? passing_->Put(k % 2, t, b, x) : boundaries_->Put(k, t - forward_only_, b, x);
  }

  template <typename Body>
  absl::Status Timed(double& seconds, const Body& body) {
    const Clock::time_point start = Clock::now();
    absl::Status status = body();
    seconds += SecondsSince(start);
    return status;
  }

  // Reads the rows of the tokens that occur, and writes boundary 0.
  absl::Status Embed() {
    const TensorInfo& embedding = *skeleton_.embedding();
    const std::vector<int32_t> ids = DistinctIds(calibration_);
    const uint64_t row_bytes = embedding.bytes / embedding.shape[0];
    std::vector<std::byte> bytes(ids.size() * row_bytes);
    for (size_t i = 0; i < ids.size();) {
      size_t end = i + 1;
      while (end < ids.size() && ids[end] == ids[end - 1] + 1) ++end;
      AUTOSCHEME_RETURN_IF_ERROR(skeleton_.checkpoint().Read(
          embedding, ids[i] * row_bytes, absl::MakeSpan(bytes).subspan(i * row_bytes, (end - i) * row_bytes)));
      i = end;
    }
    TensorInfo touched = embedding;
    touched.shape[0] = static_cast<int64_t>(ids.size());
    AUTOSCHEME_RETURN_IF_ERROR(CheckFinite({&touched, bytes.data()}));
    const at::Tensor rows = LoadRows({&touched, bytes.data()}, 0, touched.shape[0], options_.dtype);

    at::NoGradGuard no_grad;
    for (int64_t b = 0; b < shape_.batches(); ++b) {
      at::Tensor index = at::empty({shape_.rows(b) * shape_.seqlen}, at::kLong);
      const int32_t* batch_ids = calibration_.ids.data() + b * shape_.batch_size * shape_.seqlen;
      for (int64_t i = 0; i < index.numel(); ++i) {
        index.data_ptr<int64_t>()[i] = std::lower_bound(ids.begin(), ids.end(), batch_ids[i]) - ids.begin();
      }
      at::Tensor x = rows.index_select(0, index).view({shape_.rows(b), shape_.seqlen, skeleton_.hidden_size()});
      x = architecture_.Embed(x, outer_);
      for (int t = 0; t < trajectories_; ++t) AUTOSCHEME_RETURN_IF_ERROR(PutBoundary(0, t, b, x));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<BlockStreamer>> OpenStreamer(bool reverse) {
    std::vector<BlockStreamer::Step> order;
    for (const Block& block : skeleton_.blocks()) order.emplace_back(block.tensors);
    if (reverse) std::reverse(order.begin(), order.end());
    BlockStreamer::Options options;
    options.slots = options_.block_slots;
    return BlockStreamer::Create(context_, skeleton_.checkpoint(), std::move(order), options, options_.budget);
  }

  // Streams all blocks in one direction; `body(ops, block, trajectory, batch)` runs between BeginBlock and EndBlock.
  template <typename Body>
  absl::Status SweepBlocks(Pass pass, const Body& body) {
    const bool reverse = pass == Pass::kBackward;
    AUTOSCHEME_ASSIGN_OR_RETURN(std::unique_ptr<BlockStreamer> streamer, OpenStreamer(reverse));
    for (int step = 0; step < blocks_; ++step) {
      AUTOSCHEME_RETURN_IF_ERROR(context_.CheckCancelled());
      AUTOSCHEME_ASSIGN_OR_RETURN(BlockView view, streamer->Next());
      const int k = reverse ? blocks_ - 1 - step : step;
      const Block& block = skeleton_.blocks()[k];
      if (!reverse) {
        for (const TensorView& t : view.tensors) AUTOSCHEME_RETURN_IF_ERROR(CheckFinite(t));
      }
      ResidentOps ops(block, view, options_.dtype, tables_, measurement_);
      ResidentBlock resident;
      resident.index = k;
      resident.block = &block;
      resident.find = [&ops](absl::string_view name) { return ops.Find(name); };
      for (int t = reverse ? forward_only_ : 0; t < trajectories_; ++t) {
        AUTOSCHEME_RETURN_IF_ERROR(measurement_.BeginBlock(pass, t, resident));
        for (int64_t b = 0; b < shape_.batches(); ++b) {
          AUTOSCHEME_RETURN_IF_ERROR(context_.CheckCancelled());
          AUTOSCHEME_RETURN_IF_ERROR(body(ops, k, t, static_cast<int>(b)));
        }
        AUTOSCHEME_RETURN_IF_ERROR(measurement_.EndBlock());
      }
      streamed_ += block.bytes;
      AUTOSCHEME_RETURN_IF_ERROR(Report(reverse ? "backward" : "forward", step + 1, blocks_));
    }
    streamed_ += streamer->stats().bytes_read - streamer->planned_bytes();
    stats_.stall_s += streamer->stats().stall_s;
    return absl::OkStatus();
  }

  absl::Status Forward() {
    at::NoGradGuard no_grad;
    return SweepBlocks(Pass::kForward, [&](BlockOps& ops, int k, int t, int b) -> absl::Status {
      AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, GetBoundary(k, t, b));
      return PutBoundary(k + 1, t, b, architecture_.Block(k, x, ops));
    });
  }

  absl::Status Head() {
    HeadInput input;
    input.skeleton = &skeleton_;
    input.calibration = &calibration_;
    input.shape = shape_;
    input.dtype = options_.dtype;
    input.tile_rows = options_.head_tile_rows;
    input.slots = options_.block_slots;
    input.in_ram = options_.boundaries_in_ram;
    input.work_dir = options_.work_dir;
    input.budget = options_.budget;
    input.hidden = [&](int t, int b) -> absl::StatusOr<at::Tensor> {
      AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, GetBoundary(blocks_, t, b));
      return architecture_.FinalNorm(x, outer_);
    };
    input.take_gradient = [&](int t, int b, const at::Tensor& grad) -> absl::Status {
      AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, GetBoundary(blocks_, t, b));
      return PutGradient(t, b, Pullback(x, grad, [&](const at::Tensor& in) { return architecture_.FinalNorm(in, outer_); }));
    };
    input.step = [&](int64_t done, int64_t total) { return Report("head", done, total); };
    HeadStats head;
    AUTOSCHEME_RETURN_IF_ERROR(RunHead(context_, input, measurement_, &head));
    streamed_ += head.read_bytes;
    stats_.spill_bytes += head.spill_bytes;
    stats_.stall_s += head.stall_s;
    return absl::OkStatus();
  }

  absl::Status Backward() {
    return SweepBlocks(Pass::kBackward, [&](BlockOps& ops, int k, int t, int b) -> absl::Status {
      AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, GetBoundary(k, t, b));
      AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor grad, gradient_store_->Get(0, t - forward_only_, b));
      return PutGradient(t, b, Pullback(x, grad, [&](const at::Tensor& in) { return architecture_.Block(k, in, ops); }));
    });
  }

  // dL/dx of y = f(x) for dL/dy = grad.
  template <typename Function>
  at::Tensor Pullback(at::Tensor x, const at::Tensor& grad, const Function& f) {
    at::AutoGradMode with_grad(true);
    x = x.detach().requires_grad_(true);
    at::Tensor y = f(x);
    torch::autograd::backward({y}, {grad});
    return x.grad();
  }

  absl::Status PutGradient(int t, int b, const at::Tensor& grad) {
    // One pass over a small tensor, and a NaN is named where it arises instead of spoiling every score below.
    at::NoGradGuard no_grad;
    if (!std::isfinite(grad.sum().item<double>()) && !grad.isfinite().all().item<bool>()) {
      return absl::DataLossError(absl::StrCat("the gradient of batch ", b, " became NaN or infinite under trajectory ", t));
    }
    return gradient_store_->Put(0, t - forward_only_, b, grad);
  }

  absl::Status Report(absl::string_view stage, int64_t done, int64_t total) {
    if (!context_.progress) return absl::OkStatus();
    Progress p;
    p.stage = stage, p.done = done, p.total = total;
    p.bytes_read = static_cast<int64_t>(BytesRead());
    p.elapsed_s = SecondsSince(started_);
    return context_.progress(p);
  }

  uint64_t BytesRead() const { return streamed_ + skeleton_.checkpoint().bytes_read() - bytes_before_; }

  const Context& context_;
  const MetaSkeleton& skeleton_;
  const Architecture& architecture_;
  const Calibration& calibration_;
  const SweepOptions& options_;
  Measurement& measurement_;
  SweepStats& stats_;
  BatchShape shape_;
  int trajectories_ = 0, forward_only_ = 0, blocks_ = 0;
  bool gradients_ = false;
  Clock::time_point started_;
  uint64_t bytes_before_ = 0;  // of the checkpoint's own counter
  uint64_t streamed_ = 0;
  OuterOps outer_;
  at::Tensor tables_;
  std::unique_ptr<TensorStore> boundaries_, passing_, gradient_store_;
};

}  // namespace

uint64_t PlannedReadBytes(const MetaSkeleton& skeleton, const Calibration& calibration, Measurement& measurement) {
  const bool gradients = measurement.forward_only_trajectories() < measurement.trajectories();
  uint64_t bytes = 0;
  for (const Block& block : skeleton.blocks()) bytes += block.bytes * (gradients ? 2 : 1);
  const LinearLayer& head = skeleton.head();
  bytes += head.weight->bytes * HeadPasses(measurement) + (head.bias != nullptr ? head.bias->bytes : 0);
  bytes += DistinctIds(calibration).size() * (skeleton.embedding()->bytes / skeleton.embedding()->shape[0]);
  for (const TensorInfo* info : skeleton.other_tensors()) bytes += info->bytes;
  return bytes;
}

absl::Status RunSweeps(const Context& context, const MetaSkeleton& skeleton, const Calibration& calibration,
                       const SweepOptions& options, Measurement& measurement, SweepStats* stats) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckCalibration(calibration, skeleton));
  SweepStats local;
  SweepStats& out = stats != nullptr ? *stats : local;
  out.planned_read_bytes = PlannedReadBytes(skeleton, calibration, measurement);
  return Sweeps(context, skeleton, calibration, options, measurement, out).Run();
}

}  // namespace autoscheme
