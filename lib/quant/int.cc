// Integers: symmetric with a signed scale, asymmetric with an integer or float zero point (docs/algorithm.md 4.2, 5.2).
#include <ATen/ATen.h>

#include <memory>
#include <optional>

#include "quant/codec.h"
#include "quant/rounding.h"

namespace autoscheme {
namespace {

// docs/algorithm.md 4.2: the dtype that scales are rounded to.
struct ScaleDtype {
  at::ScalarType type;
  double threshold;  // least |scale|, already rounded to the type
};

ScaleDtype ScaleDtypeOf(const Side& side) {
  if (side.act_bits <= 8) return {at::kBFloat16, static_cast<float>(at::BFloat16(1e-5f))};
  return {at::kHalf, static_cast<float>(at::Half(1e-5f))};
}

cpu::Format FormatOf(const ScaleDtype& scale) {
  cpu::Format format;
  format.scale_type = scale.type == at::kHalf ? cpu::ScaleType::kHalf : cpu::ScaleType::kBFloat16;
  format.least_scale = static_cast<float>(scale.threshold);
  return format;
}

// `t` rounded to the scale dtype, as float32. Where the scale dtype overflows the value stays as it is, so that a huge
// group is quantized with a float32 scale instead of turning into NaN (docs/algorithm.md 9.2).
at::Tensor RoundTo(const at::Tensor& t, at::ScalarType type) {
  const at::Tensor exact = t.to(at::kFloat);
  const at::Tensor rounded = t.to(type).to(at::kFloat);
  return at::where(rounded.isfinite(), rounded, exact);
}

// Back through y = s q, q = clamp(round(u)), u = X / s, up to the scale.
struct Chain {
  at::Tensor dx;      // float32
  at::Tensor dscale;  // [rows, 1], the part that came through the quotient
};

// grad, u and s in the dtype that the group is worked in. bfloat16 rounds every product, but one that leaves its
// range stays exact (docs/algorithm.md 5.2).
Chain BackThroughQuotient(const at::Tensor& grad, const at::Tensor& inside, const at::Tensor& u, const at::Tensor& s) {
  const at::Tensor passed = grad.to(at::kFloat) * inside;
  if (s.scalar_type() == at::kFloat) return {passed, (passed * u).sum(1, true).neg_()};
  const at::Tensor dq = grad * inside * s;
  const at::Tensor in_range = dq.isfinite();
  const at::Tensor terms = at::where(in_range, dq * (u / s), passed * u);
  return {at::where(in_range, (dq / s).to(at::kFloat), passed), terms.to(s.scalar_type()).sum(1, true).neg_()};
}

class IntSymCodec : public GroupCodec {
 public:
  explicit IntSymCodec(const Side& side) : scale_dtype_(ScaleDtypeOf(side)), levels_(1 << (side.bits - 1)) {}

  at::Tensor Forward(const at::Tensor& x, const at::Tensor&) const override {
    const at::ScalarType compute = ComputeDtype(x);
    const at::Tensor scale =
        Gate(RoundTo(ScaleBeforeRounding(x.amin(1, true), x.amax(1, true)), scale_dtype_.type)).to(compute);
    at::Tensor q = x.to(compute).div(scale).round_().clamp_(-levels_, levels_ - 1);
    return q.mul_(scale).to(x.scalar_type());
  }

  std::optional<cpu::Format> FusedForward(at::ScalarType dtype) const override {
    cpu::Format format = FormatOf(scale_dtype_);
    format.family = cpu::Family::kIntSym, format.levels = levels_;
    format.narrow = dtype == at::kBFloat16 && scale_dtype_.type == at::kBFloat16;
    return format;
  }

  at::Tensor Backward(const at::Tensor& x, const at::Tensor&, const at::Tensor& grad) const override {
    const at::ScalarType compute = ComputeDtype(x);
    const auto [low, argmin] = x.min(1, true);
    const auto [high, argmax] = x.max(1, true);
    const at::Tensor rounded = RoundTo(ScaleBeforeRounding(low, high), scale_dtype_.type);
    const at::Tensor s = Gate(rounded);
    const at::Tensor u = x.to(compute).div(s.to(compute));
    const at::Tensor r = u.round();
    const at::Tensor inside = r.ge(-levels_).logical_and_(r.le(levels_ - 1));
    const at::Tensor q = r.clamp(-levels_, levels_ - 1);
    const Chain chain = BackThroughQuotient(grad.to(compute), inside, u, s.to(compute));
    // y = s q and u = X / s each use the scale: two sums, both rounded to its dtype (docs/algorithm.md 5.2).
    const at::Tensor from_product = RoundTo((grad.to(compute) * q).sum(1, true), scale_dtype_.type);
    const at::Tensor from_quotient = RoundTo(chain.dscale, scale_dtype_.type);
    at::Tensor ds = RoundTo(from_product + from_quotient, scale_dtype_.type);
    ds = ds * rounded.abs().ge(scale_dtype_.threshold);

    const at::Tensor a = low.clamp_max(0).neg_(), b = high.clamp_min(0);
    const at::Tensor dmax = ds * at::where(b.lt(a), 1.0f, -1.0f) / levels_;
    const at::Tensor da = dmax * (a.gt(b).to(at::kFloat) + a.eq(b).to(at::kFloat) * 0.5);
    const at::Tensor db = dmax * (b.gt(a).to(at::kFloat) + a.eq(b).to(at::kFloat) * 0.5);
    at::Tensor dx = chain.dx;
    AddAt(dx, argmax, db * high.ge(0));
    AddAt(dx, argmin, da.neg() * low.le(0));
    return dx.to(x.scalar_type());
  }

 private:
  // bfloat16 values over a bfloat16 scale are worked in bfloat16, every operation rounded; the rest in
  // float32 (docs/algorithm.md 4.2).
  at::ScalarType ComputeDtype(const at::Tensor& x) const {
    return x.scalar_type() == at::kBFloat16 && scale_dtype_.type == at::kBFloat16 ? at::kBFloat16 : at::kFloat;
  }

  // [rows, 1] in x's dtype. The side with the larger magnitude maps to -levels, hence the sign; a tie counts as
  // positive maximum.
  at::Tensor ScaleBeforeRounding(const at::Tensor& low, const at::Tensor& high) const {
    const at::Tensor a = low.clamp_max(0).neg_(), b = high.clamp_min(0);
    return at::where(b.lt(a), a, b.neg()).div_(levels_);
  }

  at::Tensor Gate(const at::Tensor& scale) const {
    return at::where(scale.lt(0), scale.clamp_max(-scale_dtype_.threshold), scale.clamp_min(scale_dtype_.threshold));
  }

  ScaleDtype scale_dtype_;
  int levels_;
};

class IntAsymCodec : public GroupCodec {
 public:
  IntAsymCodec(const Side& side, bool float_zero_point)
      : scale_dtype_(ScaleDtypeOf(side)), top_((1 << side.bits) - 1), float_zero_point_(float_zero_point) {}

  at::Tensor Forward(const at::Tensor& x, const at::Tensor&) const override {
    const Grid grid = GridOf(x);
    at::Tensor q = x.to(grid.scale.scalar_type()).div(grid.scale).round_().add_(grid.zero).clamp_(0, top_);
    return q.sub_(grid.zero).mul_(grid.scale).to(x.scalar_type());
  }

  std::optional<cpu::Format> FusedForward(at::ScalarType dtype) const override {
    const bool narrow = dtype == at::kBFloat16;
    if (narrow && scale_dtype_.type == at::kBFloat16) return std::nullopt;
    cpu::Format format = FormatOf(scale_dtype_);
    format.family = cpu::Family::kIntAsym, format.levels = top_;
    format.float_zero_point = float_zero_point_, format.narrow = narrow;
    return format;
  }
  std::optional<cpu::Format> FusedBackward(at::ScalarType) const override { return std::nullopt; }

  at::Tensor Backward(const at::Tensor& x, const at::Tensor&, const at::Tensor& grad) const override {
    const Grid grid = GridOf(x);
    const at::Tensor u = x.to(grid.scale.scalar_type()).div(grid.scale);
    const at::Tensor code = u.round().add_(grid.zero);
    const at::Tensor inside = code.ge(0).logical_and_(code.le(top_));
    const at::Tensor s = grid.scale.to(at::kFloat);
    const at::Tensor g = grad.to(at::kFloat);
    const at::Tensor level = code.clamp(0, top_).sub_(grid.zero);
    const at::Tensor lo = grid.low.clamp_max(0).to(at::kFloat);
    const Chain chain = BackThroughQuotient(grad.to(u.scalar_type()), inside, u, grid.scale);
    const at::Tensor from_product = RoundTo((grad.to(u.scalar_type()) * level).sum(1, true), scale_dtype_.type);
    const at::Tensor from_quotient = RoundTo(chain.dscale, scale_dtype_.type);
    // dL/dz = -s * clipped; it reaches lo directly, and the scale through z = -lo / s.
    const at::Tensor clipped = (g * inside.logical_not()).sum(1, true);
    const at::Tensor from_zero = RoundTo((clipped * (lo / s)).neg_(), scale_dtype_.type);
    at::Tensor ds = RoundTo(from_product + from_quotient, scale_dtype_.type);
    ds = RoundTo(ds + from_zero, scale_dtype_.type) * grid.unclamped;
    const at::Tensor dlo = clipped - ds / top_;
    const at::Tensor dhi = ds / top_;
    at::Tensor dx = chain.dx;
    AddAt(dx, grid.argmin, dlo * grid.low.le(0));
    AddAt(dx, grid.argmax, dhi * grid.high.ge(0));
    return dx.to(x.scalar_type());
  }

 private:
  struct Grid {
    at::Tensor scale, zero;                // in the dtype that the group is worked in
    at::Tensor low, high, argmin, argmax;  // by group, not clamped
    at::Tensor unclamped;                  // 1 where the threshold did not act
  };

  Grid GridOf(const at::Tensor& x) const {
    Grid grid;
    std::tie(grid.low, grid.argmin) = x.min(1, true);
    std::tie(grid.high, grid.argmax) = x.max(1, true);
    const at::Tensor lo = grid.low.clamp_max(0), hi = grid.high.clamp_min(0);
    const at::Tensor top = Divisor(top_, lo);
    at::Tensor quotient = (hi - lo).div_(top);
    quotient = at::where(quotient.isfinite(), quotient, hi / top - lo / top);
    const at::Tensor rounded = RoundTo(quotient, scale_dtype_.type);
    grid.unclamped = rounded.ge(scale_dtype_.threshold);
    const bool narrow = x.scalar_type() == at::kBFloat16 && scale_dtype_.type == at::kBFloat16;
    const at::ScalarType compute = narrow ? at::kBFloat16 : at::kFloat;
    grid.scale = rounded.clamp_min(scale_dtype_.threshold).to(compute);
    grid.zero = lo.to(compute).neg_().div_(grid.scale);
    if (!float_zero_point_) grid.zero.round_();
    return grid;
  }

  ScaleDtype scale_dtype_;
  int top_;
  bool float_zero_point_;
};

}  // namespace

std::unique_ptr<GroupCodec> MakeIntCodec(const Side& side) {
  const bool float_zero_point = side.type->codec == Codec::kIntFloatZero;
  if (side.sym && !float_zero_point) return std::make_unique<IntSymCodec>(side);
  return std::make_unique<IntAsymCodec>(side, float_zero_point);
}

}  // namespace autoscheme
