// The forward pass of every model: what a ModelSpec says, computed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

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
  // One of PositionTables for the run's sequence length.
  virtual const at::Tensor& position_tables(int table) const = 0;
};

// Rotary cos and sin (RopeTables), by ModelSpec::tables.
std::vector<at::Tensor> PositionTables(const ModelSpec& spec, int64_t seqlen);

// [batch, seq, hidden] -> same. Differentiable in x where autograd is on.
at::Tensor Forward(const Sublayer& sublayer, const at::Tensor& x, BlockOps& ops);

// The embedding's rows [batch, seq, width] of some tokens -> input of the first block [batch, seq, hidden].
at::Tensor EmbeddedRows(const ModelSpec& spec, const at::Tensor& rows, BlockOps& ops);

// Output of the last block -> input of the head [batch, seq, in_features]. Differentiable in x.
at::Tensor HeadInputs(const ModelSpec& spec, const at::Tensor& x, BlockOps& ops);

}  // namespace autoscheme
