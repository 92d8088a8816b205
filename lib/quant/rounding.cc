#include "quant/rounding.h"

#include <ATen/ATen.h>

#include <limits>

#include "quant/fused.h"

namespace autoscheme {

at::Tensor FirstArgAmax(const at::Tensor& x) { return std::get<1>(x.abs().max(1, true)); }

void AddAt(at::Tensor& dx, const at::Tensor& index, const at::Tensor& value) {
  dx.scatter_add_(1, index, value.to(dx.scalar_type()));
}

at::Tensor AmaxTensor(const at::Tensor& x) {
  if (Fusable(x)) return Amax(x);
  return x.abs().amax().to(at::kFloat);
}

at::Tensor Saturated(const at::Tensor& t, at::ScalarType dtype) {
  const double top = dtype == at::kHalf       ? 65504.0
                     : dtype == at::kBFloat16 ? static_cast<double>(std::numeric_limits<c10::BFloat16>::max())
                                              : static_cast<double>(std::numeric_limits<float>::max());
  return t.clamp(-top, top).to(dtype);
}

at::Tensor Divisor(double number, const at::Tensor& like) {
  return at::full({}, number, like.options().dtype(at::kFloat));
}

at::Tensor ReciprocalOrZero(const at::Tensor& t) {
  const at::Tensor zero = t.eq(0);
  return t.masked_fill(zero, 1).reciprocal().masked_fill_(zero, 0);
}

at::Tensor ReciprocalOrZeroBelowEps(const at::Tensor& t) {
  const at::Tensor small = t.abs().lt(1e-30);
  return t.masked_fill(small, 1).reciprocal().masked_fill_(small, 0);
}

at::Tensor RoundE4m3(const at::Tensor& t) { return t.to(at::kFloat8_e4m3fn).to(at::kFloat); }

at::Tensor RoundE2m1(const at::Tensor& t) {
  const at::Tensor a = t.abs();
  at::Tensor r =
      at::where(a.lt(2), a.mul(2).round_().mul_(0.5), at::where(a.lt(4), a.round(), a.mul(0.5).round_().mul_(2)));
  return r.clamp_max_(6).mul_(t.sign());
}

}  // namespace autoscheme
