// k-quants with an importance matrix: every group searches for the scale (and minimum) of least weighted squared error
// (docs/algorithm.md 4.8, 4.9).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checked.h"
#include "base/count.h"
#include "device/torch_devices.h"
#include "quant/fused.h"
#include "quant/grouped.h"
#include "quant/k_quant.h"
#include "quant/rounding.h"

namespace autoscheme {
namespace {

// Temporaries of one slice stay in a core's cache; on a device, the many that a search has stay few megabytes each.
constexpr int64_t kSliceElements = 1 << 14, kDeviceSliceElements = 1 << 20;

// The search multiplies sums over a group by one another, which leaves float32 where importances are huge or tiny. Only
// their ratios matter: beyond what sums of squares usually are, the largest is brought to 1 to 2 by a power of two,
// which changes none of them. Others are left as they are.
at::Tensor InRange(const at::Tensor& imatrix) {
  constexpr double kLargest = 0x1p40, kSmallest = 0x1p-20;
  const auto largest = imatrix.max().item<double>();
  if (largest == 0 || (largest >= kSmallest && largest <= kLargest)) return imatrix;
  return imatrix.to(at::kDouble).mul_(std::ldexp(1.0, -std::ilogb(largest))).to(at::kFloat);
}

class KQuantSearch : public WeightQuantizer {
 public:
  KQuantSearch(const Side& side, const at::Tensor& imatrix)
      : layout_(KFormatOf(*side.type, at::kFloat)),
        plain_(MakeGroupedWeight(side)),
        imatrix_(InRange(imatrix.detach()).contiguous()),
        has_zero_(imatrix_.eq(0).any().item<bool>()),
        all_zero_(imatrix_.sum().item<float>() == 0),
        fused_(side.fused) {}

  absl::Status CheckShape(int64_t out_features, int64_t in_features) const override {
    if (imatrix_.numel() != in_features) {
      return absl::InvalidArgumentError(
          absl::StrCat("the imatrix has ", Count(imatrix_.numel(), "channel"), ", the weight has ", in_features));
    }
    return plain_->CheckShape(out_features, in_features);
  }

  int64_t row_multiple() const override { return layout_.groups; }

  at::Tensor Forward(const at::Tensor& rows, const at::Tensor& prepared) const override;
  void ForwardInto(const at::Tensor& rows, const at::Tensor& prepared, at::Tensor& out) const override;

  at::Tensor Backward(const at::Tensor&, const at::Tensor&, const at::Tensor& grad) const override { return grad; }

 private:
  bool Takes(const at::Tensor& rows) const;
  bool Fused(const at::Tensor& rows, at::Tensor& out) const;
  at::Tensor QuantizeRows(const at::Tensor& rows) const;
  at::Tensor WeightsFor(const at::Tensor& groups) const;
  at::Tensor QuantizeAsym(const at::Tensor& x, const at::Tensor& w) const;
  at::Tensor QuantizeSym(const at::Tensor& x, const at::Tensor& w) const;

  cpu::KFormat layout_;
  std::unique_ptr<WeightQuantizer> plain_;
  at::Tensor imatrix_;
  bool has_zero_, all_zero_, fused_;
};

at::Tensor Sum(const at::Tensor& t) { return t.sum(1, true); }

// Scale and minimum (of either sign; the group's smallest value may be above 0) of each group, [groups, 1] each.
struct Fit {
  at::Tensor scale, minimum;
};

struct Steps {
  double first, step;
  int count;
  bool absolute_error;
};

Fit FitRange(const at::Tensor& x, const at::Tensor& w, int top, const Steps& steps) {
  const auto error = [&](const at::Tensor& difference) {
    return Sum(steps.absolute_error ? w * difference.abs() : w * difference.square());
  };
  at::Tensor lo = x.amin(1, true);
  const at::Tensor hi = x.amax(1, true);
  const at::Tensor sum_w = Sum(w), sum_x = Sum(w * x);
  at::Tensor scale = (hi - lo).div_(Divisor(top, lo));
  const at::Tensor first = (x - lo).mul_(ReciprocalOrZeroBelowEps(scale)).round_().clamp_(0, top);
  at::Tensor best = error(scale * first + lo - x);
  for (int i = 0; i < steps.count; ++i) {
    const double levels = steps.first + steps.step * i + top;
    const at::Tensor trial = (hi - lo).div_(Divisor(levels, lo));
    const at::Tensor q = (x - lo).mul_(ReciprocalOrZeroBelowEps(trial)).round_().clamp_(0, top);
    const at::Tensor wq = w * q;
    const at::Tensor sum_l = Sum(wq), sum_l2 = Sum(wq * q), sum_xl = Sum(wq * x);
    const at::Tensor det = sum_w * sum_l2 - sum_l * sum_l;
    at::Tensor new_scale = (sum_w * sum_xl - sum_x * sum_l).div_(det);
    at::Tensor new_lo = (sum_l2 * sum_x - sum_l * sum_xl).div_(det);
    const at::Tensor positive = new_lo.gt(0);
    new_scale = at::where(positive, sum_xl / sum_l2, new_scale);
    new_lo.masked_fill_(positive, 0);
    const at::Tensor again = (x - new_lo).mul_(ReciprocalOrZeroBelowEps(new_scale)).round_().clamp_(0, top);
    const at::Tensor e = error(new_scale * again + new_lo - x);
    const at::Tensor better = e.lt(best).logical_and_(det.gt(0));
    best = at::where(better, e, best);
    scale = at::where(better, new_scale, scale);
    lo = at::where(better, new_lo, lo);
  }
  return {scale, lo};
}

// Fits each row of d [blocks, groups] by one factor times integers of `bits`: the products.
at::Tensor FitFactors(const at::Tensor& d, const at::Tensor& w, int bits) {
  const double top = (1 << bits) - 1;
  const at::Tensor peak = d.amax(1, true);
  const at::Tensor plain = peak / Divisor(top, peak);
  at::Tensor inverse = ReciprocalOrZeroBelowEps(plain);
  at::Tensor best = Sum(w * (d - plain * (inverse * d).round()).square());
  for (int k = -4; k <= 4; ++k) {
    if (k == 0) continue;
    const at::Tensor trial = peak / Divisor(0.1 * k + top, peak);
    const at::Tensor trial_inverse = ReciprocalOrZeroBelowEps(trial);
    const at::Tensor q = (trial_inverse * d).round_().clamp_max_(top);
    const at::Tensor e = Sum(w * (d - trial * q).square());
    const at::Tensor better = e.lt(best);
    best = at::where(better, e, best);
    inverse = at::where(better, trial_inverse, inverse);
  }
  const at::Tensor q = (inverse * d).round_().clamp_max_(top);
  const at::Tensor weight = Sum(w * q * q);
  return at::where(weight.gt(0), Sum(w * d * q) / weight, plain) * q;
}

// Scale of each group for signed integers of `bits`, and what the 3-bit refinement starts from.
struct SignedFit {
  at::Tensor scale, q, sum_xl, sum_l2;
};

SignedFit FitSigned(const at::Tensor& x, const at::Tensor& w, int half, bool search) {
  const at::Tensor peak = x.gather(1, FirstArgAmax(x));
  const auto round = [&](const at::Tensor& inverse) { return (inverse * x).round_().clamp_(-half, half - 1); };
  SignedFit fit;
  const at::Tensor wx = w * x;
  fit.q = round(ReciprocalOrZeroBelowEps(peak).mul_(-half));
  fit.sum_xl = Sum(wx * fit.q);
  fit.sum_l2 = Sum(w * fit.q * fit.q);
  fit.scale = fit.sum_xl * ReciprocalOrZeroBelowEps(fit.sum_l2);
  if (!search) return fit;
  at::Tensor best = fit.scale * fit.sum_xl;
  for (int k = -9; k <= 9; ++k) {
    if (k == 0) continue;
    const at::Tensor q = round(at::full_like(peak, -(half - 0.1 * k)).div_(peak));
    const at::Tensor a = Sum(wx * q), b = Sum(w * q * q);
    const at::Tensor better = b.gt(0).logical_and_((a * a).gt(best * b));
    const at::Tensor scale = a / b;
    fit.scale = at::where(better, scale, fit.scale);
    best = at::where(better, scale * a, best);
  }
  return fit;
}

// The 3-bit refinement, element by element and five times over; sums are updated whether or not a change is kept, as
// the reference does (docs/algorithm.md 4.9).
at::Tensor Refine3Bit(const at::Tensor& x, const at::Tensor& w, const SignedFit& fit) {
  at::Tensor a = fit.sum_xl, b = fit.sum_l2;
  std::vector<at::Tensor> q = fit.q.split(1, 1), xs = x.split(1, 1), ws = w.split(1, 1);
  for (int pass = 0; pass < 5; ++pass) {
    for (size_t i = 0; i < q.size(); ++i) {
      const at::Tensor wx = ws[i] * xs[i];
      at::Tensor sum_a = a - wx * q[i];
      const at::Tensor positive = sum_a.gt(0);
      at::Tensor sum_b = b - ws[i] * q[i] * q[i];
      const at::Tensor n = (xs[i] * sum_b / sum_a).round_().clamp_(-4, 3);
      const at::Tensor changes = positive.logical_and(n.ne(q[i]));
      sum_a = at::where(changes, sum_a + wx * n, sum_a);
      sum_b = at::where(changes, sum_b + ws[i] * n * n, sum_b);
      const at::Tensor keep = positive.logical_and(sum_b.gt(0)).logical_and_((sum_a * sum_a * b).gt(a * a * sum_b));
      q[i] = at::where(keep, n, q[i]);
      a = sum_a;
      b = sum_b;
    }
  }
  return a * ReciprocalOrZeroBelowEps(b);
}

at::Tensor ZeroBelowEps(const at::Tensor& t) { return t.masked_fill(t.abs().lt(1e-30), 0); }

at::Tensor KQuantSearch::Forward(const at::Tensor& rows, const at::Tensor& prepared) const {
  at::NoGradGuard no_grad;
  if (rows.numel() == 0) return rows;
  if (!Takes(rows)) return plain_->Forward(rows, prepared);
  at::Tensor y = at::empty_like(rows, at::MemoryFormat::Contiguous);
  if (Fused(rows, y)) return y;
  const int64_t height = rows.size(0), width = rows.size(1);
  const int64_t per_row = width / layout_.group;
  const int64_t unit = layout_.groups / std::gcd<int64_t>(per_row, layout_.groups);
  const bool host = OnHost(rows);
  const int64_t elements = host ? kSliceElements : kDeviceSliceElements;
  const int64_t step = std::max<int64_t>(1, elements / (unit * width)) * unit, slices = CeilDiv(height, step);
  const auto work = [&](int64_t begin, int64_t end) {
    at::NoGradGuard no_grad_here;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t count = std::min(step, height - i * step);
      y.narrow(0, i * step, count).copy_(QuantizeRows(rows.detach().narrow(0, i * step, count)));
    }
  };
  host ? at::parallel_for(0, slices, 1, work) : work(0, slices);
  return y;
}

void KQuantSearch::ForwardInto(const at::Tensor& rows, const at::Tensor& prepared, at::Tensor& out) const {
  at::NoGradGuard no_grad;
  if (rows.numel() == 0) return;
  if (!Takes(rows)) return plain_->ForwardInto(rows, prepared, out);
  if (!Fused(rows, out)) WeightQuantizer::ForwardInto(rows, prepared, out);
}

// Symmetric types search in blocks of 256 along the row, the others in whole groups; the reference raises for others.
bool KQuantSearch::Takes(const at::Tensor& rows) const {
  return rows.size(1) % (layout_.sym ? layout_.group * layout_.groups : layout_.group) == 0;
}

// False where only the expressions below do, or their way with huge values is needed.
bool KQuantSearch::Fused(const at::Tensor& rows, at::Tensor& out) const {
  if (!fused_ || all_zero_ || !FusableInto(rows, out)) return false;
  const at::Tensor x = rows.detach();
  const at::Tensor weights =
      has_zero_ ? WeightsFor(x.to(at::kFloat).reshape({-1, layout_.group})).contiguous() : imatrix_.to(x.device());
  return FusedKQuant(layout_, x, weights, out);
}

at::Tensor KQuantSearch::QuantizeRows(const at::Tensor& rows) const {
  const at::Tensor groups = rows.reshape({-1, layout_.group});
  const auto quantize = [&](const at::Tensor& x) {
    const at::Tensor w = WeightsFor(all_zero_ ? x.to(rows.scalar_type()) : x);
    return layout_.sym ? QuantizeSym(x, w) : QuantizeAsym(x, w);
  };
  return WithoutOverflow(groups.to(at::kFloat), quantize).reshape(rows.sizes());
}

// The weight of each element, float32 [groups, group].
at::Tensor KQuantSearch::WeightsFor(const at::Tensor& groups) const {
  const auto magnitude = [&](bool plain) {
    if (plain) return groups.abs();
    return groups.abs() + groups.square().sum(1, true).div_(32).sqrt_();
  };
  if (all_zero_) return layout_.sym ? groups.to(at::kFloat).square() : magnitude(layout_.bits == 2).to(at::kFloat);
  const int64_t per_row = imatrix_.numel() / layout_.group;
  const at::Tensor w = imatrix_.to(groups.device())
                           .reshape({1, per_row, layout_.group})
                           .expand({groups.size(0) / per_row, per_row, layout_.group})
                           .reshape({-1, layout_.group});
  if (!has_zero_) return w;
  const int64_t width = layout_.bits == 2 ? 16 : 32;
  const at::Tensor zeros = w.le(1e-30).sum(1, true);
  // Beside what the reference does, groups that are zeros throughout: it divides 0 by 0 there (docs/algorithm.md 9.2).
  const at::Tensor mostly = zeros.gt(width / 2).logical_or_(zeros.eq(layout_.group));
  const at::Tensor fill = w.sum(1, true) / (layout_.group - zeros);
  return at::where(mostly, magnitude(layout_.bits <= 3), at::where(w.eq(0), fill, w));
}

at::Tensor KQuantSearch::QuantizeAsym(const at::Tensor& x, const at::Tensor& w) const {
  const int top = (1 << layout_.bits) - 1;
  Steps steps{-0.9, 0.05, 36, false};
  if (all_zero_) steps = layout_.bits == 4 ? Steps{-1, 0.1, 20, false} : Steps{-0.5, 0.1, 15, layout_.bits == 2};
  const Fit fit = FitRange(x, w, top, steps);
  const at::Tensor scales = ZeroBelowEps(fit.scale).reshape({-1, layout_.groups});
  const at::Tensor minima =
      (all_zero_ ? ZeroBelowEps(fit.minimum.neg()) : fit.minimum.neg()).reshape({-1, layout_.groups});
  at::Tensor scale, minimum;
  if (all_zero_) {
    scale = QuantizeScales(scales, layout_.scale_bits);
    minimum = QuantizeScales(minima, layout_.scale_bits);
  } else {
    const at::Tensor group_weights = Sum(w).reshape({-1, layout_.groups});
    scale = FitFactors(scales, group_weights, layout_.scale_bits);
    minimum = FitFactors(minima, group_weights, layout_.scale_bits);
  }
  scale = scale.reshape({-1, 1});
  minimum = minimum.reshape({-1, 1});
  at::Tensor q = (x + minimum).mul_(ReciprocalOrZeroBelowEps(scale)).round_().clamp_(0, top);
  return q.mul_(scale).sub_(minimum);
}

at::Tensor KQuantSearch::QuantizeSym(const at::Tensor& x, const at::Tensor& w) const {
  const int half = 1 << (layout_.bits - 1);
  const bool refine = all_zero_ && layout_.bits == 3;
  const SignedFit fit = FitSigned(x, w, half, !refine);
  const at::Tensor found = refine ? Refine3Bit(x, w, fit) : fit.scale;
  const at::Tensor scales = ZeroBelowEps(found).reshape({-1, layout_.groups});
  const at::Tensor scale = QuantizeSignedScales(scales, layout_.scale_bits).reshape({-1, 1});
  return (ReciprocalOrZeroBelowEps(scale) * x).round_().clamp_(-half, half - 1).mul_(scale);
}

}  // namespace

std::unique_ptr<WeightQuantizer> MakeKQuantSearch(const Side& side, const at::Tensor& imatrix) {
  return std::make_unique<KQuantSearch>(side, imatrix);
}

}  // namespace autoscheme
