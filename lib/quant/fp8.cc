// FP8 E4M3 with a float scale per group, row, tensor or tile (docs/algorithm.md 4.6).
#include <ATen/ATen.h>

#include <memory>
#include <optional>

#include "quant/codec.h"
#include "quant/rounding.h"

namespace autoscheme {
namespace {

constexpr double kMax = 448, kLeastScale = 1.0 / (448 * 512);

class Fp8Codec : public GroupCodec {
 public:
  // `tiles`: the scale and every step stay in the input's dtype, and the gradient of the largest magnitude is split
  // evenly among its holders; else all is float32 and the first holder gets it.
  Fp8Codec(bool per_tensor, bool tiles) : per_tensor_(per_tensor), tiles_(tiles) {}

  bool backward_needs_whole_tensor() const override { return per_tensor_; }

  std::optional<cpu::Format> FusedForward(at::ScalarType dtype) const override {
    cpu::Format format;
    format.family = cpu::Family::kFp8;
    format.log2_steps = 3, format.least_exponent = -6, format.top = kMax;
    format.narrow = tiles_ && dtype == at::kBFloat16;
    format.least_scale = static_cast<float>(kLeastScale);
    if (format.narrow) format.least_scale = static_cast<float>(at::BFloat16(format.least_scale));
    return format;
  }
  std::optional<cpu::Format> FusedBackward(at::ScalarType dtype) const override {
    return tiles_ ? std::nullopt : FusedForward(dtype);
  }

  at::Tensor Forward(const at::Tensor& x, const at::Tensor& prepared) const override {
    const at::Tensor wide = tiles_ ? x : x.to(at::kFloat);
    const at::Tensor amax = prepared.defined() ? prepared.to(wide.scalar_type()) : wide.abs().amax(1, true);
    const at::Tensor scale = amax.div(Divisor(kMax, amax)).clamp_min_(kLeastScale);
    return Round(wide.div(scale)).mul_(scale).to(x.scalar_type());
  }

  at::Tensor Backward(const at::Tensor& x, const at::Tensor&, const at::Tensor& grad) const override {
    const at::Tensor wide = tiles_ ? x : x.to(at::kFloat), g = grad.to(at::kFloat);
    const auto [amax, argmax] = wide.abs().max(1, true);
    const at::Tensor unfloored = amax.div(Divisor(kMax, amax));
    const at::Tensor u = wide / unfloored.clamp_min(kLeastScale);
    const at::Tensor passed = g * u.abs().le(kMax);
    if (x.scalar_type() == at::kBFloat16 && tiles_) return NarrowTileBackward(wide, amax, unfloored, u, grad);
    at::Tensor dx = passed.clone();
    at::Tensor damax = (g * Round(u).to(at::kFloat) - passed * u.to(at::kFloat)).sum(1, true) / kMax;
    damax = damax * unfloored.ge(kLeastScale);
    if (tiles_) {
      const at::Tensor holders = wide.abs().eq(amax);
      dx.add_(wide.sign().mul_(holders) * (damax / holders.sum(1, true)));
    } else {
      AddAt(dx, argmax, damax * wide.gather(1, argmax).sign());
    }
    return dx.to(x.scalar_type());
  }

 private:
  // Every product rounded to bfloat16, and the two sums that make the gradient of the scale.
  static at::Tensor NarrowTileBackward(const at::Tensor& x, const at::Tensor& amax, const at::Tensor& unfloored,
                                       const at::Tensor& u, const at::Tensor& grad) {
    const at::Tensor scale = unfloored.clamp_min(kLeastScale);
    const at::Tensor du = grad * scale * u.abs().le(kMax);
    const at::Tensor dscale = (grad * Round(u)).sum(1, true) - (du * (u / scale)).sum(1, true);
    const at::Tensor holders = x.abs().eq(amax);
    const at::Tensor damax = dscale.div(kMax) * unfloored.ge(kLeastScale) / holders.sum(1, true);
    return du.div(scale) + x.sign().mul_(holders) * damax;
  }

  static at::Tensor Round(const at::Tensor& u) {
    return u.clamp(-kMax, kMax).to(at::kFloat8_e4m3fn).to(u.scalar_type());
  }

  bool per_tensor_, tiles_;
};

}  // namespace

std::unique_ptr<GroupCodec> MakeFp8Codec(const Side& side) {
  return std::make_unique<Fp8Codec>(side.group.size == 0, side.group.rows > 0);
}

}  // namespace autoscheme
