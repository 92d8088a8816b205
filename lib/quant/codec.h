// GroupCodec: quant-dequant of groups that lie as the rows of a matrix. Each family of formats is one codec; grouping,
// padding, slicing and threads are the same for all and live in grouped.cc.
#ifndef AUTOSCHEME_QUANT_CODEC_H_
#define AUTOSCHEME_QUANT_CODEC_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>

#include "autoscheme/scheme.h"
#include "quant/kernels.h"

namespace autoscheme {

class GroupCodec {
 public:
  virtual ~GroupCodec() = default;

  // True when one number of the whole tensor enters every group; Prepare computes it.
  virtual bool needs_whole_tensor() const { return false; }
  virtual at::Tensor Prepare(const at::Tensor& /*whole*/) const { return {}; }

  // Forward and Backward take groups in multiples of this, beginning at such a multiple.
  virtual int64_t group_multiple() const { return 1; }

  // x: [groups, size], contiguous, float32 or bfloat16, not empty. Result: same shape and dtype.
  virtual at::Tensor Forward(const at::Tensor& x, const at::Tensor& prepared) const = 0;
  // dL/dx, in x's dtype, for dL/dy = grad.
  virtual at::Tensor Backward(const at::Tensor& x, const at::Tensor& prepared, const at::Tensor& grad) const = 0;
  // True when Backward must see all groups at once, because a gradient flows through `prepared`.
  virtual bool backward_needs_whole_tensor() const { return false; }

  // What the fused loops need to know to do the same to a CPU tensor of `dtype`. They then run instead; the expressions
  // above remain for other devices, and as what tests compare with. Nullopt: there is no such loop.
  virtual std::optional<cpu::Format> FusedForward(at::ScalarType /*dtype*/) const { return std::nullopt; }
  virtual std::optional<cpu::Format> FusedBackward(at::ScalarType /*dtype*/) const { return std::nullopt; }
  virtual std::optional<cpu::KFormat> FusedKType(at::ScalarType /*dtype*/) const { return std::nullopt; }
};

// One side of a scheme, with the fields that concern it.
struct Side {
  bool weight = true;
  int bits = 4;
  GroupSize group;
  bool sym = true;
  std::string data_type;
  int act_bits = 16;  // of the scheme: decides the dtype of integer scales (docs/algorithm.md 4.2)
  bool super_groups = false;
  bool fused = true;  // use the loops of kernels.h where there is one; tests compare with and without
};

// docs/algorithm.md 4.2: int, int_asym_float_zp.
std::unique_ptr<GroupCodec> MakeIntCodec(const Side& side);
// docs/algorithm.md 4.3: mx_fp, mx_fp_rceil, mx_int.
std::unique_ptr<GroupCodec> MakeMxCodec(const Side& side);
// docs/algorithm.md 4.4: nv_fp, nv_fp4_with_static_gs.
std::unique_ptr<GroupCodec> MakeNvfp4Codec(const Side& side);
// docs/algorithm.md 4.5: nvfp4_v2.
std::unique_ptr<GroupCodec> MakeE5m3Codec(const Side& side);
// docs/algorithm.md 4.6: fp.
std::unique_ptr<GroupCodec> MakeFp8Codec(const Side& side);

}  // namespace autoscheme

#endif  // AUTOSCHEME_QUANT_CODEC_H_
