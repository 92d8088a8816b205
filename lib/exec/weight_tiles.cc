#include "exec/weight_tiles.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "exec/weight_stream.h"

namespace autoscheme {

void WeightTiles::ForEach(const LinearLayer& layer, int64_t rows_at_once, const Body& body) {
  if (status_.ok()) status_ = Read(layer, rows_at_once, body);
}

absl::Status WeightTiles::Read(const LinearLayer& layer, int64_t rows_at_once, const Body& body) {
  const TensorInfo& weight = *layer.weight;
  const int64_t stored_rows = weight.shape[0], at_once = layer.transposed ? stored_rows : rows_at_once;
  std::vector<WeightStream::Step> order;
  for (int64_t first = 0; first < stored_rows; first += at_once) {
    order.push_back({{{&weight, first, std::min(at_once, stored_rows - first)}}, check_finite_});
  }
  const size_t tiles = order.size();
  // The same rows are wanted again by the next batch: they stay in the page cache.
  AUTOSCHEME_ASSIGN_OR_RETURN(std::unique_ptr<WeightStream> stream,
                              WeightStream::Create(run_, checkpoint_, std::move(order), {slots_, false}));
  for (size_t i = 0; i < tiles; ++i) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const WeightStream::Arrived tile, stream->Next());
    if (layer.transposed) {
      ForEachResidentRow(run_, layer, tile.tensors[0].data, rows_at_once, body);
    } else {
      body(tile.ranges[0].first_row, tile.ranges[0].rows, tile.tensors[0].data);
    }
  }
  const StreamStats stats = stream->stats();
  run_.stats.read_bytes += stats.bytes_read;
  run_.stats.stall_s += stats.stall_s;
  run_.stats.io_engine = stats.engine;
  return absl::OkStatus();
}

}  // namespace autoscheme
