// The way in: calibration ids checked, and their embedding rows read.
#ifndef AUTOSCHEME_EXEC_EMBEDDING_H_
#define AUTOSCHEME_EXEC_EMBEDDING_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "autoscheme/calibration.h"
#include "autoscheme/meta_skeleton.h"
#include "exec/boundaries.h"

namespace autoscheme {

// INVALID_ARGUMENT: no rows, rows too short to predict anything or longer than the model's positions, ids outside the
// vocabulary (names row and column).
absl::Status CheckCalibration(const Calibration& calibration, const MetaSkeleton& skeleton);

// Bytes that EmbeddingRows::Read will read: the rows of the ids that occur, once each.
uint64_t EmbeddingReadBytes(const MetaSkeleton& skeleton, const Calibration& calibration);

// The embedding's rows for the ids that occur, as they are stored.
class EmbeddingRows {
 public:
  static absl::StatusOr<EmbeddingRows> Read(const MetaSkeleton& skeleton, const Calibration& calibration);
  // Those of a slice of the calibration into `out`, [rows, seq, hidden]; the result is `out`.
  at::Tensor Of(const Calibration& calibration, const Slice& slice, at::Tensor out) const;

 private:
  TensorInfo info_;
  std::vector<int32_t> ids_;  // sorted
  std::vector<std::byte> bytes_;  // rows parallel to ids_
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_EXEC_EMBEDDING_H_
