// Candidates: other treatments of a linear layer than its variant's, and what each would change of the layer's output.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "exec/run_resources.h"
#include "exec/scorer.h"

namespace autoscheme {

// For one layer and variant. Weights come by chunks of rows, so that no quantized copy of all of one exists. One
// thread.
class Candidates {
 public:
  Candidates(RunResources& run, std::vector<Treatment> treatments) : run_(run), all_(std::move(treatments)) {}
  bool empty() const { return all_.empty(); }

  // What a chunk's height must be a multiple of besides `multiple`: 0 = only the whole weight at once.
  int64_t RowMultiple(int64_t multiple) const;
  // Whether PrepareRows must be shown all rows before Add is called.
  bool needs_whole_tensor() const;
  void Restart() { prepared_.clear(); }  // other bytes may come
  bool prepared() const { return !prepared_.empty(); }
  void PrepareRows(const at::Tensor& w);

  // What candidates make of one call's input.
  struct Inputs {
    at::Tensor x;                       // [tokens, in], as an operand of products
    at::Tensor wide;                    // the same in float32, if some candidate quantizes the input
    std::vector<at::Tensor> quantized;  // by candidate, as `wide`; undefined where it leaves the input alone
  };
  // x [rows, seq, in], as the layer took it in before any quantizer; of it the first `positions` of each row.
  Inputs Quantize(const at::Tensor& x, int64_t positions) const;
  // errors [candidates, tokens] += sum over the rows of `w` [n, in] of grad [tokens, n] times what the outputs of those
  // rows would differ by from the unquantized ones.
  void Add(const Inputs& inputs, const at::Tensor& w, const at::Tensor& grad, at::Tensor& errors) const;
  // Zeros for Add.
  at::Tensor NewErrors(const Inputs& inputs) const;

 private:
  // float32, whatever is computed in: what rounding adds would be as large as the errors of a fine format.
  at::Tensor QuantizedRows(size_t candidate, const at::Tensor& w) const;
  at::Tensor Widened(const at::Tensor& t) const;

  RunResources& run_;
  const std::vector<Treatment> all_;
  std::vector<at::Tensor> prepared_;  // by candidate; empty before PrepareRows
};

}  // namespace autoscheme
