// ScoredLinear: one linear layer under one scheme, as an autograd function that measures while it differentiates.
#ifndef AUTOSCHEME_EXEC_SCORED_LINEAR_H_
#define AUTOSCHEME_EXEC_SCORED_LINEAR_H_

#include <cstdint>
#include <functional>
#include <memory>

#include <ATen/core/Tensor.h>

#include "autoscheme/score_table.h"
#include "autoscheme/tensor.h"
#include "quant/quantizer.h"
#include "exec/linear_input.h"
#include "exec/precision.h"
#include "exec/products.h"
#include "exec/weight_tiles.h"

namespace autoscheme {

// y = Q(x) Q(W)^T + bias. The weight is quantized and multiplied by row chunks, so that no full-size dequantized copy
// exists unless it is cached; the backward pass forms dW by the same chunks and folds |dW * (W - Wq)| at once, so that dW
// never exists whole either (SPEC 4.1) - but for a batch that comes in slices, whose dW must be summed before |.|.
//
// Bind it before use and Unbind it before its bytes go. Not copyable: autograd nodes point at it, and it must live until
// their backward pass.
class ScoredLinear {
 public:
  struct Options {
    Precision precision;
    uint64_t chunk_bytes = uint64_t{8} << 20;  // of a dequantized row chunk
    bool cache_weight = false;                 // keep Wq while bound: dtype x weights of memory
    bool measure = false;                      // backward adds the two terms to score()
    ProductMeter* meter = nullptr;             // borrowed; null: none
    TensorPool* pool = nullptr;                // for dequantized rows; borrowed, null: LibTorch's allocator
    bool sliced = false;  // dW of several backward passes is summed until EndBatch: float32 x weights of memory
  };
  // The quantizers are borrowed; a null one leaves that side as it is. `weight` is [out, in].
  ScoredLinear(const TensorInfo& weight, const WeightQuantizer* weight_quantizer,
               const ActivationQuantizer* activation_quantizer, const Options& options);
  ScoredLinear(const ScoredLinear&) = delete;
  ScoredLinear& operator=(const ScoredLinear&) = delete;

  // Where the weight's bytes are: in `data`, or (null) in the tiles. bias.data may be null. All borrowed.
  void Bind(const std::byte* data, WeightTiles* tiles, const TensorView& bias);
  void Unbind();

  // x [..., in], and `input` made of it and, if this has one, its activation quantizer -> [..., out]. With autograd on and x
  // requiring a gradient, backward adds to score(). Without `values` the result is not computed, only its place in the graph.
  at::Tensor Apply(const at::Tensor& x, std::shared_ptr<LinearInput> input, bool values = true);
  // Folds the dW that was summed since the last call (only with Options::sliced).
  void EndBatch();
  // Sum over the backward passes so far.
  const LayerScore& score() const { return score_; }

 private:
  friend struct ScoredLinearNode;
  // Rows [first, first + count) of W as they are stored.
  using ChunkBody = std::function<void(int64_t first, int64_t count, const std::byte* rows)>;
  void ForEachChunk(const ChunkBody& body);
  at::Tensor Multiply(const at::Tensor& x);
  // What of the input is multiplied, as a matrix [tokens, in].
  at::Tensor Operand(LinearInput& input) const;
  // dL/dx [..., in] for grad = dL/dy [tokens, out], and the terms of score().
  at::Tensor Differentiate(LinearInput& input, const at::Tensor& grad);
  void AddWeightGradient(const at::Tensor& grad, const at::Tensor& inputs);
  // Rows of W: their values are those of the compute dtype, their dtype may be a narrower one that holds them.
  at::Tensor Rows(const std::byte* data, int64_t count) const;
  // Quantized rows in the compute dtype, from `w` = Rows(), or from the cache.
  at::Tensor QuantizedRows(int64_t first, const at::Tensor& w) const;
  void QuantizeInto(const at::Tensor& w, at::Tensor& out) const;
  int64_t rows() const { return weight_.shape[0]; }
  int64_t cols() const { return weight_.shape[1]; }

  const TensorInfo& weight_;
  const WeightQuantizer* const weight_quantizer_;
  const ActivationQuantizer* const activation_quantizer_;
  const Options options_;
  const int64_t chunk_rows_;
  const std::byte* data_ = nullptr;
  WeightTiles* tiles_ = nullptr;
  at::Tensor bias_, prepared_, cached_;
  at::Tensor weight_grad_;  // float32 [out, in], of the slices so far
  LayerScore score_;
};

// Height of a row chunk of about chunk_bytes that respects the quantizer's row_multiple; at least one multiple.
int64_t ChunkRows(const WeightQuantizer* quantizer, int64_t rows, int64_t cols, int element_bytes, uint64_t chunk_bytes);

}  // namespace autoscheme

#endif  // AUTOSCHEME_EXEC_SCORED_LINEAR_H_
