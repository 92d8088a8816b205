#include "stream/pieces.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include "stream/extents.h"
#include "stream/pages.h"

namespace autoscheme {
namespace {

// Fills one piece after the other with what comes next in the files.
class Cutter {
 public:
  explicit Cutter(uint64_t piece_bytes) : piece_bytes_(piece_bytes) {}

  // How far a piece can hold [begin, end) of a shard: to the result, which is beyond `begin`. Starts a new piece where
  // this one is full.
  uint64_t Take(int shard, uint64_t begin, uint64_t end) {
    while (true) {
      const bool joins = !pieces_.empty() && shard == shard_ && PageFloor(begin) <= pages_end_;
      const uint64_t paid_up_to = joins ? pages_end_ : PageFloor(begin);
      const uint64_t upto = std::min(end, paid_up_to + room_);
      if (upto > begin) {
        shard_ = shard, pages_end_ = std::max(paid_up_to, RoundUp(upto, kPageBytes));
        room_ -= pages_end_ - paid_up_to;
        return upto;
      }
      pieces_.emplace_back();
      room_ = piece_bytes_, shard_ = -1;
    }
  }
  void Add(const PiecePart& part) { pieces_.back().push_back(part); }
  std::vector<std::vector<PiecePart>> Pieces() && { return std::move(pieces_); }

 private:
  const uint64_t piece_bytes_;
  std::vector<std::vector<PiecePart>> pieces_;
  uint64_t room_ = 0;
  // Where the pages end that the last part lies in.
  int shard_ = -1;
  uint64_t pages_end_ = 0;
};

}  // namespace

TensorRange ByteTensors::Range(const TensorInfo& info, uint64_t begin, uint64_t end) {
  TensorInfo& bytes = infos_[&info];
  bytes.name = info.name, bytes.dtype = Dtype::kU8, bytes.shape = {static_cast<int64_t>(info.bytes)};
  bytes.shard = info.shard, bytes.offset = info.offset, bytes.bytes = info.bytes;
  return {&bytes, static_cast<int64_t>(begin - info.offset), static_cast<int64_t>(end - begin)};
}

std::vector<std::vector<PiecePart>> CutIntoPieces(absl::Span<const TensorRange> step, uint64_t piece_bytes,
                                                  ByteTensors& tensors) {
  std::vector<size_t> by_place(step.size());
  std::iota(by_place.begin(), by_place.end(), size_t{0});
  const auto place = [&](size_t i) { return std::make_tuple(step[i].info->shard, FileBytes(step[i]).begin, i); };
  std::sort(by_place.begin(), by_place.end(), [&](size_t a, size_t b) { return place(a) < place(b); });

  Cutter cutter(piece_bytes);
  for (size_t i : by_place) {
    const TensorInfo& info = *step[i].info;
    const auto [begin, end] = FileBytes(step[i]);
    for (uint64_t at = begin; at < end;) {
      const uint64_t upto = cutter.Take(info.shard, at, end);
      cutter.Add({tensors.Range(info, at, upto), i, at - begin});
      at = upto;
    }
  }
  return std::move(cutter).Pieces();
}

}  // namespace autoscheme
