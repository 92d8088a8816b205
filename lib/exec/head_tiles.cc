#include "exec/head_tiles.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "exec/weight_stream.h"
#include "exec/weights.h"
#include "model/decoder_spec.h"
#include "plan/reads.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {

HeadTiles::HeadTiles(RunResources& run, const MetaSkeleton& skeleton, const Calibration& calibration,
                     const ExecutionPlan& plan, const ScorerNeeds& needs, const HeadInput& input)
    : run_(run),
      skeleton_(skeleton),
      calibration_(calibration),
      plan_(plan),
      needs_(needs),
      in_(input),
      layer_(skeleton.head()),
      multiplier_(skeleton.spec().output.multiplier),
      softcap_(skeleton.spec().output.softcap) {}

absl::Status HeadTiles::Begin(int64_t row_multiple) {
  const int64_t step = row_multiple == 0 ? layer_.out_features : row_multiple;
  tile_rows_ = std::max(plan_.head_tile_rows / step * step, step);
  if (layer_.bias == nullptr) return absl::OkStatus();
  bias_bytes_.resize(layer_.bias->bytes);
  AUTOSCHEME_RETURN_IF_ERROR(skeleton_.checkpoint().Read(*layer_.bias, 0, absl::MakeSpan(bias_bytes_)));
  bias_ = LoadTensor({layer_.bias, bias_bytes_.data()}, run_.dtype()).to(run_.device.torch);
  return absl::OkStatus();
}

absl::Status HeadTiles::ForEach(const Body& body) {
  const int64_t rows = layer_.out_features, tiles = (rows + tile_rows_ - 1) / tile_rows_;
  std::vector<WeightStream::Step> order;
  for (int64_t first = 0; first < rows; first += tile_rows_) {
    order.push_back({{{layer_.weight, first, std::min(tile_rows_, rows - first)}}, /*check_finite=*/true});
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(
      std::unique_ptr<WeightStream> stream,
      WeightStream::Create(run_, skeleton_.checkpoint(), std::move(order), {plan_.unit_slots, true}));
  for (int64_t i = 0; i < tiles; ++i) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const WeightStream::Arrived arrived, stream->Next());
    const TensorView& tile = arrived.tensors[0];
    at::Tensor w = StoredRows(tile.data, tile.info->dtype, tile.info->shape[0], layer_.in_features, run_.device.torch);
    if (w.scalar_type() != run_.dtype()) w = NewTensor(&run_.activations, w.sizes(), run_.dtype()).copy_(w);
    AUTOSCHEME_RETURN_IF_ERROR(body(arrived.ranges[0].first_row, w));
    if (in_.step) AUTOSCHEME_RETURN_IF_ERROR(in_.step(++steps_done_, tiles * HeadPasses(skeleton_, plan_, needs_)));
  }
  run_.stats.read_bytes += stream->stats().bytes_read;
  run_.stats.stall_s += stream->stats().stall_s;
  return absl::OkStatus();
}

at::Tensor HeadTiles::Quantized(const WeightQuantizer* quantizer, const at::Tensor& prepared,
                                const at::Tensor& w) const {
  if (quantizer == nullptr) return w;
  if (w.scalar_type() != at::kFloat) return quantizer->Forward(w, prepared);
  at::Tensor wq = NewTensor(&run_.activations, w.sizes(), at::kFloat);
  quantizer->ForwardInto(w, prepared, wq);
  return wq;
}

absl::StatusOr<at::Tensor> HeadTiles::Inputs(const Treatment& treatment, int variant, int m) const {
  AUTOSCHEME_ASSIGN_OR_RETURN(at::Tensor x, in_.hidden(variant, m));
  if (treatment.activation != nullptr) x = treatment.activation->Forward(x);
  const at::Tensor predicting = x.narrow(1, 0, in_.shape.seqlen - 1);
  return NewLike(x, predicting.sizes(), x.scalar_type()).copy_(predicting).view({-1, layer_.in_features});
}

at::Tensor HeadTiles::Logits(const at::Tensor& x, const at::Tensor& wq, int64_t first) const {
  at::Tensor logits = Product(run_.products, x, wq.t());
  if (bias_.defined()) logits.add_(bias_.narrow(0, first, wq.size(0)));
  at::Tensor wide = Converted(logits, at::kFloat);
  if (multiplier_ != 1) wide.mul_(multiplier_);
  return softcap_ > 0 ? wide.div_(softcap_).tanh_().mul_(softcap_) : wide;
}

at::Tensor HeadTiles::Slopes(const at::Tensor& logits) const {
  if (softcap_ <= 0) return at::full({1}, multiplier_, logits.options());
  return logits.div(softcap_).square_().neg_().add_(1).mul_(multiplier_);
}

at::Tensor HeadTiles::Labels(const MicroBatch& rows) const {
  const int64_t seq = in_.shape.seqlen;
  at::Tensor labels = at::empty({rows.rows * (seq - 1)}, at::kLong);
  auto* out = labels.data_ptr<int64_t>();
  for (int64_t r = 0; r < rows.rows; ++r) {
    const int32_t* ids = calibration_.ids.data() + (rows.first_row + r) * seq;
    out = std::copy(ids + 1, ids + seq, out);
  }
  return labels.to(run_.device.torch);
}

HeadTiles::LabelsHere HeadTiles::Find(const at::Tensor& labels, int64_t first, int64_t count) {
  LabelsHere here;
  here.predictions = labels.ge(first).logical_and_(labels.lt(first + count)).nonzero().squeeze(1);
  here.columns = labels.index_select(0, here.predictions) - first;
  return here;
}

}  // namespace autoscheme
