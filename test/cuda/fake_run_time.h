// CUDA's run time and cuBLAS in plain memory, for the plugin's own code on a machine without a device: two devices,
// whose work is done at once. Every call is counted, and one of them can be made to fail.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <vector>

namespace autoscheme::cuda {

struct FakeRunTime {
  int calls = 0;
  int failing = 0;  // the number of the call that fails, counted from 1; 0: none
  cudaError_t error = cudaErrorInvalidValue;
  bool sticky = false;          // from then on all calls fail
  int driver = 13000;           // what the driver says of itself; 0: there is none
  int held = 0;                 // memory, streams, events and handles that were made and not destroyed
  std::vector<void*> contexts;  // the thread's stack of current contexts
  int most_contexts = 0;
  // What the last product asked for.
  cublasComputeType_t compute = CUBLAS_COMPUTE_64F;
  void* workspace = nullptr;  // what cuBLAS was given, unless its stream was set since
};

FakeRunTime& Fake();

}  // namespace autoscheme::cuda
