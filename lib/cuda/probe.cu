#include "cuda/cuda_device.h"

namespace autoscheme::cuda {
namespace {

__global__ void DoNothing() {}

}  // namespace

cudaError_t Probe() {
  DoNothing<<<1, 32, 0, cudaStreamLegacy>>>();
  const cudaError_t launched = cudaGetLastError();
  return launched == cudaSuccess ? cudaStreamSynchronize(cudaStreamLegacy) : launched;
}

}  // namespace autoscheme::cuda
