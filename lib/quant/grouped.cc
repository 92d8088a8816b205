#include "quant/grouped.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checked.h"

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

// Calls work(first, count) over all rows of `groups`, several slices at a time: temporaries stay in a core's cache, and
// memory bounded, whatever the size of the tensor. One slice is the whole matrix when `whole`, or on a device that has
// its own parallelism.
void ForEachSlice(const GroupCodec& codec, const at::Tensor& groups, bool whole,
                  const std::function<void(int64_t, int64_t)>& work) {
  const int64_t count = groups.size(0), multiple = codec.group_multiple();
  const int64_t rows = std::max<int64_t>(1, codec.slice_elements() / groups.size(1) / multiple) * multiple;
  if (whole || !groups.is_cpu() || count <= rows) {
    work(0, count);
    return;
  }
  at::parallel_for(0, (count + rows - 1) / rows, 1, [&](int64_t begin, int64_t end) {
    at::NoGradGuard no_grad;  // a property of the thread
    for (int64_t slice = begin; slice < end; ++slice) {
      work(slice * rows, std::min(rows, count - slice * rows));
    }
  });
}

at::Tensor ForwardGroups(const GroupCodec& codec, const at::Tensor& groups, const at::Tensor& prepared) {
  const at::Tensor y = at::empty_like(groups);
  ForEachSlice(codec, groups, false, [&](int64_t first, int64_t count) {
    at::Tensor slice = y.narrow(0, first, count);
    codec.ForwardInto(groups.narrow(0, first, count), prepared, slice);
  });
  return y;
}

at::Tensor BackwardGroups(const GroupCodec& codec, const at::Tensor& groups, const at::Tensor& prepared,
                          const at::Tensor& grad) {
  const at::Tensor dx = at::empty_like(groups);
  ForEachSlice(codec, groups, codec.backward_needs_whole_tensor(), [&](int64_t first, int64_t count) {
    dx.narrow(0, first, count)
        .copy_(codec.Backward(groups.narrow(0, first, count), prepared, grad.narrow(0, first, count)));
  });
  return dx;
}

class GroupedWeight : public WeightQuantizer {
 public:
  GroupedWeight(const GroupSize& group, std::unique_ptr<GroupCodec> codec) : group_(group), codec_(std::move(codec)) {}

  absl::Status CheckShape(int64_t out_features, int64_t in_features) const override {
    const int64_t multiple = codec_->group_multiple();
    if (multiple == 1) return absl::OkStatus();
    const int64_t groups = out_features * CeilDiv(in_features, std::min<int64_t>(group_.size, in_features));
    if (groups % multiple == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("a weight of ", out_features, " x ", in_features, " has ", groups,
                                                   " groups of ", group_.size, ", which super-groups of ", multiple,
                                                   " do not divide"));
  }

  int64_t row_multiple() const override {
    if (group_.rows > 0) return group_.rows;
    if (codec_->group_multiple() > 1) return codec_->group_multiple();
    return group_.size == 0 && !codec_->needs_whole_tensor() ? 0 : 1;
  }
  bool needs_whole_tensor() const override { return codec_->needs_whole_tensor(); }

  at::Tensor Prepare(const at::Tensor& weight) const override {
    at::NoGradGuard no_grad;
    return weight.numel() == 0 ? at::Tensor() : codec_->Prepare(weight);
  }

  at::Tensor Forward(const at::Tensor& rows, const at::Tensor& prepared) const override {
    at::NoGradGuard no_grad;
    if (rows.numel() == 0) return rows;
    const Grouping grouping(group_, rows);
    return grouping.Join(ForwardGroups(*codec_, grouping.Split(rows.detach()), prepared));
  }

  at::Tensor Backward(const at::Tensor& rows, const at::Tensor& prepared, const at::Tensor& grad) const override {
    at::NoGradGuard no_grad;
    if (rows.numel() == 0) return grad;
    const Grouping grouping(group_, rows);
    return grouping.Join(
        BackwardGroups(*codec_, grouping.Split(rows.detach()), prepared, grouping.Split(grad.detach())));
  }

 private:
  GroupSize group_;
  std::unique_ptr<GroupCodec> codec_;
};

class GroupedActivation : public ActivationQuantizer {
 public:
  GroupedActivation(const GroupSize& group, std::unique_ptr<GroupCodec> codec)
      : group_(group), codec_(std::move(codec)) {}

  bool spans_batch() const override { return codec_->needs_whole_tensor() || group_.size == 0 || group_.rows > 1; }
  int temporaries() const override { return codec_->backward_temporaries(); }

  at::Tensor Forward(const at::Tensor& x) const override {
    at::NoGradGuard no_grad;
    if (x.numel() == 0) return x;
    const Grouping grouping(group_, x);
    const at::Tensor prepared = codec_->Prepare(x.detach());
    return grouping.Join(ForwardGroups(*codec_, grouping.Split(x.detach()), prepared));
  }

  at::Tensor Backward(const at::Tensor& x, const at::Tensor& grad) const override {
    at::NoGradGuard no_grad;
    if (x.numel() == 0) return grad;
    const Grouping grouping(group_, x);
    const at::Tensor prepared = codec_->Prepare(x.detach());
    return grouping.Join(BackwardGroups(*codec_, grouping.Split(x.detach()), prepared, grouping.Split(grad.detach())));
  }

 private:
  GroupSize group_;
  std::unique_ptr<GroupCodec> codec_;
};

}  // namespace

void GroupCodec::ForwardInto(const at::Tensor& x, const at::Tensor& prepared, at::Tensor& y) const {
  const float narrow = std::numeric_limits<c10::BFloat16>::max(), wide = std::numeric_limits<float>::max();
  const double top = x.scalar_type() == at::kBFloat16 ? narrow : wide;
  at::clamp_out(y, Forward(x, prepared), -top, top);
}

std::unique_ptr<WeightQuantizer> MakeGroupedWeight(const GroupSize& group, std::unique_ptr<GroupCodec> codec) {
  return std::make_unique<GroupedWeight>(group, std::move(codec));
}

std::unique_ptr<ActivationQuantizer> MakeGroupedActivation(const GroupSize& group, std::unique_ptr<GroupCodec> codec) {
  return std::make_unique<GroupedActivation>(group, std::move(codec));
}

}  // namespace autoscheme
