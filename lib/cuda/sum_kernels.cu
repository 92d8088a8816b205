// Sums and counts over whole tensors. Sums of floating point are made of the same parts in every run; only integers are
// added by atomics.
#include "cuda/kernels.h"
#include "cuda/team.cuh"

namespace autoscheme::cuda {
namespace {

using cpu::BlocksFor;
using cpu::kMostBlocks;
using cpu::Numbers;

static_assert(kMostBlocks * sizeof(double) <= kScratchBytes, "");
static_assert(sizeof(NonFinite) == 2 * sizeof(unsigned long long), "");

__device__ __forceinline__ int64_t FirstElement() {
  return static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x;
}
__device__ __forceinline__ int64_t Step() { return static_cast<int64_t>(gridDim.x) * kBlockThreads; }

__global__ void __launch_bounds__(kBlockThreads)
    AbsProductsKernel(Numbers grad, Numbers w, Numbers wq, int64_t count, double* parts) {
  __shared__ double sums[kBlockThreads];
  sums[threadIdx.x] = cpu::AbsProducts(grad, w, wq, FirstElement(), Step(), count);
  JoinBlock(sums, [](double a, double b) { return a + b; });
  if (threadIdx.x == 0) parts[blockIdx.x] = sums[0];
}

__global__ void __launch_bounds__(kBlockThreads) AddPartsKernel(const double* parts, int blocks, double* sum) {
  __shared__ double sums[kBlockThreads];
  double own = 0;
  for (int i = threadIdx.x; i < blocks; i += kBlockThreads) own += parts[i];
  sums[threadIdx.x] = own;
  JoinBlock(sums, [](double a, double b) { return a + b; });
  if (threadIdx.x == 0) *sum += sums[0];
}

// -1 is the largest of the unsigned numbers, so the least index takes its place.
__global__ void NoneFoundKernel(NonFinite* found) { found->count = 0, found->first = -1; }

__global__ void __launch_bounds__(kBlockThreads) FindNonFiniteKernel(Numbers numbers, int64_t count, NonFinite* found) {
  unsigned long long bad = 0, first = ~0ull;
  for (int64_t i = FirstElement(); i < count; i += Step()) {
    if (!cpu::IsNonFinite(numbers, i)) continue;
    if (bad++ == 0) first = static_cast<unsigned long long>(i);
  }
  if (bad == 0) return;
  atomicAdd(reinterpret_cast<unsigned long long*>(&found->count), bad);
  atomicMin(reinterpret_cast<unsigned long long*>(&found->first), first);
}

// Bits of magnitudes order as they do.
__global__ void __launch_bounds__(kBlockThreads) AmaxKernel(Numbers x, int64_t count, int32_t* most) {
  const WarpTeam<32> warp;
  WarpTeam<32>::PerThread<int32_t> own;
  own.v = cpu::AmaxBits(x, FirstElement(), Step(), count);
  const int32_t largest = warp.Max(own);
  if (threadIdx.x % 32 == 0) atomicMax(most, largest);
}

}  // namespace

cudaError_t AddAbsProducts(cudaStream_t stream, const void* grad, Number grad_type, const void* w, Number w_type,
                           const void* wq, Number wq_type, int64_t count, double* sum, void* scratch) {
  auto* parts = static_cast<double*>(scratch);
  const int blocks = BlocksFor(count);
  AbsProductsKernel<<<blocks, kBlockThreads, 0, stream>>>({grad, grad_type}, {w, w_type}, {wq, wq_type}, count, parts);
  AddPartsKernel<<<1, kBlockThreads, 0, stream>>>(parts, blocks, sum);
  return cudaGetLastError();
}

cudaError_t FindNonFinite(cudaStream_t stream, const void* data, int64_t count, Number type, NonFinite* found) {
  NoneFoundKernel<<<1, 1, 0, stream>>>(found);
  FindNonFiniteKernel<<<BlocksFor(count), kBlockThreads, 0, stream>>>({data, type}, count, found);
  return cudaGetLastError();
}

cudaError_t Amax(cudaStream_t stream, const void* x, Number x_type, int64_t count, float* most) {
  const cudaError_t cleared = cudaMemsetAsync(most, 0, sizeof(float), stream);
  if (cleared != cudaSuccess) return cleared;
  AmaxKernel<<<BlocksFor(count), kBlockThreads, 0, stream>>>({x, x_type}, count, reinterpret_cast<int32_t*>(most));
  return cudaGetLastError();
}

}  // namespace autoscheme::cuda
