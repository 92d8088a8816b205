#include "tensor/row_chunks.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>

#include "device/torch_devices.h"

namespace autoscheme {
namespace {

constexpr int64_t kChunkElements = 32768;  // float32: a handful of them fit a second-level cache

}  // namespace

void ForEachRowChunk(const at::Tensor& like, int64_t rows, int64_t elements_per_row,
                     const std::function<void(int64_t first, int64_t count)>& body) {
  const bool host = OnHost(like);
  const int64_t elements = host ? kChunkElements : kDeviceChunkElements;
  const int64_t chunk = std::max<int64_t>(elements / std::max<int64_t>(elements_per_row, 1), 1);
  const auto work = [&](int64_t begin, int64_t end) {
    at::AutoDispatchBelowADInplaceOrView no_autograd;  // a property of the thread
    for (int64_t first = begin; first < end; first += chunk) body(first, std::min(chunk, end - first));
  };
  if (rows <= chunk || !host) return work(0, rows);
  at::parallel_for(0, rows, chunk, work);
}

}  // namespace autoscheme
