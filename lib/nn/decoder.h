// The forward pass of every model: what a ModelSpec says, computed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/decoder_spec.h"

namespace autoscheme {

// What a forward pass asks of whoever runs it: the linears (quantized or not) and the small tensors.
class BlockOps {
 public:
  virtual ~BlockOps() = default;
  // x [..., in] -> [..., out] of the block's `index`-th linear, bias included.
  virtual at::Tensor Linear(int index, const at::Tensor& x) = 0;
  // The `index`-th param of the block, or of ModelSpec::others, in the compute dtype.
  virtual const at::Tensor& Param(int index) = 0;
  // PositionTables for the run's sequence length.
  virtual const at::Tensor& position_tables() const = 0;
};

// Whatever depends on positions alone (rotary cos and sin), float32.
at::Tensor PositionTables(const ModelSpec& spec, int64_t seqlen);

// [batch, seq, hidden] -> same. Differentiable in x where autograd is on.
at::Tensor Forward(const Sublayer& sublayer, const at::Tensor& x, BlockOps& ops);

// Output of the last block -> input of the head.
at::Tensor FinalNorm(const ModelSpec& spec, const at::Tensor& x, BlockOps& ops);

}  // namespace autoscheme
