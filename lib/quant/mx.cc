// Microscaling formats: groups that share a power of two (docs/algorithm.md 4.3; OCP Microscaling Formats 1.0).
#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <optional>

#include "quant/codec.h"
#include "quant/rounding.h"

namespace autoscheme {
namespace {

struct MxFormat {
  int exponent_bits;
  int steps;         // codes per binade
  int max_exponent;  // the largest element code's
  float max_norm;
  int min_exponent() const { return exponent_bits == 0 ? 0 : 2 - (1 << (exponent_bits - 1)); }
};

constexpr MxFormat kFp4{2, 2, 2, 6.0f}, kFp6{2, 8, 2, 7.5f}, kFp8{4, 8, 8, 448.0f}, kInt4{0, 4, 0, 1.75f};

class MxCodec : public GroupCodec {
 public:
  MxCodec(const MxFormat& format, bool ceil_scale) : format_(format), ceil_scale_(ceil_scale) {}

  at::Tensor Forward(const at::Tensor& x, const at::Tensor&) const override {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor scale = at::pow(2.0, Exponent(wide.abs().amax(1, true)).clamp_(-127, 127));
    const at::Tensor t = wide.div(scale).clamp_(-format_.max_norm, format_.max_norm);
    return RoundElements(t, FloorLog2(t)).mul_(scale).to(x.scalar_type());
  }

  std::optional<cpu::Format> FusedForward(at::ScalarType) const override {
    cpu::Format format;
    format.family = cpu::Family::kMx;
    format.binades = format_.exponent_bits > 0, format.log2_steps = format_.steps == 2 ? 1 : format_.steps == 4 ? 2 : 3;
    format.least_exponent = format_.min_exponent(), format.top = format_.max_norm;
    format.max_exponent = format_.max_exponent, format.ceil_scale = ceil_scale_;
    return format;
  }

  at::Tensor Backward(const at::Tensor& x, const at::Tensor&, const at::Tensor& grad) const override {
    const at::Tensor wide = x.to(at::kFloat), g = grad.to(at::kFloat);
    const auto [amax, argmax] = wide.abs().max(1, true);
    const at::Tensor raw = Exponent(amax);
    const at::Tensor scale = at::pow(2.0, raw.clamp(-127, 127));
    const at::Tensor t0 = wide / scale;
    const at::Tensor t = t0.clamp(-format_.max_norm, format_.max_norm);
    const at::Tensor log = FloorLog2(t);
    const at::Tensor o = RoundElements(t, log);
    // The element's own exponent is differentiable, so normal elements are scaled by o / t instead of 1.
    at::Tensor slope = at::ones_like(t);
    if (format_.exponent_bits > 0) slope = at::where(log.ge(format_.min_exponent()), o / t, slope);
    slope.masked_fill_(t.eq(0).logical_or_(t0.abs().gt(format_.max_norm)), 0);
    at::Tensor dx = g * slope;
    at::Tensor ds = (g * (o - slope * t0)).sum(1, true);
    ds.masked_fill_(raw.lt(-127).logical_or_(raw.gt(127)), 0);
    // An all-zero group has no direction to move its scale in: 0, where autograd gives 0 * inf (docs/algorithm.md 5.1).
    const at::Tensor damax = (ds * (scale / amax)).masked_fill_(amax.eq(0), 0);
    AddAt(dx, argmax, damax * wide.gather(1, argmax).sign());
    return dx.to(x.scalar_type());
  }

 private:
  // Before the clamp to what an E8M0 scale can hold.
  at::Tensor Exponent(const at::Tensor& amax) const {
    const at::Tensor zero = amax.eq(0);
    if (ceil_scale_) return amax.div(Divisor(format_.max_norm, amax)).log2_().ceil_().masked_fill_(zero, 1);
    return amax.log2().masked_fill_(zero, 1).floor_().sub_(format_.max_exponent);
  }

  // Undefined for a format without element exponents.
  at::Tensor FloorLog2(const at::Tensor& t) const {
    if (format_.exponent_bits == 0) return {};
    return t.abs().add_(t.eq(0)).log2_().floor_();
  }

  at::Tensor RoundElements(const at::Tensor& t, const at::Tensor& floor_log2) const {
    if (format_.exponent_bits == 0) {
      return RoundUpAtHalf(t.mul(format_.steps)).div_(format_.steps).clamp_(-format_.max_norm, format_.max_norm);
    }
    const at::Tensor binade = at::pow(2.0, floor_log2.clamp_min(format_.min_exponent()));
    return RoundUpAtHalf(t.div(binade).mul_(format_.steps))
        .div_(format_.steps)
        .mul_(binade)
        .clamp_(-format_.max_norm, format_.max_norm);
  }

  // Half to even by floor(|u| + 0.5), as the reference forms it: in float32 the sum carries the number just below a
  // half.
  static at::Tensor RoundUpAtHalf(const at::Tensor& u) {
    return at::where(u.abs().eq(std::nextafter(0.5f, 0.0f)), u.sign(), u.round());
  }

  MxFormat format_;
  bool ceil_scale_;
};

}  // namespace

std::unique_ptr<GroupCodec> MakeMxCodec(const Side& side) {
  if (side.type->codec == Codec::kMxInt) return std::make_unique<MxCodec>(kInt4, false);
  const MxFormat& format = side.bits == 4 ? kFp4 : side.bits == 6 ? kFp6 : kFp8;
  return std::make_unique<MxCodec>(format, side.type->codec == Codec::kMxCeil);
}

}  // namespace autoscheme
