#include "exec/weight_tiles.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "autoscheme/block_streamer.h"
#include "base/status_macros.h"
#include "exec/weights.h"

namespace autoscheme {

void WeightTiles::ForEach(const LinearLayer& layer, int64_t rows_at_once, const Body& body) {
  if (status_.ok()) status_ = Read(layer, rows_at_once, body);
}

absl::Status WeightTiles::Read(const LinearLayer& layer, int64_t rows_at_once, const Body& body) {
  const TensorInfo& weight = *layer.weight;
  const int64_t stored_rows = weight.shape[0], at_once = layer.transposed ? stored_rows : rows_at_once;
  std::vector<BlockStreamer::RangeStep> order;
  for (int64_t first = 0; first < stored_rows; first += at_once) {
    order.push_back({{&weight, first, std::min(at_once, stored_rows - first)}});
  }
  const size_t tiles = order.size();
  BlockStreamer::Options options;
  options.slots = slots_;
  options.io_engine = run_.io_engine;
  options.drop_page_cache = false;  // the same rows are wanted again by the next batch
  AUTOSCHEME_ASSIGN_OR_RETURN(std::unique_ptr<BlockStreamer> streamer,
                              BlockStreamer::CreateFromRanges(run_.context, checkpoint_, std::move(order), options));
  TensorInfo info = weight;
  for (size_t i = 0; i < tiles; ++i) {
    AUTOSCHEME_ASSIGN_OR_RETURN(BlockView view, streamer->Next());
    info.shape[0] = view.ranges[0].rows;
    const TensorView tile{&info, view.tensors[0].data};
    if (check_finite_) AUTOSCHEME_RETURN_IF_ERROR(CheckFinite(tile));
    if (layer.transposed) {
      ForEachResidentRow(layer, tile.data, rows_at_once, body);
    } else {
      body(view.ranges[0].first_row, view.ranges[0].rows, tile.data);
    }
  }
  const StreamStats stats = streamer->stats();
  run_.stats.read_bytes += stats.bytes_read;
  run_.stats.stall_s += stats.stall_s;
  run_.stats.io_engine = stats.engine;
  return absl::OkStatus();
}

}  // namespace autoscheme
