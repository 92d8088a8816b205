// ScoredLinear: one linear layer under one scheme, as an autograd function that measures while it differentiates.
#ifndef AUTOSCHEME_SCORE_SCORED_LINEAR_H_
#define AUTOSCHEME_SCORE_SCORED_LINEAR_H_

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "autoscheme/score_table.h"
#include "autoscheme/tensor.h"
#include "quant/quantizer.h"

namespace autoscheme {

// y = Q(x) Q(W)^T + bias. The weight is quantized and multiplied by row chunks, so that no full-size dequantized copy
// exists unless it is cached; the backward pass forms dW by the same chunks and folds |dW * (W - Wq)| at once, so that dW
// never exists whole (SPEC 4.1).
//
// Lives as long as its block is resident. Not copyable: autograd nodes point at it.
class ScoredLinear {
 public:
  struct Options {
    at::ScalarType dtype = at::kFloat;
    uint64_t chunk_bytes = uint64_t{8} << 20;  // of a dequantized row chunk
    bool cache_weight = false;                 // keep Wq between calls: dtype x weights of memory
    bool measure = false;                      // backward folds the two terms into score()
  };
  // The views and quantizers are borrowed; a null quantizer leaves that side as it is. bias.data may be null.
  ScoredLinear(const TensorView& weight, const TensorView& bias, const WeightQuantizer* weight_quantizer,
               const ActivationQuantizer* activation_quantizer, const Options& options);
  ScoredLinear(const ScoredLinear&) = delete;
  ScoredLinear& operator=(const ScoredLinear&) = delete;

  // x [..., in] -> [..., out]. With autograd on and x requiring a gradient, backward adds to score().
  at::Tensor Apply(const at::Tensor& x);
  // Sum over the backward passes so far.
  const LayerScore& score() const { return score_; }

 private:
  friend struct ScoredLinearNode;
  at::Tensor Multiply(const at::Tensor& x);
  at::Tensor Differentiate(const at::Tensor& x, const at::Tensor& xq, const at::Tensor& grad);
  // Rows [first, first + count) of Wq.
  at::Tensor QuantizedRows(int64_t first, int64_t count, const at::Tensor& rows);
  int64_t rows() const { return weight_.info->shape[0]; }
  int64_t cols() const { return weight_.info->shape[1]; }

  const TensorView weight_;
  const WeightQuantizer* const weight_quantizer_;
  const ActivationQuantizer* const activation_quantizer_;
  const Options options_;
  int64_t chunk_rows_ = 0;
  at::Tensor bias_, prepared_, cached_;
  LayerScore score_;
};

// Height of a row chunk of about chunk_bytes that respects the quantizer's row_multiple; at least one multiple.
int64_t ChunkRows(const WeightQuantizer* quantizer, int64_t rows, int64_t cols, int element_bytes, uint64_t chunk_bytes);

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCORE_SCORED_LINEAR_H_
