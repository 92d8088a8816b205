#include "exec/weight_rows.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "exec/weights.h"

namespace autoscheme {
namespace {

// Rows `first`, .. of the transpose of [columns, rows].
template <typename Word>
void Transpose(const std::byte* data, int64_t rows, int64_t columns, int64_t first, int64_t count, std::byte* out) {
  constexpr int64_t kTile = 64;  // rows and columns, so that what is read and written stays in the cache
  for (int64_t i = 0; i < count; i += kTile) {
    for (int64_t j = 0; j < columns; j += kTile) {
      for (int64_t r = i; r < std::min(i + kTile, count); ++r) {
        for (int64_t c = j; c < std::min(j + kTile, columns); ++c) {
          std::memcpy(out + (r * columns + c) * sizeof(Word), data + (c * rows + first + r) * sizeof(Word),
                      sizeof(Word));
        }
      }
    }
  }
}

}  // namespace

void ForEachResidentRow(const RunResources& run, const LinearLayer& layer, const std::byte* data, int64_t rows_at_once,
                        const WeightRows::Body& body) {
  const int64_t rows = layer.out_features;
  const uint64_t row_bytes = layer.weight->bytes / static_cast<uint64_t>(rows);
  std::vector<std::byte> turned;
  for (int64_t first = 0; first < rows; first += rows_at_once) {
    const int64_t count = std::min(rows_at_once, rows - first);
    if (!layer.transposed) {
      body(first, count, data + first * row_bytes);
      continue;
    }
    if (run.on_device()) {
      const at::Tensor stored = StoredRows(data, layer.weight->dtype, layer.in_features, rows, run.device.torch);
      const at::Tensor on_device = stored.narrow(1, first, count).t().contiguous();
      body(first, count, static_cast<const std::byte*>(on_device.const_data_ptr()));
      continue;
    }
    turned.resize(count * row_bytes);
    const bool narrow = row_bytes == 2 * static_cast<uint64_t>(layer.in_features);
    (narrow ? Transpose<uint16_t> : Transpose<uint32_t>)(data, rows, layer.in_features, first, count, turned.data());
    body(first, count, turned.data());
  }
}

}  // namespace autoscheme
