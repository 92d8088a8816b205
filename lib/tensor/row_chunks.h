// Row by row work in one pass over memory: several operators on a chunk that stays in a core's cache, instead of each
// operator over the whole.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace autoscheme {

// Calls body(first, count) for ranges that cover [0, rows), without autograd. On the CPU by several threads, of
// about `elements_per_row` x count = 32,768 elements each; on other devices, which have a parallelism of their own,
// once. Tensors that the body closes over must not require a gradient.
void ForEachRowChunk(const at::Tensor& like, int64_t rows, int64_t elements_per_row,
                     const std::function<void(int64_t first, int64_t count)>& body);

}  // namespace autoscheme
