#include "nn/rope_tables.h"

#include <ATen/ATen.h>

#include <cmath>

namespace autoscheme {

at::Tensor RopeTables(const RopeConfig& rope, int64_t head_dim, int64_t seqlen) {
  // Frequencies as transformers computes them: theta^(2i/dim) in float32, then its reciprocal.
  at::Tensor exponent = at::arange(0, head_dim, 2, at::kFloat) / static_cast<double>(head_dim);
  at::Tensor inv_freq = at::pow(at::Scalar(rope.theta), exponent).reciprocal_();
  if (rope.type == "linear") inv_freq = inv_freq / rope.factor;
  if (rope.type == "llama3") {
    const double low_wavelength = rope.original_max_positions / rope.low_freq_factor;
    const double high_wavelength = rope.original_max_positions / rope.high_freq_factor;
    at::Tensor wavelength = (2 * M_PI) / inv_freq;
    at::Tensor scaled = at::where(wavelength.gt(low_wavelength), inv_freq / rope.factor, inv_freq);
    at::Tensor smooth = (rope.original_max_positions / wavelength - rope.low_freq_factor) /
                        (rope.high_freq_factor - rope.low_freq_factor);
    at::Tensor smoothed = (1 - smooth) * scaled / rope.factor + smooth * scaled;
    at::Tensor medium = wavelength.ge(high_wavelength).logical_and(wavelength.le(low_wavelength));
    inv_freq = at::where(medium, smoothed, scaled);
  }
  at::Tensor angle = at::outer(at::arange(seqlen, at::kFloat), inv_freq);
  return at::stack({angle.cos(), angle.sin()});
}

}  // namespace autoscheme
