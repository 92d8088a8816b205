#include "exec/weight_tiles.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "exec/weights.h"

namespace autoscheme {

void WeightTiles::ForEach(const TensorInfo& weight, int64_t tile_rows, const Body& body) {
  if (status_.ok()) status_ = Read(weight, tile_rows, body);
}

absl::Status WeightTiles::Read(const TensorInfo& weight, int64_t tile_rows, const Body& body) {
  std::vector<BlockStreamer::RangeStep> order;
  for (int64_t first = 0; first < weight.shape[0]; first += tile_rows) {
    order.push_back({{&weight, first, std::min(tile_rows, weight.shape[0] - first)}});
  }
  const size_t tiles = order.size();
  BlockStreamer::Options options;
  options.slots = slots_;
  options.io_engine = io_engine_;
  options.drop_page_cache = false;  // the same rows are wanted again by the next batch
  AUTOSCHEME_ASSIGN_OR_RETURN(std::unique_ptr<BlockStreamer> streamer,
                              BlockStreamer::CreateFromRanges(context_, checkpoint_, std::move(order), options, budget_));
  TensorInfo info = weight;
  for (size_t i = 0; i < tiles; ++i) {
    AUTOSCHEME_ASSIGN_OR_RETURN(BlockView view, streamer->Next());
    info.shape[0] = view.ranges[0].rows;
    const TensorView tile{&info, view.tensors[0].data};
    if (check_finite_) AUTOSCHEME_RETURN_IF_ERROR(CheckFinite(tile));
    body(view.ranges[0].first_row, tile);
  }
  bytes_read_ += streamer->stats().bytes_read;
  stall_s_ += streamer->stats().stall_s;
  engine_ = streamer->stats().engine;
  return absl::OkStatus();
}

}  // namespace autoscheme
