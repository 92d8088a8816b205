#include "exec/eval_head.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "exec/head_tiles.h"
#include "nn/fused.h"
#include "nn/row_kernels.h"
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
        plan_(plan),
        scorers_(scorers),
        in_(input),
        layer_(skeleton.head()),
        tiles_(run, skeleton, calibration, plan, scorers.needs(), input),
        variants_(scorers.needs().count()),
        micro_batches_(input.shape.micro_batches()),
        count_(static_cast<int>(micro_batches_.size())) {}

  absl::Status Run() {
    AUTOSCHEME_RETURN_IF_ERROR(Prepare());
    if (needs_whole_) {
      AUTOSCHEME_RETURN_IF_ERROR(tiles_.ForEach([&](int64_t, const at::Tensor& w) { return PrepareQuantizers(w); }));
    }
    AUTOSCHEME_RETURN_IF_ERROR(
        tiles_.ForEach([&](int64_t first, const at::Tensor& w) { return Accumulate(first, w); }));
    return Finish();
  }

 private:
  absl::Status Prepare() {
    int64_t multiple = plan_.head_row_multiple;
    for (int v = 0; v < variants_; ++v) {
      AUTOSCHEME_ASSIGN_OR_RETURN(const Treatment treatment, scorers_.Treat(v, layer_));
      treatments_.push_back(treatment);
      needs_whole_ = needs_whole_ || NeedsPreparing(treatment.weight.get());
      // One tile height for all variants.
      multiple = CommonRowMultiple(multiple, treatment.weight.get());
    }
    AUTOSCHEME_RETURN_IF_ERROR(tiles_.Begin(multiple));
    for (const MicroBatch& rows : micro_batches_) labels_.push_back(tiles_.Labels(rows));
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

  absl::Status PrepareQuantizers(const at::Tensor& w) {
    for (const auto& [quantizer, form] : ByQuantizer(w)) PrepareRows(quantizer, w, prepared_[quantizer]);
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
    for (auto& [quantizer, form] : forms) form = tiles_.Quantized(quantizer, prepared_[quantizer], w);
    return forms;
  }

  absl::Status Accumulate(int64_t first, const at::Tensor& w) {
    const auto forms = QuantizedTiles(w);
    for (int m = 0; m < count_; ++m) {
      Reference reference;
      for (int v = 0; v < variants_; ++v) {
        AUTOSCHEME_RETURN_IF_ERROR(run_.context.CheckCancelled());
        AUTOSCHEME_ASSIGN_OR_RETURN(const at::Tensor x, tiles_.Inputs(treatments_[v], v, m));
        at::Tensor logits = tiles_.Logits(x, forms.at(treatments_[v].weight.get()), first);
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
    const auto [here, columns] = HeadTiles::Find(labels, first, logits.size(1));
    r.label_logit.index_copy_(0, here, logits.index({here, columns}).to(at::kDouble));
  }

  Reference FoldReference(Running& r, at::Tensor logits, int64_t first) {
    Reference reference{std::move(logits), {}, at::empty_like(r.sum)};
    const at::Tensor& l = reference.logits;
    reference.weights = NewTensor(&run_.activations, l.sizes(), at::kDouble);
    ForEachRowChunk(l, l.size(0), l.size(1), [&](int64_t row, int64_t rows) {
      if (InOnePass(l)) return AddLogits(r, reference, nullptr, first, row, rows);
      at::Tensor chunk = reference.weights.narrow(0, row, rows);
      chunk.copy_(l.narrow(0, row, rows));
      Raise(r, chunk, first, reference.rescale, row, rows);
    });
    return reference;
  }

  static void Fold(Running& r, const Reference& reference, const at::Tensor& logits, int64_t first) {
    const bool in_one_pass = InOnePass(logits);
    at::Tensor rescale = in_one_pass ? at::Tensor() : at::empty_like(r.sum);
    ForEachRowChunk(logits, logits.size(0), logits.size(1), [&](int64_t row, int64_t rows) {
      if (in_one_pass) return AddLogits(r, reference, &logits, first, row, rows);
      at::Tensor chunk = logits.narrow(0, row, rows).to(at::kDouble);
      const at::Tensor apart = reference.logits.narrow(0, row, rows).to(at::kDouble).sub_(chunk);
      apart.mul_(reference.weights.narrow(0, row, rows));
      r.difference.narrow(0, row, rows).mul_(reference.rescale.narrow(0, row, rows)).add_(apart.sum(1));
      Raise(r, chunk, first, rescale, row, rows);
    });
  }

  static bool InOnePass(const at::Tensor& logits) { return OnHost(logits) && logits.is_contiguous(); }

  // Where the row kernels take them: one chunk of variant 0's predictions, or of another's `logits`, in one pass.
  static void AddLogits(Running& r, const Reference& reference, const at::Tensor* logits, int64_t first, int64_t row,
                        int64_t rows) {
    const int64_t width = reference.logits.size(1), start = row * width;
    const float* const full = Data<float>(reference.logits) + start;
    cpu::LogitRows chunk = {};
    chunk.rows = rows, chunk.width = width, chunk.first_id = first;
    chunk.logits = logits == nullptr ? full : Data<float>(*logits) + start;
    chunk.maximum = Data<double>(r.maximum) + row, chunk.best = Data<int64_t>(r.best) + row;
    chunk.sum = Data<double>(r.sum) + row;
    chunk.weights = Data<double>(reference.weights) + start, chunk.rescale = Data<double>(reference.rescale) + row;
    if (logits != nullptr) chunk.reference = full, chunk.difference = Data<double>(r.difference) + row;
    cpu::BestRowKernels().add_logits(chunk);
  }

  // Elsewhere, one chunk: `logits`, float64, become exp(logit - maximum); what was summed before is rescaled by
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
  const ExecutionPlan& plan_;
  const Scorers& scorers_;
  const HeadInput& in_;
  const LinearLayer& layer_;
  HeadTiles tiles_;
  const int variants_;
  const std::vector<MicroBatch> micro_batches_;
  const int count_;  // micro-batches
  bool needs_whole_ = false;
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
