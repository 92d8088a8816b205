#include "skeleton/ops.h"

#include <cmath>
#include <string>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, double eps) {
    at::Tensor wide = x.to(at::kFloat);
    at::Tensor rstd = wide.square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
    ctx->save_for_backward({x, weight, rstd});
    return (wide * rstd).to(x.scalar_type()).mul_(weight);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2];
    at::Tensor unit = x.to(at::kFloat) * rstd;
    at::Tensor g = grads[0].to(at::kFloat) * weight.to(at::kFloat);
    at::Tensor mean = (g * unit).mean(-1, /*keepdim=*/true);
    g.sub_(unit.mul_(mean)).mul_(rstd);
    return {g.to(x.scalar_type()), at::Tensor(), at::Tensor()};
  }
};

// (a, b) halves of the last dimension -> (a c - b s, b c + a s); with sign = -1 the inverse rotation.
at::Tensor RotateHalves(const at::Tensor& x, const at::Tensor& tables, int sign) {
  const int64_t half = x.size(-1) / 2;
  at::Tensor cos = tables[0].to(x.scalar_type()), sin = tables[1].to(x.scalar_type());
  at::Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half);
  at::Tensor y = at::empty(x.sizes(), x.options());
  at::Tensor ya = y.narrow(-1, 0, half), yb = y.narrow(-1, half, half);
  at::mul_out(ya, a, cos);
  at::mul_out(yb, b, cos);
  ya.sub_(b * sin, sign);
  yb.add_(a * sin, sign);
  return y;
}

struct RotateFunction : torch::autograd::Function<RotateFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& tables) {
    ctx->save_for_backward({tables});
    return RotateHalves(x, tables, 1);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {RotateHalves(grads[0], ctx->get_saved_variables()[0], -1), at::Tensor()};
  }
};

struct SwiGluFunction : torch::autograd::Function<SwiGluFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up) {
    ctx->save_for_backward({gate, up});
    return at::silu(gate).mul_(up);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    variable_list saved = ctx->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1], &g = grads[0];
    at::Tensor dup = at::silu(gate).mul_(g);
    at::Tensor dgate = at::silu_backward(g * up, gate);
    return {dgate, dup};
  }
};

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return RmsNormFunction::apply(x, weight, eps);
}

at::Tensor Rotate(const at::Tensor& x, const at::Tensor& tables) { return RotateFunction::apply(x, tables); }

at::Tensor SwiGlu(const at::Tensor& gate, const at::Tensor& up) { return SwiGluFunction::apply(gate, up); }

at::Tensor CausalAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, int64_t window) {
  const int64_t batch = q.size(0), heads = q.size(1), seq = q.size(2), dim = q.size(3), kv_heads = k.size(1);
  auto repeat = [&](const at::Tensor& t) {
    if (kv_heads == heads) return t;
    return t.unsqueeze(2).expand({batch, kv_heads, heads / kv_heads, seq, dim}).reshape({batch, heads, seq, dim});
  };
  std::optional<at::Tensor> mask;
  const bool windowed = window > 0 && window < seq;
  if (windowed) {
    at::Tensor position = at::arange(seq, q.options().dtype(at::kLong));
    at::Tensor distance = position.unsqueeze(1) - position.unsqueeze(0);
    at::Tensor visible = distance.ge(0).logical_and_(distance.lt(window));
    mask = at::zeros({seq, seq}, q.options()).masked_fill_(visible.logical_not(), -INFINITY);
  }
  return at::scaled_dot_product_attention(q, repeat(k), repeat(v), mask, /*dropout_p=*/0.0, /*is_causal=*/!windowed, scale);
}

absl::StatusOr<RopeConfig> ReadRopeConfig(const Json& config, double default_theta) {
  const std::string what = "config.json";
  RopeConfig rope;
  const JsonValue* fields = JsonFind(config, "rope_parameters");
  if (fields == nullptr) fields = JsonFind(config, "rope_scaling");
  AUTOSCHEME_ASSIGN_OR_RETURN(rope.theta, JsonDoubleOr(config, "rope_theta", default_theta, what));
  if (fields != nullptr) {
    if (!fields->IsObject()) {
      return absl::InvalidArgumentError("config.json: rope_parameters / rope_scaling must be an object");
    }
    const std::string where = "config.json: rope_parameters";
    AUTOSCHEME_ASSIGN_OR_RETURN(rope.theta, JsonDoubleOr(*fields, "rope_theta", rope.theta, where));
    AUTOSCHEME_ASSIGN_OR_RETURN(rope.type, JsonStringOr(*fields, "type", "default", where));
    AUTOSCHEME_ASSIGN_OR_RETURN(rope.type, JsonStringOr(*fields, "rope_type", rope.type, where));
    if (rope.type == "linear" || rope.type == "llama3") {
      AUTOSCHEME_ASSIGN_OR_RETURN(rope.factor, JsonDouble(*fields, "factor", where));
    }
    if (rope.type == "llama3") {
      AUTOSCHEME_ASSIGN_OR_RETURN(rope.low_freq_factor, JsonDouble(*fields, "low_freq_factor", where));
      AUTOSCHEME_ASSIGN_OR_RETURN(rope.high_freq_factor, JsonDouble(*fields, "high_freq_factor", where));
      AUTOSCHEME_ASSIGN_OR_RETURN(rope.original_max_positions, JsonDouble(*fields, "original_max_position_embeddings", where));
      if (rope.high_freq_factor <= rope.low_freq_factor || rope.original_max_positions <= 0) {
        return absl::InvalidArgumentError(
            "config.json: rope type llama3 needs high_freq_factor > low_freq_factor and original_max_position_embeddings > 0");
      }
    } else if (rope.type != "default" && rope.type != "linear") {
      return absl::UnimplementedError(
          absl::StrCat("config.json: rope type ", Quoted(rope.type), " is not supported; known: default, linear, llama3"));
    }
  }
  if (!(rope.theta > 0) || !(rope.factor > 0)) {
    return absl::InvalidArgumentError("config.json: rope_theta and the rope factor must be positive");
  }
  return rope;
}

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
