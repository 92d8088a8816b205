#include "exec/embedding.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "exec/weights.h"
#include "plan/calibration_ids.h"

namespace autoscheme {
namespace {

uint64_t RowBytes(const TensorInfo& embedding) { return embedding.bytes / embedding.shape[0]; }

}  // namespace

absl::StatusOr<EmbeddingRows> EmbeddingRows::Read(const MetaSkeleton& skeleton, const Calibration& calibration) {
  EmbeddingRows read;
  read.ids_ = DistinctIds(calibration);
  read.info_ = *skeleton.embedding();
  read.info_.shape[0] = static_cast<int64_t>(read.ids_.size());
  const std::vector<int32_t>& ids = read.ids_;
  const uint64_t row_bytes = RowBytes(*skeleton.embedding());
  read.bytes_.resize(ids.size() * row_bytes);
  for (size_t i = 0; i < ids.size();) {
    size_t end = i + 1;
    while (end < ids.size() && ids[end] == ids[end - 1] + 1) ++end;
    AUTOSCHEME_RETURN_IF_ERROR(
        skeleton.checkpoint().Read(*skeleton.embedding(), ids[i] * row_bytes,
                                   absl::MakeSpan(read.bytes_).subspan(i * row_bytes, (end - i) * row_bytes)));
    i = end;
  }
  AUTOSCHEME_RETURN_IF_ERROR(CheckFinite({&read.info_, read.bytes_.data()}));
  return read;
}

at::Tensor EmbeddingRows::Of(const Calibration& calibration, const MicroBatch& rows, at::Tensor out) const {
  const int64_t tokens = rows.rows * calibration.seqlen, hidden = info_.shape[1];
  const size_t row_bytes = bytes_.size() / ids_.size();
  const int32_t* ids = calibration.ids.data() + rows.first_row * calibration.seqlen;
  std::vector<std::byte> gathered(tokens * row_bytes);
  for (int64_t i = 0; i < tokens; ++i) {
    const size_t at = std::lower_bound(ids_.begin(), ids_.end(), ids[i]) - ids_.begin();
    std::memcpy(gathered.data() + i * row_bytes, bytes_.data() + at * row_bytes, row_bytes);
  }
  return out.copy_(StoredRows(gathered.data(), info_.dtype, tokens, hidden).view(out.sizes()));
}

}  // namespace autoscheme
