// What the plain and the imatrix-weighted K types share (SPEC 3.11).
#ifndef AUTOSCHEME_QUANT_GGUF_H_
#define AUTOSCHEME_QUANT_GGUF_H_

#include <ATen/core/Tensor.h>

#include <memory>

#include "quant/codec.h"

namespace autoscheme {

struct KLayout {
  int bits;
  int group;       // elements that share a scale
  int groups;      // groups that share the factors of their scales and minima
  int scale_bits;  // of those scales and minima
  bool sym;
};
// bits: 2, 3, 4, 5 or 6.
KLayout KLayoutOf(int bits);

// t [blocks, groups] >= 0 -> integers of `bits` times one factor per row, the largest kept.
at::Tensor QuantizeScales(const at::Tensor& t, int bits);
// The same for scales of either sign, -2^(bits-1) for the largest magnitude.
at::Tensor QuantizeSignedScales(const at::Tensor& t, int bits);

// Blocks whose values are so large that sums or differences of them would leave float32 are worked at 2^-64 of their
// size; the rest is left as it is. A power of two changes no digit.
class HugeBlocks {
 public:
  HugeBlocks(const at::Tensor& groups, int64_t groups_in_block, double largest);
  at::Tensor Shrink(const at::Tensor& groups) const;
  // In place, and kept finite.
  at::Tensor Restore(at::Tensor y) const;

 private:
  at::Tensor factor_;  // [groups, 1]
};

// Without an imatrix. The gradient is the identity: a K type's result is a constant for scoring.
std::unique_ptr<GroupCodec> MakeKCodec(const Side& side);
// With one: float32 [in_features].
std::unique_ptr<GroupCodec> MakeKSearchCodec(const Side& side, const at::Tensor& imatrix);

}  // namespace autoscheme

#endif  // AUTOSCHEME_QUANT_GGUF_H_
