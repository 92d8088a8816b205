// Row by row work in one pass over memory: several operators on a chunk that stays in a core's cache, instead of each
// operator over the whole.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace autoscheme {

// What other devices are given at once: enough to keep one busy, and as float32 no more than 16 MiB for each temporary.
inline constexpr int64_t kDeviceChunkElements = 1 << 22;

// Calls body(first, count) for ranges that cover [0, rows), without autograd. On the CPU by several threads, of
// about `elements_per_row` x count = 32,768 elements each; on other devices, which have a parallelism of their own, by
// the calling thread, of kDeviceChunkElements. Tensors that the body closes over must not require a gradient.
void ForEachRowChunk(const at::Tensor& like, int64_t rows, int64_t elements_per_row,
                     const std::function<void(int64_t first, int64_t count)>& body);

}  // namespace autoscheme
