// How a step is cut into pieces that each fit one slot of a BlockStreamer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/types/span.h"
#include "autoscheme/block_streamer.h"
#include "autoscheme/tensor.h"

namespace autoscheme {

// Tensors as rows of one byte each, so that a TensorRange can name any bytes of them: a row may be larger than a piece.
class ByteTensors {
 public:
  // Bytes [begin, end) of the file, which lie in the tensor. Borrows from this object.
  TensorRange Range(const TensorInfo& info, uint64_t begin, uint64_t end);

 private:
  std::map<const TensorInfo*, TensorInfo> infos_;
};

struct PiecePart {
  TensorRange bytes;    // for BlockStreamer
  size_t tensor = 0;    // index into the step
  uint64_t offset = 0;  // its first byte, counted from the first byte of the step's range
};

// In the order of the files. Cuts lie at whole pages of a file, so that no page is read twice. Every piece but the last
// takes all of `piece_bytes`, whole pages, that a slot of it has. Only for ranges that PlanStep has accepted.
std::vector<std::vector<PiecePart>> CutIntoPieces(absl::Span<const TensorRange> step, uint64_t piece_bytes,
                                                  ByteTensors& tensors);

}  // namespace autoscheme
