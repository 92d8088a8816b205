#include "exec/head.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "autoscheme/block_streamer.h"
#include "checkpoint/checkpoint.h"
#include "exec/scored_linear.h"
#include "exec/weights.h"
#include "tensor/row_chunks.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {
namespace {

// What one (trajectory, slice) carries from tile to tile; N = predictions of the slice.
struct Running {
  at::Tensor labels;     // [N] int64
  at::Tensor maximum;    // [N] of the logits so far
  at::Tensor sum;        // [N] of exp(logit - maximum)
  at::Tensor label_logit;  // [N]
};

class HeadRun {
 public:
  HeadRun(const Context& context, const HeadInput& input, Measurement& measurement, HeadStats& stats)
      : context_(context), in_(input), measurement_(measurement), stats_(stats), layer_(input.skeleton->head()),
        slices_(input.shape.slices()), slice_count_(static_cast<int>(slices_.size())) {}

  absl::Status Run() {
    forward_only_ = measurement_.forward_only_trajectories();
    gradients_ = forward_only_ < measurement_.trajectories();
    AUTOSCHEME_RETURN_IF_ERROR(ShowInputs());
    AUTOSCHEME_RETURN_IF_ERROR(Prepare());
    if (needs_whole_) AUTOSCHEME_RETURN_IF_ERROR(ForEachTile([&](int64_t, const TensorView& tile) { return PrepareQuantizers(tile); }));
    AUTOSCHEME_RETURN_IF_ERROR(ForEachTile([&](int64_t first, const TensorView& tile) { return Accumulate(first, tile); }));
    AUTOSCHEME_RETURN_IF_ERROR(Finish());
    if (measured_) {
      AUTOSCHEME_RETURN_IF_ERROR(ForEachTile([&](int64_t first, const TensorView& tile) { return FoldWeight(first, tile); }));
      for (int t = 0; t < measurement_.trajectories(); ++t) {
        if (measurement_.head(t).measure) measurement_.OnHeadScore(t, scores_[t].weight, scores_[t].activation);
      }
    }
    return absl::OkStatus();
  }

 private:
  using TileBody = std::function<absl::Status(int64_t first, const TensorView& tile)>;

  absl::Status ShowInputs() {
    for (int t = 0; t < forward_only_; ++t) {
      for (int s = 0; s < slice_count_; ++s) {
        AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, in_.hidden(t, s));
        measurement_.OnHeadInput(t, s, x);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Prepare() {
    const int64_t trajectories = measurement_.trajectories();
    running_.resize(trajectories * slice_count_);
    prepared_.resize(trajectories);
    scores_.resize(trajectories);
    int64_t step = 1;
    for (int t = 0; t < trajectories; ++t) {
      const HeadTreatment treatment = measurement_.head(t);
      measured_ = measured_ || treatment.measure;
      if (treatment.weight == nullptr) continue;
      needs_whole_ = needs_whole_ || treatment.weight->needs_whole_tensor();
      const int64_t multiple = treatment.weight->row_multiple();
      // One tile height for all trajectories: a common multiple of what their quantizers ask for; 0 = the whole head.
      step = multiple == 0 ? layer_.out_features : std::lcm(step, multiple);
    }
    tile_rows_ = std::max(in_.tile_rows / step * step, step);
    if (layer_.bias != nullptr) {
      bias_bytes_.resize(layer_.bias->bytes);
      AUTOSCHEME_RETURN_IF_ERROR(in_.skeleton->checkpoint().Read(*layer_.bias, 0, absl::MakeSpan(bias_bytes_)));
      bias_ = LoadTensor({layer_.bias, bias_bytes_.data()}, in_.precision.dtype);
    }
    for (int t = 0; t < trajectories; ++t) {
      for (int s = 0; s < slice_count_; ++s) {
        Running& r = at(t, s);
        r.labels = Labels(slices_[s]);
        const auto wide = at::TensorOptions().dtype(at::kFloat);
        r.maximum = at::full({r.labels.size(0)}, -INFINITY, wide);
        r.sum = at::zeros({r.labels.size(0)}, wide);
        r.label_logit = at::zeros({r.labels.size(0)}, wide);
      }
    }
    return absl::OkStatus();
  }

  at::Tensor Labels(const Slice& slice) const {
    const int64_t seq = in_.shape.seqlen;
    at::Tensor labels = at::empty({slice.rows, seq - 1}, at::kLong);
    int64_t* out = labels.data_ptr<int64_t>();
    for (int64_t r = 0; r < slice.rows; ++r) {
      const int32_t* ids = in_.calibration->ids.data() + (slice.first_row + r) * seq;
      for (int64_t s = 1; s < seq; ++s) *out++ = ids[s];
    }
    return labels.view({-1});
  }

  absl::Status ForEachTile(const TileBody& body) {
    const int64_t rows = layer_.out_features, tiles = (rows + tile_rows_ - 1) / tile_rows_;
    std::vector<BlockStreamer::RangeStep> order;
    for (int64_t first = 0; first < rows; first += tile_rows_) {
      order.push_back({{layer_.weight, first, std::min(tile_rows_, rows - first)}});
    }
    BlockStreamer::Options options;
    options.slots = in_.slots;
    options.io_engine = in_.io_engine;
    AUTOSCHEME_ASSIGN_OR_RETURN(std::unique_ptr<BlockStreamer> streamer,
                                BlockStreamer::CreateFromRanges(context_, in_.skeleton->checkpoint(), std::move(order), options, in_.budget));
    for (int64_t i = 0; i < tiles; ++i) {
      AUTOSCHEME_ASSIGN_OR_RETURN(BlockView view, streamer->Next());
      TensorInfo info = *layer_.weight;
      info.shape[0] = view.ranges[0].rows;
      const TensorView tile{&info, view.tensors[0].data};
      AUTOSCHEME_RETURN_IF_ERROR(CheckFinite(tile));
      AUTOSCHEME_RETURN_IF_ERROR(body(view.ranges[0].first_row, tile));
      if (in_.step) AUTOSCHEME_RETURN_IF_ERROR(in_.step(++steps_done_, tiles * HeadPasses(measurement_)));
    }
    stats_.read_bytes += streamer->stats().bytes_read;
    stats_.stall_s += streamer->stats().stall_s;
    return absl::OkStatus();
  }

  absl::Status PrepareQuantizers(const TensorView& tile) {
    const at::Tensor w = Rows(tile);
    for (int t = 0; t < measurement_.trajectories(); ++t) {
      const WeightQuantizer* quantizer = measurement_.head(t).weight;
      if (quantizer == nullptr || !quantizer->needs_whole_tensor()) continue;
      const at::Tensor part = quantizer->Prepare(w);
      prepared_[t] = prepared_[t].defined() ? at::maximum(prepared_[t], part) : part;
    }
    return absl::OkStatus();
  }

  at::Tensor Rows(const TensorView& tile) const {
    const at::Tensor stored = StoredRows(tile.data, tile.info->dtype, tile.info->shape[0], layer_.in_features);
    return stored.scalar_type() == in_.precision.dtype ? stored : NewTensor(in_.pool, stored.sizes(), in_.precision.dtype).copy_(stored);
  }

  // Hidden states that predict, quantized as the trajectory asks: [N, hidden].
  absl::StatusOr<at::Tensor> Inputs(int t, int s) {
    AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, in_.hidden(t, s));
    const HeadTreatment treatment = measurement_.head(t);
    if (treatment.activation != nullptr) x = treatment.activation->Forward(x);
    const at::Tensor predicting = x.narrow(1, 0, in_.shape.seqlen - 1);
    return NewLike(x, predicting.sizes(), x.scalar_type()).copy_(predicting).view({-1, layer_.in_features});
  }

  at::Tensor QuantizedTile(int t, const at::Tensor& w) {
    const HeadTreatment treatment = measurement_.head(t);
    if (treatment.weight == nullptr) return w;
    if (w.scalar_type() != at::kFloat) return treatment.weight->Forward(w, prepared_[t]);
    at::Tensor wq = NewTensor(in_.pool, w.sizes(), at::kFloat);
    treatment.weight->ForwardInto(w, prepared_[t], wq);
    return wq;
  }

  at::Tensor Logits(const at::Tensor& x, const at::Tensor& wq, int64_t first) const {
    at::Tensor logits = Product(in_.meter, x, wq.t());
    if (bias_.defined()) logits.add_(bias_.narrow(0, first, wq.size(0)));
    return Converted(logits, at::kFloat);
  }

  absl::Status Accumulate(int64_t first, const TensorView& tile) {
    const int64_t count = tile.info->shape[0];
    const at::Tensor w = Rows(tile);
    for (int t = 0; t < measurement_.trajectories(); ++t) {
      if (measurement_.head(t).skip) continue;
      const at::Tensor wq = QuantizedTile(t, w), operand = Converted(wq, in_.precision.operands);
      for (int s = 0; s < slice_count_; ++s) {
        AUTOSCHEME_RETURN_IF_ERROR(context_.CheckCancelled());
        AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, Inputs(t, s));
        Running& r = at(t, s);
        at::Tensor logits = Logits(x, wq, first);
        measurement_.OnLogits(t, s, first, logits);
        // Predictions whose label lies in this tile.
        at::Tensor here = r.labels.ge(first).logical_and_(r.labels.lt(first + count)).nonzero().squeeze(1);
        at::Tensor columns = r.labels.index_select(0, here) - first;
        r.label_logit.index_copy_(0, here, logits.index({here, columns}));

        const at::Tensor maximum = at::empty_like(r.maximum), sums = at::empty_like(r.sum);
        const bool wide = in_.precision.operands == at::kFloat;
        at::Tensor p = wide ? logits : NewLike(logits, logits.sizes(), in_.precision.operands);
        ForEachRowChunk(logits, logits.size(0), logits.size(1), [&](int64_t row, int64_t rows) {
          at::Tensor l = logits.narrow(0, row, rows), most = maximum.narrow(0, row, rows);
          at::maximum_out(most, r.maximum.narrow(0, row, rows), l.amax(1));
          l.sub_(most.unsqueeze(1)).exp_();
          sums.narrow(0, row, rows).copy_(l.sum(1));
          if (!wide) p.narrow(0, row, rows).copy_(l);
        });
        at::Tensor rescale = (r.maximum - maximum).exp_();
        r.sum.mul_(rescale).add_(sums);
        r.maximum = maximum;
        if (t < forward_only_) continue;
        logits.reset();
        at::Tensor sum = Converted(Product(in_.meter, p, operand), at::kFloat);
        p.reset();
        at::Tensor picked = NewLike(x).zero_();
        if (first > 0) {
          AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor before, in_.sums->Get(0, t - forward_only_, s));
          sum.add_(before.view_as(sum).mul_(rescale.unsqueeze(1)));
          AUTOSCHEME_ASSIGN_OR_RETURN(picked, in_.picked->Get(0, t - forward_only_, s));
          picked = picked.view_as(x);
        }
        picked.index_copy_(0, here, wq.index_select(0, columns));
        AUTOSCHEME_RETURN_IF_ERROR(in_.sums->Put(0, t - forward_only_, s, sum));
        AUTOSCHEME_RETURN_IF_ERROR(in_.picked->Put(0, t - forward_only_, s, picked));
      }
    }
    return absl::OkStatus();
  }

  // Losses, and the gradients handed down.
  absl::Status Finish() {
    for (int t = 0; t < measurement_.trajectories(); ++t) {
      if (measurement_.head(t).skip) continue;
      double loss = 0;  // of the batch so far
      for (int s = 0; s < slice_count_; ++s) {
        Running& r = at(t, s);
        const double n = Predictions(s);
        loss += (r.maximum + r.sum.log() - r.label_logit).sum(at::kDouble).item<double>() / n;
        if (!std::isfinite(loss)) {
          return absl::DataLossError(absl::StrCat("the loss of batch ", slices_[s].batch, " is ", loss, " under trajectory ",
                                                  t, ": activations overflowed or are NaN"));
        }
        if (slices_[s].ends_batch) measurement_.OnLoss(t, static_cast<int>(slices_[s].batch), std::exchange(loss, 0.0));
        if (t < forward_only_) continue;
        AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor sum, in_.sums->Get(0, t - forward_only_, s));
        AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor picked, in_.picked->Get(0, t - forward_only_, s));
        const int64_t rows = slices_[s].rows, seq = in_.shape.seqlen;
        sum.div_(r.sum.view({rows, seq - 1, 1})).sub_(picked).div_(n);
        at::Tensor grad = at::zeros({rows, seq, layer_.in_features}, at::TensorOptions().dtype(in_.precision.dtype));
        grad.narrow(1, 0, seq - 1).copy_(sum);
        const HeadTreatment treatment = measurement_.head(t);
        if (treatment.activation != nullptr) {
          AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, in_.hidden(t, s));
          if (treatment.measure) scores_[t].activation += SumAbsGradTimesError(grad, x, treatment.activation->Forward(x));
          grad = treatment.activation->Backward(x, grad);
        }
        AUTOSCHEME_RETURN_IF_ERROR(in_.take_gradient(t, s, grad));
      }
    }
    return absl::OkStatus();
  }

  // Second pass: dW of the tile from the logits and the final normalizers, summed over a batch before |.|.
  absl::Status FoldWeight(int64_t first, const TensorView& tile) {
    const int64_t count = tile.info->shape[0];
    const at::Tensor w = Rows(tile);
    for (int t = 0; t < measurement_.trajectories(); ++t) {
      const HeadTreatment treatment = measurement_.head(t);
      if (!treatment.measure || treatment.weight == nullptr) continue;
      const at::Tensor wq = QuantizedTile(t, w);
      at::Tensor dw;
      for (int s = 0; s < slice_count_; ++s) {
        AUTOSCHEME_RETURN_IF_ERROR(context_.CheckCancelled());
        AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, Inputs(t, s));
        Running& r = at(t, s);
        const double predictions = Predictions(s);
        at::Tensor p = Logits(x, wq, first);
        ForEachRowChunk(p, p.size(0), p.size(1), [&](int64_t row, int64_t rows) {
          at::Tensor l = p.narrow(0, row, rows);
          l.sub_(r.maximum.narrow(0, row, rows).unsqueeze(1)).exp_();
          l.div_((r.sum.narrow(0, row, rows) * predictions).unsqueeze(1));
        });
        at::Tensor here = r.labels.ge(first).logical_and_(r.labels.lt(first + count)).nonzero().squeeze(1);
        at::Tensor columns = r.labels.index_select(0, here) - first;
        p.index_put_({here, columns}, at::full({here.size(0)}, -1.0 / predictions, at::kFloat), /*accumulate=*/true);
        const at::Tensor part = Product(in_.meter, Converted(p, in_.precision.operands).t(), Converted(x, in_.precision.operands));
        dw = dw.defined() ? dw.add_(part) : part;
        if (!slices_[s].ends_batch) continue;
        scores_[t].weight += SumAbsGradTimesError(dw, w, wq);
        dw.reset();
      }
    }
    return absl::OkStatus();
  }

  Running& at(int t, int s) { return running_[t * slice_count_ + s]; }
  // Predictions of the batch that a slice is part of: what its losses and gradients are divided by.
  double Predictions(int s) const {
    return static_cast<double>(in_.shape.rows(slices_[s].batch) * (in_.shape.seqlen - 1));
  }

  const Context& context_;
  const HeadInput& in_;
  Measurement& measurement_;
  HeadStats& stats_;
  const LinearLayer& layer_;
  const std::vector<Slice> slices_;
  const int slice_count_;
  bool gradients_ = false, measured_ = false, needs_whole_ = false;
  int forward_only_ = 0;
  int64_t tile_rows_ = 0, steps_done_ = 0;
  std::vector<std::byte> bias_bytes_;
  at::Tensor bias_;
  std::vector<Running> running_;
  std::vector<at::Tensor> prepared_;
  std::vector<LayerScore> scores_;
};

}  // namespace

int HeadPasses(Measurement& measurement) {
  bool measured = false, whole = false;
  for (int t = 0; t < measurement.trajectories(); ++t) {
    const HeadTreatment treatment = measurement.head(t);
    measured = measured || treatment.measure;
    whole = whole || (treatment.weight != nullptr && treatment.weight->needs_whole_tensor());
  }
  return 1 + measured + whole;
}

absl::Status RunHead(const Context& context, const HeadInput& input, Measurement& measurement, HeadStats* stats) {
  at::NoGradGuard no_grad;
  return HeadRun(context, input, measurement, *stats).Run();
}

}  // namespace autoscheme
