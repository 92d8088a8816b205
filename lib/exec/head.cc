#include "exec/head.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random_signs.h"
#include "base/status_macros.h"
#include "exec/candidates.h"
#include "exec/head_tiles.h"
#include "tensor/row_chunks.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {
namespace {

// What one variant carries from tile to tile for one micro-batch of N predictions.
struct Running {
  at::Tensor labels;       // [N] int64
  at::Tensor maximum;      // [N], the largest logit so far
  at::Tensor sum;          // [N], the sum of exp(logit - maximum)
  at::Tensor label_logit;  // [N]
  at::Tensor signed_sum;   // [N], for random gradients: the sum of sign x exp((logit - maximum) / 2)
};

class HeadRun {
 public:
  HeadRun(RunResources& run, const MetaSkeleton& skeleton, const Calibration& calibration, const ExecutionPlan& plan,
          const Scorers& scorers, const HeadInput& input)
      : run_(run),
        plan_(plan),
        scorers_(scorers),
        in_(input),
        layer_(skeleton.head()),
        tiles_(run, skeleton, calibration, plan, scorers.needs(), input),
        variants_(scorers.needs().count()),
        forward_only_(scorers.needs().forward_only()),
        micro_batches_(input.shape.micro_batches()),
        count_(static_cast<int>(micro_batches_.size())),
        losses_(variants_) {}

  absl::StatusOr<std::vector<std::vector<double>>> Run() {
    AUTOSCHEME_RETURN_IF_ERROR(ShowInputs());
    if (forward_only_ == variants_) return losses_;
    AUTOSCHEME_RETURN_IF_ERROR(Prepare());
    if (needs_whole_)
      AUTOSCHEME_RETURN_IF_ERROR(tiles_.ForEach([&](int64_t, const at::Tensor& w) { return PrepareQuantizers(w); }));
    AUTOSCHEME_RETURN_IF_ERROR(
        tiles_.ForEach([&](int64_t first, const at::Tensor& w) { return Accumulate(first, w); }));
    AUTOSCHEME_RETURN_IF_ERROR(Finish());
    if (scored_) {
      AUTOSCHEME_RETURN_IF_ERROR(
          tiles_.ForEach([&](int64_t first, const at::Tensor& w) { return ShowGradients(first, w); }));
    }
    ShowOutputErrors();
    return losses_;
  }

 private:
  absl::Status ShowInputs() {
    for (int v = 0; v < forward_only_; ++v) {
      for (int m = 0; m < count_; ++m) {
        AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, in_.hidden(v, m));
        scorers_.OnForward(v, layer_, x);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Prepare() {
    running_.resize(variants_ * count_);
    prepared_.resize(variants_);
    treatments_.resize(variants_);
    errors_.resize(variants_ * count_);
    int64_t multiple = plan_.head_row_multiple;
    scored_ = plan_.head_shows, needs_whole_ = plan_.head_prepares;
    for (int v = 0; v < variants_; ++v) {
      AUTOSCHEME_ASSIGN_OR_RETURN(treatments_[v], scorers_.Treat(v, layer_));
      AUTOSCHEME_ASSIGN_OR_RETURN(std::vector<Treatment> candidates, scorers_.Candidates(v, layer_));
      candidates_.emplace_back(run_, std::move(candidates));
      scored_ = scored_ || needs(v).scored;
      const WeightQuantizer* quantizer = treatments_[v].weight.get();
      needs_whole_ = needs_whole_ || candidates_[v].needs_whole_tensor() || NeedsPreparing(quantizer);
      // One tile height for all variants.
      multiple = candidates_[v].RowMultiple(CommonRowMultiple(multiple, quantizer));
    }
    AUTOSCHEME_RETURN_IF_ERROR(tiles_.Begin(multiple));
    for (int v = 0; v < variants_; ++v) {
      for (int m = 0; m < count_; ++m) {
        Running& r = at(v, m);
        r.labels = tiles_.Labels(micro_batches_[m]);
        const auto wide = run_.Options(at::kFloat);
        r.maximum = at::full({r.labels.size(0)}, -INFINITY, wide);
        r.sum = at::zeros({r.labels.size(0)}, wide);
        r.label_logit = at::zeros({r.labels.size(0)}, wide);
        if (IsRandom(v)) r.signed_sum = at::zeros({r.labels.size(0)}, wide);
      }
    }
    return absl::OkStatus();
  }

  absl::Status PrepareQuantizers(const at::Tensor& w) {
    for (int v = 0; v < variants_; ++v) {
      if (candidates_[v].needs_whole_tensor()) candidates_[v].PrepareRows(w);
      PrepareRows(treatments_[v].weight.get(), w, prepared_[v]);
    }
    return absl::OkStatus();
  }

  at::Tensor QuantizedTile(int v, const at::Tensor& w) const {
    return tiles_.Quantized(treatments_[v].weight.get(), prepared_[v], w);
  }

  // What a tile's logits become: exp(logit - maximum), for the largest logit so far.
  struct Exponentials {
    at::Tensor maximum, sums;  // [N], the sums being those of the exponentials
    at::Tensor p;              // times slopes, as an operand; in the place of the logits where that is possible
    at::Tensor slopes;         // only where a random gradient asks for them once more
  };
  // The exponentials without slopes take the place of `logits` for a random gradient, else those with them.
  Exponentials Exponentiate(int v, const at::Tensor& maximum_before, at::Tensor& logits) const {
    const bool keeps = IsRandom(v) && tiles_.has_slopes(), wide = run_.operands() == at::kFloat;
    Exponentials e{at::empty_like(maximum_before), at::empty_like(maximum_before), logits, {}};
    if (keeps) e.slopes = NewLike(logits);
    if (keeps || !wide) e.p = NewLike(logits, logits.sizes(), run_.operands());
    ForEachRowChunk(logits, logits.size(0), logits.size(1), [&](int64_t row, int64_t rows) {
      at::Tensor l = logits.narrow(0, row, rows), most = e.maximum.narrow(0, row, rows);
      at::maximum_out(most, maximum_before.narrow(0, row, rows), l.amax(1));
      const at::Tensor slopes = tiles_.has_slopes() ? tiles_.Slopes(l) : at::Tensor();
      l.sub_(most.unsqueeze(1)).exp_();
      e.sums.narrow(0, row, rows).copy_(l.sum(1));
      if (keeps) {
        e.slopes.narrow(0, row, rows).copy_(slopes);
        e.p.narrow(0, row, rows).copy_(l.mul(slopes));
        return;
      }
      if (slopes.defined()) l.mul_(slopes);
      if (!wide) e.p.narrow(0, row, rows).copy_(l);
    });
    return e;
  }

  absl::Status Accumulate(int64_t first, const at::Tensor& w) {
    for (int v = forward_only_; v < variants_; ++v) {
      const at::Tensor wq = QuantizedTile(v, w), operand = Converted(wq, run_.operands());
      for (int m = 0; m < count_; ++m) {
        AUTOSCHEME_RETURN_IF_ERROR(run_.context.CheckCancelled());
        AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, tiles_.Inputs(treatments_[v], v, m));
        Running& r = at(v, m);
        at::Tensor logits = tiles_.Logits(x, wq, first);
        const auto [here, columns] = HeadTiles::Find(r.labels, first, w.size(0));
        const at::Tensor label_logits = logits.index({here, columns});
        r.label_logit.index_copy_(0, here, label_logits);

        Exponentials e = Exponentiate(v, r.maximum, logits);
        at::Tensor rescale = (r.maximum - e.maximum).exp_();
        r.sum.mul_(rescale).add_(e.sums);
        r.maximum = e.maximum;
        if (!IsRandom(v)) logits.reset();
        at::Tensor sum = Converted(Product(run_.products, e.p, operand, run_.gradients()), at::kFloat);
        e.p.reset();
        at::Tensor label_rows = NewLike(x).zero_();
        if (first > 0) {
          AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor before, in_.sums->Get(0, v - forward_only_, m));
          sum.add_(before.view_as(sum).mul_(rescale.unsqueeze(1)));
          AUTOSCHEME_ASSIGN_OR_RETURN(label_rows, in_.label_rows->Get(0, v - forward_only_, m));
          label_rows = label_rows.view_as(x);
        }
        if (IsRandom(v)) {
          const at::Tensor roots = rescale.sqrt_();
          r.signed_sum.mul_(roots).add_(SignRoots(m, first, e.slopes, logits));
          label_rows.mul_(roots.unsqueeze(1));
          label_rows.add_(Product(run_.products, Converted(logits, run_.operands()), operand, run_.gradients()));
        } else {
          at::Tensor rows_here = wq.index_select(0, columns);
          if (tiles_.has_slopes()) rows_here.mul_(tiles_.Slopes(label_logits).unsqueeze(-1));
          label_rows.index_copy_(0, here, rows_here);
        }
        AUTOSCHEME_RETURN_IF_ERROR(in_.sums->Put(0, v - forward_only_, m, sum));
        AUTOSCHEME_RETURN_IF_ERROR(in_.label_rows->Put(0, v - forward_only_, m, label_rows));
      }
    }
    return absl::OkStatus();
  }

  // Losses, and the gradients of what the head took in.
  absl::Status Finish() {
    for (int v = forward_only_; v < variants_; ++v) {
      double loss = 0;  // the batch's so far
      for (int m = 0; m < count_; ++m) {
        Running& r = at(v, m);
        const double n = Predictions(m), divisor = GradientDivisor(v, m);
        loss += (r.maximum + r.sum.log() - r.label_logit).sum(at::kDouble).item<double>() / n;
        if (!std::isfinite(loss)) {
          return absl::DataLossError(absl::StrCat("the loss of batch ", micro_batches_[m].batch, " is ", loss,
                                                  " under ", scorers_.needs().variants[v].name,
                                                  ": activations overflowed or are NaN"));
        }
        if (micro_batches_[m].ends_batch) losses_[v].push_back(std::exchange(loss, 0.0));
        AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor sum, in_.sums->Get(0, v - forward_only_, m));
        AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor label_rows, in_.label_rows->Get(0, v - forward_only_, m));
        const int64_t rows = micro_batches_[m].rows, seq = in_.shape.seqlen;
        if (IsRandom(v)) {
          // With s the signs, sum over ids of (sqrt(p) s - p (sum of sqrt(p) s)) W.
          const at::Tensor roots = r.sum.sqrt();
          sum.mul_((r.signed_sum / roots / r.sum).view({rows, seq - 1, 1}));
          sum.neg_().add_(label_rows.view_as(sum).div_(roots.view({rows, seq - 1, 1})));
        } else {
          sum.div_(r.sum.view({rows, seq - 1, 1})).sub_(label_rows).div_(divisor);
        }
        at::Tensor grad = at::zeros({rows, seq, layer_.in_features}, run_.Options(run_.dtype()));
        grad.narrow(1, 0, seq - 1).copy_(sum);
        if (const ActivationQuantizer* quantizer = treatments_[v].activation.get(); quantizer != nullptr) {
          AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, in_.hidden(v, m));
          if (needs(v).scored) scorers_.OnInputGradient(v, layer_, grad, x, quantizer->Forward(x));
          grad = quantizer->Backward(x, grad);
        }
        AUTOSCHEME_RETURN_IF_ERROR(in_.take_gradient(v, m, grad));
      }
    }
    return absl::OkStatus();
  }

  // `exponentials` of a tile become their square roots times signs and, where there are some, slopes. Gives the sums by
  // token of those without slopes.
  at::Tensor SignRoots(int m, int64_t first, const at::Tensor& slopes, at::Tensor& exponentials) const {
    const at::Tensor sums = at::empty({exponentials.size(0)}, exponentials.options());
    ForEachRowChunk(exponentials, exponentials.size(0), exponentials.size(1), [&](int64_t row, int64_t rows) {
      at::Tensor roots = exponentials.narrow(0, row, rows);
      roots.sqrt_().mul_(Signs(m, row, rows, first, roots));
      sums.narrow(0, row, rows).copy_(roots.sum(1));
      if (slopes.defined()) roots.mul_(slopes.narrow(0, row, rows));
    });
    return sums;
  }

  // Signs of `rows` of the micro-batch's predictions from `row` on, for like.size(1) ids from `first` on. They depend
  // on the token's place in the calibration and on the id alone.
  at::Tensor Signs(int m, int64_t row, int64_t rows, int64_t first, const at::Tensor& like) const {
    at::Tensor signs = at::empty({rows, like.size(1)}, at::kFloat);
    const auto predictions = static_cast<uint64_t>(in_.shape.seqlen - 1);
    const uint64_t first_prediction = static_cast<uint64_t>(in_.first_row + micro_batches_[m].first_row) * predictions;
    for (int64_t i = 0; i < rows; ++i) {
      RandomSigns(first_prediction + static_cast<uint64_t>(row + i), first, like.size(1),
                  signs.mutable_data_ptr<float>() + i * like.size(1));
    }
    return signs.to(like.device());
  }

  // dL/d(X W^T) [N, rows of the tile], from the logits and the final normalizers.
  at::Tensor LogitGradient(int v, int m, const at::Tensor& x, const at::Tensor& wq, int64_t first) {
    Running& r = at(v, m);
    const double divisor = GradientDivisor(v, m);
    at::Tensor p = tiles_.Logits(x, wq, first);
    const at::Tensor slopes = tiles_.has_slopes() ? NewLike(p) : at::Tensor();
    ForEachRowChunk(p, p.size(0), p.size(1), [&](int64_t row, int64_t rows) {
      at::Tensor l = p.narrow(0, row, rows);
      if (tiles_.has_slopes()) slopes.narrow(0, row, rows).copy_(tiles_.Slopes(l));
      l.sub_(r.maximum.narrow(0, row, rows).unsqueeze(1)).exp_();
      l.div_((r.sum.narrow(0, row, rows) * divisor).unsqueeze(1));
      if (!IsRandom(v)) return;
      const at::Tensor signed_sum =
          (r.signed_sum.narrow(0, row, rows) / r.sum.narrow(0, row, rows).sqrt()).unsqueeze(1);
      const at::Tensor roots = l.sqrt().mul_(Signs(m, row, rows, first, l));
      l.mul_(signed_sum).neg_().add_(roots);
    });
    if (IsRandom(v)) return slopes.defined() ? p.mul_(slopes) : p;
    const auto [here, columns] = HeadTiles::Find(r.labels, first, wq.size(0));
    p.index_put_({here, columns}, at::full({here.size(0)}, -1.0 / divisor, p.options()), /*accumulate=*/true);
    return slopes.defined() ? p.mul_(slopes) : p;
  }

  // Second pass: what scorers see of the tile. dW is summed over a batch before it is shown.
  absl::Status ShowGradients(int64_t first, const at::Tensor& w) {
    for (int v = 0; v < variants_; ++v) {
      if (!needs(v).weight_gradient && candidates_[v].empty()) continue;
      const at::Tensor wq = QuantizedTile(v, w);
      at::Tensor dw;
      for (int m = 0; m < count_; ++m) {
        AUTOSCHEME_RETURN_IF_ERROR(run_.context.CheckCancelled());
        AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, tiles_.Inputs(treatments_[v], v, m));
        const at::Tensor p = LogitGradient(v, m, x, wq, first);
        if (!candidates_[v].empty()) AUTOSCHEME_RETURN_IF_ERROR(AddOutputErrors(v, m, w, p));
        if (!needs(v).weight_gradient) continue;
        const at::Tensor part =
            Product(run_.products, Converted(p, run_.operands()).t(), Converted(x, run_.operands()), run_.gradients());
        dw = dw.defined() ? dw.add_(part) : part;
        if (!micro_batches_[m].ends_batch) continue;
        scorers_.OnWeightGradient(v, layer_, dw, w, wq);
        dw.reset();
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddOutputErrors(int v, int m, const at::Tensor& w, const at::Tensor& grad) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const at::Tensor x, in_.hidden(v, m));
    const Candidates::Inputs inputs = candidates_[v].Quantize(x, in_.shape.seqlen - 1);
    at::Tensor& errors = errors_[v * count_ + m];
    if (!errors.defined()) errors = candidates_[v].NewErrors(inputs);
    candidates_[v].Add(inputs, w, grad, errors);
    return absl::OkStatus();
  }

  void ShowOutputErrors() {
    for (int v = 0; v < variants_; ++v) {
      for (int m = 0; m < count_ && !candidates_[v].empty(); ++m) {
        const at::Tensor predicting = errors_[v * count_ + m].view({-1, micro_batches_[m].rows, in_.shape.seqlen - 1});
        scorers_.OnOutputErrors(v, layer_, at::constant_pad_nd(predicting, {0, 1}));
      }
    }
  }

  Running& at(int v, int m) { return running_[v * count_ + m]; }
  const LinearNeeds& needs(int v) const { return scorers_.needs().variants[v].linears[layer_.index]; }
  // Predictions of the batch that a micro-batch is part of: what its losses and gradients are divided by.
  double Predictions(int m) const {
    return static_cast<double>(in_.shape.rows(micro_batches_[m].batch) * (in_.shape.seqlen - 1));
  }

  Gradient gradient(int v) const { return scorers_.needs().variants[v].gradient; }
  bool IsRandom(int v) const { return gradient(v) == Gradient::kRandom; }
  double GradientDivisor(int v, int m) const { return gradient(v) == Gradient::kMeanLoss ? Predictions(m) : 1; }

  RunResources& run_;
  const ExecutionPlan& plan_;
  const Scorers& scorers_;
  const HeadInput& in_;
  const LinearLayer& layer_;
  HeadTiles tiles_;
  const int variants_, forward_only_;
  const std::vector<MicroBatch> micro_batches_;
  const int count_;  // micro-batches
  bool scored_ = false, needs_whole_ = false;
  std::vector<Running> running_;
  std::vector<at::Tensor> prepared_;
  std::vector<Treatment> treatments_;  // by variant
  std::vector<Candidates> candidates_;
  std::vector<at::Tensor> errors_;  // by variant and micro-batch: what candidates would change
  std::vector<std::vector<double>> losses_;
};

}  // namespace

absl::StatusOr<std::vector<std::vector<double>>> RunHead(RunResources& run, const MetaSkeleton& skeleton,
                                                         const Calibration& calibration, const ExecutionPlan& plan,
                                                         const Scorers& scorers, const HeadInput& input) {
  at::NoGradGuard no_grad;
  return HeadRun(run, skeleton, calibration, plan, scorers, input).Run();
}

}  // namespace autoscheme
