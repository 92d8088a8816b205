// QuantizedLinear: one linear layer under one variant, as an autograd function that shows its gradients to a scorer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "autoscheme/tensor.h"
#include "exec/candidates.h"
#include "exec/linear_input.h"
#include "exec/run_resources.h"
#include "exec/scorer.h"
#include "exec/weight_rows.h"
#include "plan/execution_plan.h"

namespace autoscheme {

// y = Q(x) Q(W)^T + bias. The weight is quantized and multiplied by chunks of rows, so that no dequantized copy of all
// of it exists unless the plan caches it; the backward pass forms dW by the same chunks and shows them to the scorer at
// once, so that dW never exists whole either. Only of a batch that comes in micro-batches must dW be summed before it
// is shown.
//
// Bind it before use and Unbind it before its bytes go. Not copyable: autograd nodes point at it, and it must live
// until their backward pass.
class QuantizedLinear {
 public:
  // Needs decide what the scorer is shown. All are borrowed but the treatments, which are kept.
  QuantizedLinear(RunResources& run, const ExecutionPlan& plan, const LinearLayer& layer, Treatment treatment,
                  const LinearNeeds& needs, const Scorers& scorers, int variant,
                  std::vector<Treatment> candidates = {});
  QuantizedLinear(const QuantizedLinear&) = delete;
  QuantizedLinear& operator=(const QuantizedLinear&) = delete;

  // `weights` is borrowed until Unbind. bias.data may be null.
  void Bind(WeightRows& weights, const TensorView& bias);
  void Unbind();

  // x [..., in], and `input` made of it and, if this has one, its activation quantizer -> [..., out]. Without `values`
  // the result is not computed, only its place in the graph.
  at::Tensor Apply(const at::Tensor& x, std::shared_ptr<LinearInput> input, bool values = true);
  // Shows the dW that micro-batches have summed up since the last call.
  void EndBatch();

 private:
  friend struct QuantizedLinearNode;
  void ForEachChunk(const WeightRows::Body& body) { weights_->ForEach(layer_, chunk_rows_, body); }
  at::Tensor Multiply(const at::Tensor& x);
  // What of the input is multiplied, as a matrix [tokens, in].
  at::Tensor Operand(LinearInput& input) const;
  // dL/dx [..., in] for grad = dL/dy [tokens, out]; shows the scorer what it wants to see.
  at::Tensor Differentiate(LinearInput& input, const at::Tensor& grad);
  // Begins what the scorer is shown of the candidates; Differentiate goes on with it chunk by chunk.
  void PrepareCandidates();
  void AddWeightGradient(const at::Tensor& grad, const at::Tensor& inputs);
  // Rows of W: their values are those of the compute dtype, their dtype may be a narrower one that holds them.
  at::Tensor Rows(const std::byte* data, int64_t count) const;
  // Quantized rows in the compute dtype, from `w` = Rows(), or from the cache.
  at::Tensor QuantizedRows(int64_t first, const at::Tensor& w) const;
  void QuantizeInto(const at::Tensor& w, at::Tensor& out) const;
  int64_t rows() const { return layer_.out_features; }
  int64_t cols() const { return layer_.in_features; }

  RunResources& run_;
  const LinearLayer& layer_;
  const Treatment treatment_;
  Candidates candidates_;
  const LinearNeeds needs_;
  const Scorers& scorers_;
  const int variant_;
  const bool caches_, micro_batches_;
  const int64_t chunk_rows_;
  WeightRows* weights_ = nullptr;
  at::Tensor bias_, prepared_, cached_;
  at::Tensor weight_grad_;  // float32 [out, in], of the batch so far
};

// Height of a row chunk of about chunk_bytes that is a multiple of `multiple`, and at least that; 0 = all rows.
int64_t ChunkRows(int64_t multiple, int64_t rows, int64_t cols, uint64_t element_bytes, uint64_t chunk_bytes);

}  // namespace autoscheme
