#include "exec/eval_head.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "exec/weight_stream.h"
#include "exec/weights.h"
#include "model/decoder_spec.h"
#include "plan/reads.h"
#include "tensor/row_chunks.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {
namespace {

// What one variant carries from tile to tile for the N predictions of one micro-batch; float64 but for `best`.
struct Running {
  at::Tensor maximum;      // [N], the largest logit so far
  at::Tensor best;         // [N] int64, whose it is
  at::Tensor sum;          // [N], the sum of exp(logit - maximum)
  at::Tensor label_logit;  // [N]
  at::Tensor difference;   // [N], the sum of exp(a - maximum of a) (a - logit), a being variant 0's logit

  at::Tensor LogSumExp() const { return maximum + sum.log(); }
};

// Variant 0's part of a tile.
struct Reference {
  at::Tensor logits;   // [N, rows of the tile]
  at::Tensor weights;  // float64, exp(logit - maximum)
  at::Tensor rescale;  // [N], what sums up to the tile are to be multiplied by
};

class EvalHead {
 public:
  EvalHead(RunResources& run, const MetaSkeleton& skeleton, const Calibration& calibration, const ExecutionPlan& plan,
           const Scorers& scorers, const HeadInput& input)
      : run_(run),
        skeleton_(skeleton),
        calibration_(calibration),
        plan_(plan),
        scorers_(scorers),
        in_(input),
        layer_(skeleton.head()),
        multiplier_(skeleton.spec().output.multiplier),
        softcap_(skeleton.spec().output.softcap),
        variants_(scorers.needs().count()),
        micro_batches_(input.shape.micro_batches()),
        count_(static_cast<int>(micro_batches_.size())) {}

  absl::Status Run() {
    AUTOSCHEME_RETURN_IF_ERROR(Prepare());
    if (needs_whole_) {
      AUTOSCHEME_RETURN_IF_ERROR(ForEachTile([&](int64_t, const TensorView& tile) { return PrepareQuantizers(tile); }));
    }
    AUTOSCHEME_RETURN_IF_ERROR(
        ForEachTile([&](int64_t first, const TensorView& tile) { return Accumulate(first, tile); }));
    return Finish();
  }

 private:
  using TileBody = std::function<absl::Status(int64_t first, const TensorView& tile)>;

  absl::Status Prepare() {
    int64_t step = 1;
    for (int v = 0; v < variants_; ++v) {
      AUTOSCHEME_ASSIGN_OR_RETURN(const Treatment treatment, scorers_.Treat(v, layer_));
      treatments_.push_back(treatment);
      const WeightQuantizer* quantizer = treatment.weight.get();
      if (quantizer == nullptr) continue;
      needs_whole_ = needs_whole_ || quantizer->needs_whole_tensor();
      // One tile height for all variants: a common multiple of what their quantizers ask for; 0 = the whole head.
      const int64_t multiple = quantizer->row_multiple();
      step = multiple == 0 || step == 0 ? 0 : std::lcm(step, multiple);
    }
    tile_rows_ = step == 0 ? layer_.out_features : std::max(plan_.head_tile_rows / step * step, step);
    if (layer_.bias != nullptr) {
      bias_bytes_.resize(layer_.bias->bytes);
      AUTOSCHEME_RETURN_IF_ERROR(skeleton_.checkpoint().Read(*layer_.bias, 0, absl::MakeSpan(bias_bytes_)));
      bias_ = LoadTensor({layer_.bias, bias_bytes_.data()}, run_.dtype()).to(run_.device.torch);
    }
    for (int m = 0; m < count_; ++m) labels_.push_back(Labels(micro_batches_[m]).to(run_.device.torch));
    const auto wide = run_.Options(at::kDouble);
    for (int v = 0; v < variants_; ++v) {
      for (int m = 0; m < count_; ++m) {
        const at::IntArrayRef n = labels_[m].sizes();
        running_.push_back({at::full(n, -INFINITY, wide), at::zeros(n, run_.Options(at::kLong)), at::zeros(n, wide),
                            at::zeros(n, wide), at::zeros(n, wide)});
      }
    }
    return absl::OkStatus();
  }

  // The ids that follow each token of the rows but the last.
  at::Tensor Labels(const MicroBatch& rows) const {
    const int64_t seq = in_.shape.seqlen;
    at::Tensor labels = at::empty({rows.rows * (seq - 1)}, at::kLong);
    auto* out = labels.data_ptr<int64_t>();
    for (int64_t r = 0; r < rows.rows; ++r) {
      const int32_t* ids = calibration_.ids.data() + (rows.first_row + r) * seq;
      out = std::copy(ids + 1, ids + seq, out);
    }
    return labels;
  }

  absl::Status ForEachTile(const TileBody& body) {
    const int64_t rows = layer_.out_features, tiles = (rows + tile_rows_ - 1) / tile_rows_;
    std::vector<WeightStream::Step> order;
    for (int64_t first = 0; first < rows; first += tile_rows_) {
      order.push_back({{{layer_.weight, first, std::min(tile_rows_, rows - first)}}, /*check_finite=*/true});
    }
    AUTOSCHEME_ASSIGN_OR_RETURN(
        std::unique_ptr<WeightStream> stream,
        WeightStream::Create(run_, skeleton_.checkpoint(), std::move(order), {plan_.unit_slots, true}));
    for (int64_t i = 0; i < tiles; ++i) {
      AUTOSCHEME_ASSIGN_OR_RETURN(const WeightStream::Arrived tile, stream->Next());
      AUTOSCHEME_RETURN_IF_ERROR(body(tile.ranges[0].first_row, tile.tensors[0]));
      if (in_.step)
        AUTOSCHEME_RETURN_IF_ERROR(in_.step(++steps_done_, tiles * HeadPasses(skeleton_, plan_, scorers_.needs())));
    }
    run_.stats.read_bytes += stream->stats().bytes_read;
    run_.stats.stall_s += stream->stats().stall_s;
    return absl::OkStatus();
  }

  at::Tensor Rows(const TensorView& tile) const {
    const at::Tensor stored =
        StoredRows(tile.data, tile.info->dtype, tile.info->shape[0], layer_.in_features, run_.device.torch);
    return stored.scalar_type() == run_.dtype()
               ? stored
               : NewTensor(&run_.activations, stored.sizes(), run_.dtype()).copy_(stored);
  }

  absl::Status PrepareQuantizers(const TensorView& tile) {
    const at::Tensor w = Rows(tile);
    for (const auto& [quantizer, forms] : ByQuantizer(w)) {
      if (quantizer == nullptr || !quantizer->needs_whole_tensor()) continue;
      const at::Tensor part = quantizer->Prepare(w);
      at::Tensor& prepared = prepared_[quantizer];
      prepared = prepared.defined() ? at::maximum(prepared, part) : part;
    }
    return absl::OkStatus();
  }

  // The quantizers of all variants, each once, with a place for what they make of a tile.
  std::map<const WeightQuantizer*, at::Tensor> ByQuantizer(const at::Tensor& w) const {
    std::map<const WeightQuantizer*, at::Tensor> forms;
    for (const Treatment& treatment : treatments_) forms[treatment.weight.get()] = w;
    return forms;
  }

  // The tile under every quantizer of the variants.
  std::map<const WeightQuantizer*, at::Tensor> QuantizedTiles(const at::Tensor& w) {
    std::map<const WeightQuantizer*, at::Tensor> forms = ByQuantizer(w);
    for (auto& [quantizer, form] : forms) {
      if (quantizer == nullptr) continue;
      if (w.scalar_type() != at::kFloat) {
        form = quantizer->Forward(w, prepared_[quantizer]);
        continue;
      }
      form = NewTensor(&run_.activations, w.sizes(), at::kFloat);
      quantizer->ForwardInto(w, prepared_[quantizer], form);
    }
    return forms;
  }

  // Logits of a tile, [N, rows of the tile] float32; hidden states are quantized as the variant asks.
  absl::StatusOr<at::Tensor> Logits(int v, int m, const at::Tensor& weight, int64_t first) {
    AUTOSCHEME_RETURN_IF_ERROR(run_.context.CheckCancelled());
    AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, in_.hidden(v, m));
    if (treatments_[v].activation != nullptr) x = treatments_[v].activation->Forward(x);
    const at::Tensor predicting = x.narrow(1, 0, in_.shape.seqlen - 1);
    x = NewLike(x, predicting.sizes(), x.scalar_type()).copy_(predicting).view({-1, layer_.in_features});
    at::Tensor logits = Product(run_.products, x, weight.t());
    if (bias_.defined()) logits.add_(bias_.narrow(0, first, weight.size(0)));
    at::Tensor wide = Converted(logits, at::kFloat);
    if (multiplier_ != 1) wide.mul_(multiplier_);
    return softcap_ > 0 ? wide.div_(softcap_).tanh_().mul_(softcap_) : wide;
  }

  absl::Status Accumulate(int64_t first, const TensorView& tile) {
    const auto forms = QuantizedTiles(Rows(tile));
    for (int m = 0; m < count_; ++m) {
      Reference reference;
      for (int v = 0; v < variants_; ++v) {
        AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor logits, Logits(v, m, forms.at(treatments_[v].weight.get()), first));
        TakeLabels(at(v, m), labels_[m], logits, first);
        if (v == 0) {
          reference = FoldReference(at(0, m), std::move(logits), first);
        } else {
          Fold(at(v, m), reference, logits, first);
        }
      }
    }
    return absl::OkStatus();
  }

  // The logits of those labels that lie in the tile.
  static void TakeLabels(Running& r, const at::Tensor& labels, const at::Tensor& logits, int64_t first) {
    const at::Tensor here = labels.ge(first).logical_and_(labels.lt(first + logits.size(1))).nonzero().squeeze(1);
    const at::Tensor columns = labels.index_select(0, here) - first;
    r.label_logit.index_copy_(0, here, logits.index({here, columns}).to(at::kDouble));
  }

  // One chunk of predictions: `logits`, float64, become exp(logit - maximum); what was summed before is rescaled by
  // what `rescale` then holds.
  static void Raise(Running& r, at::Tensor& logits, int64_t first, at::Tensor& rescale, int64_t row, int64_t rows) {
    at::Tensor maximum = r.maximum.narrow(0, row, rows), best = r.best.narrow(0, row, rows),
               sum = r.sum.narrow(0, row, rows), scale = rescale.narrow(0, row, rows);
    const auto [most, place] = logits.max(1);
    const at::Tensor raised = at::maximum(maximum, most);
    best.copy_(at::where(most.gt(maximum), place + first, best));
    scale.copy_(maximum.sub(raised).exp_());
    maximum.copy_(raised);
    logits.sub_(raised.unsqueeze(1)).exp_();
    sum.mul_(scale).add_(logits.sum(1));
  }

  Reference FoldReference(Running& r, at::Tensor logits, int64_t first) {
    Reference reference{std::move(logits), {}, at::empty_like(r.sum)};
    const at::Tensor& l = reference.logits;
    reference.weights = NewTensor(&run_.activations, l.sizes(), at::kDouble);
    ForEachRowChunk(l, l.size(0), l.size(1), [&](int64_t row, int64_t rows) {
      at::Tensor chunk = reference.weights.narrow(0, row, rows);
      chunk.copy_(l.narrow(0, row, rows));
      Raise(r, chunk, first, reference.rescale, row, rows);
    });
    return reference;
  }

  static void Fold(Running& r, const Reference& reference, const at::Tensor& logits, int64_t first) {
    at::Tensor rescale = at::empty_like(r.sum);
    ForEachRowChunk(logits, logits.size(0), logits.size(1), [&](int64_t row, int64_t rows) {
      at::Tensor chunk = logits.narrow(0, row, rows).to(at::kDouble);
      const at::Tensor apart = reference.logits.narrow(0, row, rows).to(at::kDouble).sub_(chunk);
      apart.mul_(reference.weights.narrow(0, row, rows));
      r.difference.narrow(0, row, rows).mul_(reference.rescale.narrow(0, row, rows)).add_(apart.sum(1));
      Raise(r, chunk, first, rescale, row, rows);
    });
  }

  absl::Status Finish() {
    for (int m = 0; m < count_; ++m) {
      const std::vector<int64_t> shape = {micro_batches_[m].rows, in_.shape.seqlen - 1};
      const Running& full = at(0, m);
      const at::Tensor full_lse = full.LogSumExp();
      for (int v = 0; v < variants_; ++v) {
        const Running& r = at(v, m);
        const at::Tensor lse = r.LogSumExp();
        const at::Tensor kl = v == 0 ? at::zeros_like(lse) : r.difference / full.sum - full_lse + lse;
        const at::Tensor cross_entropy = lse - r.label_logit;
        AUTOSCHEME_RETURN_IF_ERROR(CheckFinite(v, m, kl + cross_entropy));
        scorers_.OnPredictions(v, micro_batches_[m],
                               {kl.view(shape), cross_entropy.view(shape), r.best.eq(full.best).view(shape)});
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckFinite(int v, int m, const at::Tensor& of_tokens) const {
    const at::Tensor bad = of_tokens.isfinite().logical_not_().nonzero();
    if (bad.size(0) == 0) return absl::OkStatus();
    const int64_t token = bad[0][0].item<int64_t>(), positions = in_.shape.seqlen - 1;
    return absl::DataLossError(absl::StrCat("the logits of row ", micro_batches_[m].first_row + token / positions,
                                            ", position ", token % positions, " are NaN or infinite under ",
                                            scorers_.needs().variants[v].name, ": activations overflowed or are NaN"));
  }

  Running& at(int v, int m) { return running_[v * count_ + m]; }

  RunResources& run_;
  const MetaSkeleton& skeleton_;
  const Calibration& calibration_;
  const ExecutionPlan& plan_;
  const Scorers& scorers_;
  const HeadInput& in_;
  const LinearLayer& layer_;
  const double multiplier_, softcap_;
  const int variants_;
  const std::vector<MicroBatch> micro_batches_;
  const int count_;  // micro-batches
  bool needs_whole_ = false;
  int64_t tile_rows_ = 0, steps_done_ = 0;
  std::vector<std::byte> bias_bytes_;
  at::Tensor bias_;
  std::vector<at::Tensor> labels_;     // [N] int64, by micro-batch
  std::vector<Running> running_;       // by variant and micro-batch
  std::vector<Treatment> treatments_;  // by variant
  std::map<const WeightQuantizer*, at::Tensor> prepared_;
};

}  // namespace

absl::Status RunEvalHead(RunResources& run, const MetaSkeleton& skeleton, const Calibration& calibration,
                         const ExecutionPlan& plan, const Scorers& scorers, const HeadInput& input) {
  at::NoGradGuard no_grad;
  return EvalHead(run, skeleton, calibration, plan, scorers, input).Run();
}

}  // namespace autoscheme
