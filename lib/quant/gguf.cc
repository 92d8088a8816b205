// The K types without an imatrix: groups whose scales and minima are quantized in turn, per super-group
// (docs/algorithm.md 4.7). One row of x is one group; `super_groups` of them in a row share the factors.
#include "quant/gguf.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include "quant/codec.h"
#include "quant/rounding.h"

namespace autoscheme {

KLayout KLayoutOf(int bits) {
  if (bits == 4 || bits == 5) return {bits, 32, 8, 6, false};
  if (bits == 2) return {bits, 16, 16, 4, false};
  return {bits, 16, 16, bits == 3 ? 6 : 8, true};
}

at::Tensor QuantizeScales(const at::Tensor& t, int bits) {
  const double top = (1 << bits) - 1;
  const at::Tensor peak = t.amax(1, true).clamp_min_(0);
  const at::Tensor inverse = ReciprocalOrZeroBelowEps(peak).mul_(top).clamp_min_(0);
  return t.mul(inverse).round_().clamp_max_(top).mul_(peak.div(top));
}

at::Tensor QuantizeSignedScales(const at::Tensor& t, int bits) {
  const double half = 1 << (bits - 1);
  const at::Tensor factor = t.gather(1, FirstArgAbsMax(t)).div_(-half);
  return t.mul(ReciprocalOrZeroBelowEps(factor)).round_().clamp_(-half, half - 1).mul_(factor);
}

at::Tensor WithoutOverflow(const at::Tensor& w, const std::function<at::Tensor(const at::Tensor&)>& quantize) {
  const at::Tensor y = quantize(w), finite = y.isfinite();
  if (finite.all().item<bool>()) return y;
  const float shrink = std::ldexp(1.0f, -100);
  const float top = std::numeric_limits<float>::max();
  return at::where(finite, y, quantize(w * shrink).div_(shrink).clamp_(-top, top));
}

cpu::KFormat FusedKFormat(const KLayout& layout, at::ScalarType dtype) {
  return {layout.bits, layout.group, layout.groups, layout.scale_bits, layout.sym, dtype == at::kBFloat16};
}

namespace {

constexpr double kThreshold = 1e-8;  // of float32 scales (docs/algorithm.md 4.7)

class KAsymCodec : public GroupCodec {
 public:
  explicit KAsymCodec(const KLayout& layout) : layout_(layout) {}
  int64_t group_multiple() const override { return layout_.groups; }
  std::optional<cpu::KFormat> FusedKType(at::ScalarType dtype) const override {
    return FusedKFormat(layout_, dtype);
  }

  at::Tensor Forward(const at::Tensor& x, const at::Tensor&) const override {
    return WithoutOverflow(x.to(at::kFloat), [&](const at::Tensor& w) { return Quantize(w, x.scalar_type()); })
        .to(x.scalar_type());
  }

  at::Tensor Backward(const at::Tensor&, const at::Tensor&, const at::Tensor& grad) const override { return grad; }

 private:
  // The ranges are formed in the weight's dtype.
  at::Tensor Quantize(const at::Tensor& w, at::ScalarType dtype) const {
    const int top = (1 << layout_.bits) - 1;
    const at::Tensor lo = w.amin(1, true).clamp_max_(0).to(dtype);
    const at::Tensor hi = w.amax(1, true).clamp_min_(0).to(dtype);
    const at::Tensor range = (hi - lo).div_(top).to(at::kFloat).clamp_min_(kThreshold);
    const at::Tensor scale =
        QuantizeScales(range.reshape({-1, layout_.groups}), layout_.scale_bits).clamp_min_(kThreshold).reshape({-1, 1});
    const at::Tensor minimum =
        QuantizeScales(lo.neg().to(at::kFloat).reshape({-1, layout_.groups}), layout_.scale_bits).reshape({-1, 1});
    at::Tensor q = (w + minimum).div_(scale).round_().clamp_(0, top);
    return q.mul_(scale).sub_(minimum);
  }

  KLayout layout_;
};

class KSymCodec : public GroupCodec {
 public:
  explicit KSymCodec(const KLayout& layout) : layout_(layout) {}
  int64_t group_multiple() const override { return layout_.groups; }
  std::optional<cpu::KFormat> FusedKType(at::ScalarType dtype) const override {
    return FusedKFormat(layout_, dtype);
  }

  at::Tensor Forward(const at::Tensor& x, const at::Tensor&) const override {
    return WithoutOverflow(x.to(at::kFloat), [&](const at::Tensor& w) { return Quantize(w); })
        .to(x.scalar_type());
  }

  at::Tensor Backward(const at::Tensor&, const at::Tensor&, const at::Tensor& grad) const override { return grad; }

 private:
  at::Tensor Quantize(const at::Tensor& w) const {
    const int half = 1 << (layout_.bits - 1);
    const at::Tensor a = w.amin(1, true).clamp_max_(0).neg_(), b = w.amax(1, true).clamp_min_(0);
    const at::Tensor signed_peak = at::where(b.lt(a), a, b.neg());
    const at::Tensor scale =
        QuantizeSignedScales(signed_peak.div(half).reshape({-1, layout_.groups}), layout_.scale_bits).reshape({-1, 1});
    at::Tensor q = w.mul(ReciprocalOrZeroBelowEps(scale)).round_().clamp_(-half, half - 1);
    return q.mul_(scale);
  }

  KLayout layout_;
};

}  // namespace

std::unique_ptr<GroupCodec> MakeKCodec(const Side& side) {
  const KLayout layout = KLayoutOf(side.bits);
  if (layout.sym) return std::make_unique<KSymCodec>(layout);
  return std::make_unique<KAsymCodec>(layout);
}

}  // namespace autoscheme
