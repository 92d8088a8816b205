#include "quant/grouped.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checked.h"
#include "device/torch_devices.h"
#include "quant/fused.h"
#include "quant/rounding.h"
#include "tensor/row_chunks.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {
namespace {

// A tensor as a matrix of groups, and back. Padding is zeros; what comes back is without it.
class Grouping {
 public:
  // x: at least one dimension, not empty.
  Grouping(const GroupSize& group, const at::Tensor& x) : group_(group), sizes_(x.sizes().vec()), width_(x.size(-1)) {
    height_ = x.numel() / width_;
    if (group_.rows > 0) {
      tiles_down_ = (height_ + group_.rows - 1) / group_.rows;
      tiles_across_ = (width_ + group_.size - 1) / group_.size;
    } else if (group_.size == 0) {
      cells_ = x.numel();
    } else {
      // A row narrower than the group is one group as it stands.
      cells_ = group_.size < 0 || width_ < group_.size ? width_ : group_.size;
      padded_width_ = (width_ + cells_ - 1) / cells_ * cells_;
    }
  }

  at::Tensor Split(const at::Tensor& x) const {
    const at::Tensor flat = x.reshape({height_, width_});
    if (group_.rows > 0) {
      const int64_t down = tiles_down_ * group_.rows - height_, across = tiles_across_ * group_.size - width_;
      return at::constant_pad_nd(flat, {0, across, 0, down})
          .reshape({tiles_down_, group_.rows, tiles_across_, group_.size})
          .transpose(1, 2)
          .reshape({tiles_down_ * tiles_across_, static_cast<int64_t>(group_.rows) * group_.size})
          .contiguous();
    }
    if (group_.size == 0) return flat.reshape({1, cells_}).contiguous();
    if (padded_width_ == width_) return flat.reshape({-1, cells_}).contiguous();
    return at::constant_pad_nd(flat, {0, padded_width_ - width_}).reshape({-1, cells_});
  }

  at::Tensor Join(const at::Tensor& groups) const {
    if (group_.rows > 0) {
      return groups.reshape({tiles_down_, tiles_across_, group_.rows, group_.size})
          .transpose(1, 2)
          .reshape({tiles_down_ * group_.rows, tiles_across_ * group_.size})
          .narrow(0, 0, height_)
          .narrow(1, 0, width_)
          .reshape(sizes_);
    }
    if (group_.size == 0 || padded_width_ == width_) return groups.reshape(sizes_);
    return groups.reshape({height_, padded_width_}).narrow(1, 0, width_).reshape(sizes_);
  }

 private:
  GroupSize group_;
  std::vector<int64_t> sizes_;
  int64_t width_, height_ = 0, cells_ = 0, padded_width_ = 0, tiles_down_ = 0, tiles_across_ = 0;
};

// Both sides of a quantizer, by the fused loops where there are any. No graph is made.
class GroupedSide {
 public:
  explicit GroupedSide(const Side& side) : side_(side), codec_(MakeCodec(side)) {}
  const GroupSize& group() const { return side_.group; }
  bool needs_whole_tensor() const { return NeedsWholeTensor(*side_.type, side_.group); }
  // Slices take groups in multiples of this, beginning at such a multiple.
  int64_t group_multiple() const { return std::max(1, side_.type->super.groups); }

  // The largest magnitude, where the codec asks for it.
  at::Tensor Prepare(const at::Tensor& x) const {
    at::NoGradGuard no_grad;
    return x.numel() > 0 && needs_whole_tensor() ? AmaxTensor(x.detach()) : at::Tensor();
  }

  at::Tensor Forward(const at::Tensor& x, const at::Tensor& prepared) const {
    at::NoGradGuard no_grad;
    if (x.numel() == 0) return x;
    if (x.scalar_type() == at::kHalf) return Saturated(Forward(x.to(at::kFloat), prepared), at::kHalf);
    const at::Tensor plain = x.detach().contiguous();
    at::Tensor y = NewLike(plain);
    if (Fused(plain, prepared, plain.scalar_type(), y)) return y;
    return BySlices(plain, false, [&](const at::Tensor& groups, int64_t first, int64_t count) {
      return Saturated(codec_->Forward(groups.narrow(0, first, count), prepared), groups.scalar_type());
    });
  }

  void ForwardInto(const at::Tensor& x, const at::Tensor& prepared, at::Tensor& out) const {
    at::NoGradGuard no_grad;
    if (x.numel() == 0 || Fused(x.detach(), prepared, at::kFloat, out)) return;
    out.copy_(Saturated(Forward(x.to(at::kFloat), prepared), out.scalar_type()));
  }

  at::Tensor Backward(const at::Tensor& x, const at::Tensor& prepared, const at::Tensor& grad) const {
    at::NoGradGuard no_grad;
    if (x.numel() == 0) return grad;
    const at::Tensor plain = x.detach().contiguous(), g = grad.detach().contiguous();
    at::Tensor dx = NewLike(plain);
    const std::optional<cpu::Format> format = side_.fused ? codec_->FusedBackward(plain.scalar_type()) : std::nullopt;
    if (format.has_value() && TakesGroups(*format) && FusableInto(plain, dx) &&
        g.scalar_type() == plain.scalar_type()) {
      FusedBackward(*format, side_.group, plain, g, Whole(plain, prepared), !codec_->backward_needs_whole_tensor(), dx);
      return dx;
    }
    const at::Tensor grads = Grouping(side_.group, plain).Split(g);
    const bool whole = codec_->backward_needs_whole_tensor();
    return BySlices(plain, whole, [&](const at::Tensor& groups, int64_t first, int64_t count) {
      return codec_->Backward(groups.narrow(0, first, count), prepared, grads.narrow(0, first, count));
    });
  }

 private:
  // The results of work(groups, first, count) for all groups of x, in the shape of x. Slices keep temporaries in a
  // core's cache, and memory bounded, whatever the size of the tensor; several are worked at a time, but on a device,
  // which has a parallelism of its own. One slice is all of x when `whole`.
  template <typename Work>
  at::Tensor BySlices(const at::Tensor& x, bool whole, const Work& work) const {
    const bool host = OnHost(x);
    const int64_t elements = host ? 1 << 14 : kDeviceChunkElements;
    const Grouping grouping(side_.group, x);
    const at::Tensor groups = grouping.Split(x), y = NewLike(groups);
    const int64_t count = groups.size(0), multiple = group_multiple();
    const int64_t rows = whole ? count : std::max<int64_t>(1, elements / groups.size(1) / multiple) * multiple;
    const auto slice = [&](int64_t first) {
      const int64_t height = std::min(rows, count - first);
      y.narrow(0, first, height).copy_(work(groups, first, height));
    };
    if (count <= rows || !host) {
      for (int64_t first = 0; first < count; first += rows) slice(first);
    } else {
      at::parallel_for(0, CeilDiv(count, rows), 1, [&](int64_t begin, int64_t end) {
        at::NoGradGuard no_grad;  // a property of the thread
        for (int64_t i = begin; i < end; ++i) slice(i * rows);
      });
    }
    return grouping.Join(y);
  }

  // False where the expressions must do it. `dtype`: that x is to be worked as.
  bool Fused(const at::Tensor& x, const at::Tensor& prepared, at::ScalarType dtype, at::Tensor& y) const {
    if (!side_.fused || !FusableInto(x, y)) return false;
    if (const auto format = codec_->FusedForward(dtype); format.has_value()) {
      if (!TakesGroups(*format)) return false;
      FusedForward(*format, side_.group, x, Whole(x, prepared), y);
      return true;
    }
    // Groups of a narrower row, or of one that they do not fill, are none that a super-group's loop knows.
    const auto format = codec_->FusedKQuant(dtype);
    if (!format.has_value() || x.size(-1) % format->group != 0) return false;
    return FusedKQuant(*format, x, {}, y);
  }

  bool TakesGroups(const cpu::Format& format) const {
    return format.family == cpu::Family::kFp8 || (side_.group.size != 0 && side_.group.rows == 0);
  }
  // Without `prepared`, x is the whole.
  at::Tensor Whole(const at::Tensor& x, const at::Tensor& prepared) const {
    if (!needs_whole_tensor()) return {};
    return prepared.defined() ? prepared : Amax(x);
  }

  Side side_;
  std::unique_ptr<GroupCodec> codec_;
};

class GroupedWeight : public WeightQuantizer {
 public:
  explicit GroupedWeight(const Side& side) : side_(side) {}

  absl::Status CheckShape(int64_t out_features, int64_t in_features) const override {
    const int64_t multiple = side_.group_multiple(), size = side_.group().size;
    if (multiple == 1) return absl::OkStatus();
    const int64_t groups = out_features * CeilDiv(in_features, std::min<int64_t>(size, in_features));
    if (groups % multiple == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("a weight of ", out_features, " x ", in_features, " has ", groups,
                                                   " groups of ", size, ", which super-groups of ", multiple,
                                                   " do not divide"));
  }

  int64_t row_multiple() const override {
    const GroupSize& group = side_.group();
    if (group.rows > 0) return group.rows;
    if (side_.group_multiple() > 1) return side_.group_multiple();
    return group.size == 0 && !side_.needs_whole_tensor() ? 0 : 1;
  }
  bool needs_whole_tensor() const override { return side_.needs_whole_tensor(); }

  at::Tensor Prepare(const at::Tensor& weight) const override { return side_.Prepare(weight); }
  at::Tensor Forward(const at::Tensor& rows, const at::Tensor& prepared) const override {
    return side_.Forward(rows, prepared);
  }
  void ForwardInto(const at::Tensor& rows, const at::Tensor& prepared, at::Tensor& out) const override {
    side_.ForwardInto(rows, prepared, out);
  }
  at::Tensor Backward(const at::Tensor& rows, const at::Tensor& prepared, const at::Tensor& grad) const override {
    return side_.Backward(rows, prepared, grad);
  }

 private:
  GroupedSide side_;
};

class GroupedActivation : public ActivationQuantizer {
 public:
  explicit GroupedActivation(const Side& side) : side_(side) {}

  at::Tensor Forward(const at::Tensor& x) const override { return side_.Forward(x, side_.Prepare(x)); }
  void ForwardInto(const at::Tensor& x, at::Tensor& out) const override { side_.ForwardInto(x, side_.Prepare(x), out); }
  at::Tensor Backward(const at::Tensor& x, const at::Tensor& grad) const override {
    return side_.Backward(x, side_.Prepare(x), grad);
  }

 private:
  GroupedSide side_;
};

}  // namespace

std::unique_ptr<WeightQuantizer> MakeGroupedWeight(const Side& side) { return std::make_unique<GroupedWeight>(side); }

std::unique_ptr<ActivationQuantizer> MakeGroupedActivation(const Side& side) {
  return std::make_unique<GroupedActivation>(side);
}

}  // namespace autoscheme
