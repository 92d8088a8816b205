// Fused loops for what stands between the products of a block, on the CPU: one pass over memory, no temporaries.
// Forward they do what LibTorch's operators do one after the other, bit for bit; of gradients every element is made in
// float32 and rounded once. Compiled for AVX-512, AVX2 and the baseline from one body (see lanes.h). Serial, plain
// memory: ops.cc and attention.cc spread it over rows.
#pragma once

#include <stdint.h>

namespace autoscheme::cpu {

constexpr int kMostNormReaders = 4;

// The gradient of a norm's input: y = x rstd weight by rows, y read by several.
template <typename T>
struct NormGradientRows {
  int64_t rows, width;
  const T* x;
  const float *weight, *rstd;        // by column; by row
  const T* grads[kMostNormReaders];  // `count` of them, which are summed
  int count;
  const T* passed;  // added to the result; may be null
  T* dx;
};

// Rotary embedding of one head at consecutive positions: the first half of a vector, a, becomes a cos - b sin, the
// second, b, becomes b cos + a sin.
template <typename In, typename Table, typename Out>
struct RotatedRows {
  int64_t positions, half;
  const In* x;
  int64_t x_stride;        // from one position to the next, in elements
  const Table *cos, *sin;  // [positions, half]
  Out* y;
  int64_t y_stride;
  float direction;  // 1, or -1 for the inverse
  float scale;      // the result's
};

// Logits of consecutive ids, a tile of the vocabulary, for several tokens; and what is carried from tile to tile, by
// token: of a distribution its largest logit so far, the first id that has it, and the sum of exp(logit - maximum).
struct LogitRows {
  int64_t rows, width;
  const float* logits;  // [rows, width]
  int64_t first_id;
  double* maximum;
  int64_t* best;
  double* sum;
  // The distribution that this one is compared with, of the same tile: its logits, or null where this is that one,
  // which then writes `weights` and `rescale`, that are read otherwise.
  const float* reference;
  double* weights;     // [rows, width]: exp(reference - its maximum)
  double* rescale;     // by token: what sums before the tile are multiplied by
  double* difference;  // by token: the sum of weights (reference - logits); null with `reference`
};

// T: float, or the bits of bfloat16.
template <typename T>
struct RowKernels {
  // y = x rstd weight, rounded after each product; rstd is of each row.
  void (*normalize)(const T* x, const float* rstd, const T* weight, int64_t rows, int64_t width, T* y);
  void (*rotate)(const RotatedRows<T, T, T>& rows);               // products are rounded to T
  void (*rotate_from)(const RotatedRows<T, float, float>& rows);  // in float32
  void (*rotate_to)(const RotatedRows<float, float, T>& rows);    // in float32, the result rounded once
  void (*multiply)(const T* a, const T* b, int64_t n, T* y);      // y may be a or b
  // For y = silu(gate) up and dL/dy = g.
  void (*swiglu_gradient)(const T* gate, const T* up, const T* g, int64_t n, T* dgate, T* dup);
  void (*norm_gradient)(const NormGradientRows<T>& rows);
};

struct AllRowKernels {
  RowKernels<float> of_float;
  RowKernels<uint16_t> of_bfloat16;
  // In float64. NaN or infinite logits leave a sum or a difference that is not finite.
  void (*add_logits)(const LogitRows& rows);
};

extern const AllRowKernels kAvx512RowKernels, kAvx2RowKernels, kBaselineRowKernels;

// Those that the processor can run, best first, the baseline last; the result is their number.
int RunnableRowKernels(const AllRowKernels* kernels[3]);

// Those for the instruction set that LibTorch chose (ATEN_CPU_CAPABILITY overrides it).
const AllRowKernels& BestRowKernels();

}  // namespace autoscheme::cpu
