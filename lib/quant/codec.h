// GroupCodec: quant-dequant of groups that lie as the rows of a matrix. Each family of formats is one codec; grouping,
// padding, slicing and threads are the same for all and live in grouped.cc.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>

#include "formats/data_types.h"
#include "quant/kernels.h"

namespace autoscheme {

class GroupCodec {
 public:
  virtual ~GroupCodec() = default;

  // x: [groups, size], contiguous, float32 or bfloat16, not empty; whole super-groups. `largest`: the largest magnitude
  // of the whole tensor, float32, where NeedsWholeTensor. Result: same shape and dtype.
  virtual at::Tensor Forward(const at::Tensor& x, const at::Tensor& largest) const = 0;
  // dL/dx, in x's dtype, for dL/dy = grad.
  virtual at::Tensor Backward(const at::Tensor& x, const at::Tensor& largest, const at::Tensor& grad) const = 0;
  // True when Backward must see all groups at once, because a gradient flows through `largest`.
  virtual bool backward_needs_whole_tensor() const { return false; }

  // What the fused loops need to know to do the same to a CPU tensor of `dtype`. They then run instead; the expressions
  // above remain for other devices, and as what tests compare with. Nullopt: there is no such loop.
  virtual std::optional<cpu::Format> FusedForward(at::ScalarType /*dtype*/) const { return std::nullopt; }
  virtual std::optional<cpu::Format> FusedBackward(at::ScalarType dtype) const { return FusedForward(dtype); }
  virtual std::optional<cpu::KFormat> FusedKQuant(at::ScalarType /*dtype*/) const { return std::nullopt; }
};

// One side of a scheme, with the fields that concern it.
struct Side {
  bool weight = true;
  const DataType* type = nullptr;
  int bits = 4;
  GroupSize group;
  bool sym = true;
  int act_bits = 16;  // the scheme's: decides the dtype of integer scales (docs/algorithm.md 4.2)
  bool fused = true;  // use the loops of kernels.h where there is one; tests compare with and without
};

// The codec of the side's data type.
std::unique_ptr<GroupCodec> MakeCodec(const Side& side);

// docs/algorithm.md 4.2: int, int_asym_float_zp.
std::unique_ptr<GroupCodec> MakeIntCodec(const Side& side);
// docs/algorithm.md 4.3: mx_fp, mx_fp_rceil, mx_int.
std::unique_ptr<GroupCodec> MakeMxCodec(const Side& side);
// docs/algorithm.md 4.4: nv_fp, nv_fp4_with_static_gs.
std::unique_ptr<GroupCodec> MakeNvfp4Codec(const Side& side);
// docs/algorithm.md 4.5: nvfp4_v2.
std::unique_ptr<GroupCodec> MakeE5m3Codec();
// docs/algorithm.md 4.6: fp.
std::unique_ptr<GroupCodec> MakeFp8Codec(const Side& side);
// docs/algorithm.md 4.7: k-quants, without an importance matrix. The gradient is the identity: the result is a constant
// for scoring.
std::unique_ptr<GroupCodec> MakeKQuantCodec(const DataType& type);

}  // namespace autoscheme
