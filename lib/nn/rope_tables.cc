#include "nn/rope_tables.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace autoscheme {
namespace {

// 0 below frequency `low`, 1 above `high`, and a ramp between.
at::Tensor Ramp(double low, double high, int64_t count) {
  if (low == high) high += 0.001;
  return at::arange(count, at::kFloat).sub_(low).div_(high - low).clamp_(0, 1);
}

// Peng et al. 2023, "YaRN": low frequencies are divided by the factor, high ones stay.
at::Tensor YarnFrequencies(const RopeConfig& rope, const at::Tensor& powers, int64_t dims) {
  const auto turning = [&](double rotations) {
    return static_cast<double>(dims) * std::log(rope.original_max_positions / (rotations * 2 * M_PI)) /
           (2 * std::log(rope.theta));
  };
  double low = turning(rope.beta_fast), high = turning(rope.beta_slow);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  const at::Tensor keeps = 1 - Ramp(std::max(low, 0.0), std::min(high, static_cast<double>(dims - 1)), dims / 2);
  return 1 / (rope.factor * powers) * (1 - keeps) + 1 / powers * keeps;
}

at::Tensor Llama3Frequencies(const RopeConfig& rope, const at::Tensor& inv_freq) {
  const double low_wavelength = rope.original_max_positions / rope.low_freq_factor;
  const double high_wavelength = rope.original_max_positions / rope.high_freq_factor;
  at::Tensor wavelength = (2 * M_PI) / inv_freq;
  at::Tensor scaled = at::where(wavelength.gt(low_wavelength), inv_freq / rope.factor, inv_freq);
  at::Tensor smooth = (rope.original_max_positions / wavelength - rope.low_freq_factor) /
                      (rope.high_freq_factor - rope.low_freq_factor);
  at::Tensor smoothed = (1 - smooth) * scaled / rope.factor + smooth * scaled;
  at::Tensor medium = wavelength.ge(high_wavelength).logical_and(wavelength.le(low_wavelength));
  return at::where(medium, smoothed, scaled);
}

// Base of the frequencies for a run of seqlen.
double Theta(const RopeConfig& rope, int64_t dims, int64_t seqlen) {
  if (rope.type != "dynamic" || seqlen <= rope.original_max_positions) return rope.theta;
  const double stretch = rope.factor * static_cast<double>(seqlen) / rope.original_max_positions - (rope.factor - 1);
  return rope.theta * std::pow(stretch, static_cast<double>(dims) / static_cast<double>(dims - 2));
}

}  // namespace

at::Tensor RopeTables(const RopeConfig& rope, int64_t dims, int64_t seqlen) {
  // Frequencies as transformers computes them: theta^(2i/dims) in float32, then its reciprocal.
  const at::Tensor exponent = at::arange(0, dims, 2, at::kFloat) / static_cast<double>(dims);
  const at::Tensor powers = at::pow(at::Scalar(Theta(rope, dims, seqlen)), exponent);
  at::Tensor inv_freq = powers.reciprocal();
  if (rope.type == "linear") inv_freq = inv_freq / rope.factor;
  if (rope.type == "llama3") inv_freq = Llama3Frequencies(rope, inv_freq);
  if (rope.type == "yarn") inv_freq = YarnFrequencies(rope, powers, dims);
  if (rope.type == "longrope") {
    const std::vector<double>& factors = seqlen > rope.original_max_positions ? rope.long_factors : rope.short_factors;
    inv_freq = 1 / (at::tensor(factors, at::kFloat) * powers);
  }
  const at::Tensor angle = at::outer(at::arange(seqlen, at::kFloat), inv_freq);
  const at::Tensor tables = at::stack({angle.cos(), angle.sin()});
  return rope.attention_scale == 1 ? tables : tables * rope.attention_scale;
}

at::Tensor QueryScales(double growth, double length, int64_t seqlen, const at::Tensor& like) {
  if (growth == 0 || static_cast<double>(seqlen) <= length) return {};
  const auto wide = like.options().dtype(at::kFloat);
  // Divided by a tensor: by a number CUDA multiplies with its reciprocal, which may fall short of a whole one.
  const at::Tensor lengths = at::arange(seqlen, wide).div_(at::full({}, length, wide)).floor_();
  return lengths.add_(1).log_().mul_(growth).add_(1).unsqueeze(1);
}

}  // namespace autoscheme
