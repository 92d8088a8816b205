#include "exec/embedding.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/count.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "exec/weights.h"

namespace autoscheme {
namespace {

std::vector<int32_t> DistinctIds(const Calibration& calibration) {
  std::vector<int32_t> ids = calibration.ids;
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

uint64_t RowBytes(const TensorInfo& embedding) { return embedding.bytes / embedding.shape[0]; }

}  // namespace

absl::Status CheckCalibration(const Calibration& c, const MetaSkeleton& skeleton) {
  if (c.nsamples < 1 || c.seqlen < 1 || static_cast<int64_t>(c.ids.size()) != c.nsamples * c.seqlen) {
    return absl::InvalidArgumentError(absl::StrCat("calibration of ", Count(c.nsamples, "row"), " of ",
                                                   Count(c.seqlen, "token"), " holds ", Count(c.ids.size(), "id"),
                                                   "; at least one row is needed"));
  }
  if (c.seqlen < 2) {
    return absl::InvalidArgumentError("calibration rows of 1 token predict nothing; the loss needs at least 2 tokens per row");
  }
  if (skeleton.max_positions() > 0 && c.seqlen > skeleton.max_positions()) {
    return absl::InvalidArgumentError(
        absl::StrCat("calibration rows of ", c.seqlen, " tokens are longer than the model's ",
                     Count(skeleton.max_positions(), "position"), "; use a smaller seqlen"));
  }
  for (size_t i = 0; i < c.ids.size(); ++i) {
    if (c.ids[i] < 0 || c.ids[i] >= skeleton.vocab_size()) {
      return absl::InvalidArgumentError(absl::StrCat("calibration row ", i / c.seqlen, ", column ", i % c.seqlen, ": id ",
                                                     c.ids[i], " is outside the vocabulary of ", skeleton.vocab_size(),
                                                     "; were the ids made with another tokenizer?"));
    }
  }
  return absl::OkStatus();
}

uint64_t EmbeddingReadBytes(const MetaSkeleton& skeleton, const Calibration& calibration) {
  return DistinctIds(calibration).size() * RowBytes(*skeleton.embedding());
}

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

at::Tensor EmbeddingRows::Of(const Calibration& calibration, const Slice& slice, at::Tensor out) const {
  const int64_t tokens = slice.rows * calibration.seqlen, hidden = info_.shape[1];
  const size_t row_bytes = bytes_.size() / ids_.size();
  const int32_t* ids = calibration.ids.data() + slice.first_row * calibration.seqlen;
  std::vector<std::byte> gathered(tokens * row_bytes);
  for (int64_t i = 0; i < tokens; ++i) {
    const size_t at = std::lower_bound(ids_.begin(), ids_.end(), ids[i]) - ids_.begin();
    std::memcpy(gathered.data() + i * row_bytes, bytes_.data() + at * row_bytes, row_bytes);
  }
  return out.copy_(StoredRows(gathered.data(), info_.dtype, tokens, hidden).view(out.sizes()));
}

}  // namespace autoscheme
