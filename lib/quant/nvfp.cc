// NVFP4: 4-bit floats in groups of 16, with an E4M3 scale under one float scale per tensor, or with an
// unsigned E5M3 scale alone (docs/algorithm.md 4.4, 4.5).
#include <ATen/ATen.h>

#include <memory>
#include <optional>

#include "quant/codec.h"
#include "quant/rounding.h"

namespace autoscheme {
namespace {

constexpr double kElementMax = 6, kE4m3Max = 448, kE5m3Max = 114688;

cpu::Format FormatOf(cpu::Family family) {
  cpu::Format format;
  format.family = family;
  format.log2_steps = 1, format.least_exponent = 0, format.top = kElementMax;
  return format;
}

class Nvfp4Codec : public GroupCodec {
 public:
  // The global scale of a weight is a constant; that of an activation moves with the largest element.
  explicit Nvfp4Codec(bool global_scale_is_constant) : constant_(global_scale_is_constant) {}

  bool backward_needs_whole_tensor() const override { return !constant_; }

  std::optional<cpu::Format> FusedForward(at::ScalarType) const override { return FormatOf(cpu::Family::kNvfp4); }

  at::Tensor Forward(const at::Tensor& x, const at::Tensor& prepared) const override {
    const at::Tensor wide = x.to(at::kFloat);
    const Scales s = ScalesOf(wide.abs().amax(1, true), prepared);
    const at::Tensor t = wide.mul(s.multiplier).clamp_(-kElementMax, kElementMax);
    return RoundE2m1(t).mul_(ReciprocalOrZero(s.multiplier)).to(x.scalar_type());
  }

  at::Tensor Backward(const at::Tensor& x, const at::Tensor& prepared, const at::Tensor& grad) const override {
    const at::Tensor wide = x.to(at::kFloat), g = grad.to(at::kFloat);
    const auto [amax, argmax] = wide.abs().max(1, true);
    const Scales s = ScalesOf(amax, prepared);
    const at::Tensor u = wide * s.multiplier;
    const at::Tensor t = u.clamp(-kElementMax, kElementMax);
    const at::Tensor passed = g * u.abs().le(kElementMax).logical_and_(t.ne(0));
    at::Tensor dx = passed;
    // Per group, the gradient of D = scale / global. A group whose scale is 0 is all zeros and stays so: no gradient.
    const at::Tensor dd = (g * RoundE2m1(t) - passed * u).sum(1, true).masked_fill_(s.multiplier.eq(0), 0);
    const at::Tensor inside = s.unrounded.abs().le(kE4m3Max);
    AddAt(dx, argmax, dd / kElementMax * inside * wide.gather(1, argmax).sign());
    if (!constant_) AddGlobal(wide, prepared, s, dd.to(at::kDouble), amax.to(at::kDouble) * inside, dx);
    return dx.to(x.scalar_type());
  }

 private:
  struct Scales {
    at::Tensor global;      // scalar
    at::Tensor unrounded;   // [rows, 1]
    at::Tensor rounded;     // in E4M3
    at::Tensor multiplier;  // what an element is multiplied with; 0 where the scale is
  };

  static Scales ScalesOf(const at::Tensor& amax, const at::Tensor& largest) {
    Scales s;
    s.global = ReciprocalOrZero(largest).mul_(kE4m3Max * kElementMax);
    s.unrounded = amax.mul(1.0 / kElementMax).mul_(s.global).nan_to_num_(0, kE4m3Max, 0);
    s.rounded = RoundE4m3(s.unrounded.clamp(-kE4m3Max, kE4m3Max));
    s.multiplier = ReciprocalOrZero(s.rounded * ReciprocalOrZero(s.global));
    return s;
  }

  // What flows through the global scale, split evenly over all elements of the largest magnitude. In float64: its
  // factors span the square of the tensor's range.
  static void AddGlobal(const at::Tensor& x, const at::Tensor& largest, const Scales& s, const at::Tensor& dd,
                        const at::Tensor& live_peak, at::Tensor& dx) {
    const at::Tensor global = s.global.to(at::kDouble);
    const at::Tensor dglobal = (dd * (live_peak / kElementMax - s.rounded.to(at::kDouble) / global) / global).sum();
    const at::Tensor a = largest.to(at::kDouble);
    const at::Tensor dlargest = dglobal * (-kE4m3Max * kElementMax) / (a * a);
    const at::Tensor at_largest = x.abs().eq(largest);
    const at::Tensor share = (dlargest / at_largest.sum()).nan_to_num_(0, 0, 0).to(at::kFloat);
    dx.add_(x.sign().mul_(at_largest).mul_(share));
  }

  bool constant_;
};

class E5m3Codec : public GroupCodec {
 public:
  std::optional<cpu::Format> FusedForward(at::ScalarType) const override { return FormatOf(cpu::Family::kE5m3); }

  at::Tensor Forward(const at::Tensor& x, const at::Tensor&) const override {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor scale = RoundScale(wide.abs().amax(1, true).mul_(1.0 / kElementMax));
    return RoundE2m1(Quotient(wide, scale).clamp_(-kElementMax, kElementMax)).mul_(scale).to(x.scalar_type());
  }

  at::Tensor Backward(const at::Tensor& x, const at::Tensor&, const at::Tensor& grad) const override {
    const at::Tensor wide = x.to(at::kFloat), g = grad.to(at::kFloat);
    const auto [amax, argmax] = wide.abs().max(1, true);
    const at::Tensor unrounded = amax.mul(1.0 / kElementMax);
    const at::Tensor u = Quotient(wide, RoundScale(unrounded));
    const at::Tensor t = u.clamp(-kElementMax, kElementMax);
    const at::Tensor passed = g * u.abs().le(kElementMax).logical_and_(t.ne(0));
    at::Tensor dx = passed;
    const at::Tensor dd = (g * RoundE2m1(t) - passed * u).sum(1, true);
    AddAt(dx, argmax, dd / kElementMax * unrounded.le(kE5m3Max) * wide.gather(1, argmax).sign());
    return dx.to(x.scalar_type());
  }

 private:
  // 0 in groups of zeros.
  static at::Tensor Quotient(const at::Tensor& x, const at::Tensor& scale) {
    const at::Tensor zero = scale.eq(0);
    return x.div(scale.masked_fill(zero, 1)).masked_fill_(zero, 0);
  }

  // To unsigned E5M3 with bias 15, as the reference rounds: a mantissa that would carry stays at 7/8, and nothing above
  // zero becomes zero.
  static at::Tensor RoundScale(const at::Tensor& unrounded) {
    const at::Tensor v = unrounded.clamp(0, kE5m3Max);
    const double least_normal = 1.0 / 16384;
    const auto [fraction, exponent] = at::frexp(v);
    const at::Tensor mantissa = fraction.sub(0.5).mul_(16).round_().clamp_(0, 7);
    const at::Tensor normal = at::ldexp(mantissa.div(8).add_(1), exponent.sub(1).clamp_(-15, 16));
    const at::Tensor subnormal = v.div(least_normal).mul_(8).round_().clamp_(1, 7).mul_(least_normal / 8);
    return at::where(v.ge(least_normal), normal, subnormal).masked_fill_(v.eq(0), 0);
  }
};

}  // namespace

std::unique_ptr<GroupCodec> MakeNvfp4Codec(const Side& side) { return std::make_unique<Nvfp4Codec>(side.weight); }

std::unique_ptr<GroupCodec> MakeE5m3Codec() { return std::make_unique<E5m3Codec>(); }

}  // namespace autoscheme
