// Teams of threads of a warp (group_team.h), and blocks that join what their threads have.
#pragma once

#define AUTOSCHEME_ONE_LANE
#include "quant/group_team.h"
#include "quant/k_quant_team.h"
#include "quant/thread_sums.h"

namespace autoscheme::cuda {
namespace {

using cpu::kBlockThreads;

// `threads` neighbours of a warp, a power of two. All of them come to every call.
template <int threads>
struct WarpTeam {
  static constexpr int kThreads = threads;
  template <typename T>
  struct PerThread {
    T v;
    __device__ __forceinline__ T& operator[](int) { return v; }
  };

  int thread = threadIdx.x % threads;
  unsigned mask = threads == 32 ? 0xffffffffu : ((1u << (threads % 32)) - 1) << (threadIdx.x % 32 / threads * threads);

  template <typename Body>
  __device__ __forceinline__ void Each(const Body& body) const {
    body(thread);
  }
  template <typename T>
  __device__ __forceinline__ T From(PerThread<T>& v, int from) const {
    return __shfl_sync(mask, v.v, from, threads);
  }
  template <typename T>
  __device__ __forceinline__ T Max(const PerThread<T>& v) const {
    return ByHalves(v.v, [](T a, T b) { return a < b ? b : a; });
  }
  template <typename T>
  __device__ __forceinline__ T Min(const PerThread<T>& v) const {
    return ByHalves(v.v, [](T a, T b) { return b < a ? b : a; });
  }
  template <typename T>
  __device__ __forceinline__ T Sum(const PerThread<T>& v) const {
    return ByHalves(v.v, [](T a, T b) { return a + b; });
  }

 private:
  // Thread i takes that of thread i + half, and thread i + half that of i: both have the same result, since no `join`
  // looks at the order of its two.
  template <typename T, typename Join>
  __device__ __forceinline__ T ByHalves(T v, const Join& join) const {
    for (int half = threads / 2; half > 0; half /= 2) v = join(v, __shfl_xor_sync(mask, v, half, threads));
    return v;
  }
};

// Joins v[0 .. kBlockThreads) in shared memory into v[0].
template <typename T, typename Join>
__device__ __forceinline__ void JoinBlock(T* v, const Join& join) {
  for (int half = kBlockThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) v[threadIdx.x] = join(v[threadIdx.x], v[threadIdx.x + half]);
  }
  __syncthreads();
}

// body(Numeric) for the type.
template <Number number>
struct Numeric {
  static constexpr Number kType = number;
};
template <typename Body>
cudaError_t WithNumber(Number type, const Body& body) {
  if (type == Number::kF32) return body(Numeric<Number::kF32>());
  return type == Number::kBF16 ? body(Numeric<Number::kBF16>()) : body(Numeric<Number::kF16>());
}

}  // namespace
}  // namespace autoscheme::cuda
