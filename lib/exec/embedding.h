// The way in: the embedding rows of a calibration's ids.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/calibration.h"
#include "autoscheme/meta_skeleton.h"
#include "plan/micro_batches.h"

namespace autoscheme {

// The embedding's rows for the ids that occur, as they are stored.
class EmbeddingRows {
 public:
  static absl::StatusOr<EmbeddingRows> Read(const MetaSkeleton& skeleton, const Calibration& calibration);
  // Gathers those of some rows of the calibration into `out`, [rows, seq, hidden], and returns it.
  at::Tensor Of(const Calibration& calibration, const MicroBatch& rows, at::Tensor out) const;

 private:
  TensorInfo info_;
  std::vector<int32_t> ids_;      // sorted
  std::vector<std::byte> bytes_;  // rows parallel to ids_
};

}  // namespace autoscheme
