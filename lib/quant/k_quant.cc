// k-quants without an importance matrix: groups whose scales and minima are quantized in turn, per super-group
// (docs/algorithm.md 4.7). One row of x is one group; SuperGroup::groups of them in a row share the factors.
#include "quant/k_quant.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include "quant/codec.h"
#include "quant/rounding.h"

namespace autoscheme {

cpu::KFormat KFormatOf(const DataType& type, at::ScalarType dtype) {
  const SuperGroup& super = type.super;
  return {type.bits[0], type.groups[0], super.groups, super.bits, super.sym, dtype == at::kBFloat16};
}

at::Tensor QuantizeScales(const at::Tensor& t, int bits) {
  const double top = (1 << bits) - 1;
  const at::Tensor peak = t.amax(1, true).clamp_min_(0);
  const at::Tensor inverse = ReciprocalOrZeroBelowEps(peak).mul_(top).clamp_min_(0);
  return t.mul(inverse).round_().clamp_max_(top).mul_(peak.div(Divisor(top, peak)));
}

at::Tensor QuantizeSignedScales(const at::Tensor& t, int bits) {
  const double half = 1 << (bits - 1);
  const at::Tensor factor = t.gather(1, FirstArgAmax(t)).div_(-half);
  return t.mul(ReciprocalOrZeroBelowEps(factor)).round_().clamp_(-half, half - 1).mul_(factor);
}

at::Tensor WithoutOverflow(const at::Tensor& w, const std::function<at::Tensor(const at::Tensor&)>& quantize) {
  const at::Tensor y = quantize(w), finite = y.isfinite();
  if (finite.all().item<bool>()) return y;
  const float shrink = std::ldexp(1.0f, -100);
  const float top = std::numeric_limits<float>::max();
  return at::where(finite, y, quantize(w * shrink).div_(shrink).clamp_(-top, top));
}

namespace {

constexpr double kThreshold = 1e-8;  // for float32 scales (docs/algorithm.md 4.7)

class KQuantCodec : public GroupCodec {
 public:
  explicit KQuantCodec(const DataType& type) : type_(type), layout_(KFormatOf(type, at::kFloat)) {}

  std::optional<cpu::KFormat> FusedKQuant(at::ScalarType dtype) const override { return KFormatOf(type_, dtype); }

  at::Tensor Forward(const at::Tensor& x, const at::Tensor&) const override {
    const auto quantize = [&](const at::Tensor& w) {
      return layout_.sym ? QuantizeSym(w) : QuantizeAsym(w, x.scalar_type());
    };
    return WithoutOverflow(x.to(at::kFloat), quantize).to(x.scalar_type());
  }

  at::Tensor Backward(const at::Tensor&, const at::Tensor&, const at::Tensor& grad) const override { return grad; }

 private:
  // The ranges are formed in the weight's dtype.
  at::Tensor QuantizeAsym(const at::Tensor& w, at::ScalarType dtype) const {
    const int top = (1 << layout_.bits) - 1;
    const at::Tensor lo = w.amin(1, true).clamp_max_(0).to(dtype);
    const at::Tensor hi = w.amax(1, true).clamp_min_(0).to(dtype);
    const at::Tensor range = (hi - lo).div_(Divisor(top, lo)).to(at::kFloat).clamp_min_(kThreshold);
    const at::Tensor scale =
        QuantizeScales(range.reshape({-1, layout_.groups}), layout_.scale_bits).clamp_min_(kThreshold).reshape({-1, 1});
    const at::Tensor minimum =
        QuantizeScales(lo.neg().to(at::kFloat).reshape({-1, layout_.groups}), layout_.scale_bits).reshape({-1, 1});
    at::Tensor q = (w + minimum).div_(scale).round_().clamp_(0, top);
    return q.mul_(scale).sub_(minimum);
  }

  at::Tensor QuantizeSym(const at::Tensor& w) const {
    const int half = 1 << (layout_.bits - 1);
    const at::Tensor a = w.amin(1, true).clamp_max_(0).neg_(), b = w.amax(1, true).clamp_min_(0);
    const at::Tensor signed_peak = at::where(b.lt(a), a, b.neg());
    const at::Tensor scale =
        QuantizeSignedScales(signed_peak.div(half).reshape({-1, layout_.groups}), layout_.scale_bits).reshape({-1, 1});
    at::Tensor q = w.mul(ReciprocalOrZeroBelowEps(scale)).round_().clamp_(-half, half - 1);
    return q.mul_(scale);
  }

  const DataType& type_;
  const cpu::KFormat layout_;
};

}  // namespace

std::unique_ptr<GroupCodec> MakeKQuantCodec(const DataType& type) { return std::make_unique<KQuantCodec>(type); }

}  // namespace autoscheme
