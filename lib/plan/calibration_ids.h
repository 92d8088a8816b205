// The ids of a calibration against the model that they are for.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "autoscheme/calibration.h"
#include "autoscheme/meta_skeleton.h"

namespace autoscheme {

// INVALID_ARGUMENT: no rows, rows too short to predict anything or longer than the model's positions, ids outside the
// vocabulary (names row and column).
absl::Status CheckCalibration(const Calibration& calibration, const MetaSkeleton& skeleton);

// Sorted, each once: the rows of the embedding that are read.
std::vector<int32_t> DistinctIds(const Calibration& calibration);

}  // namespace autoscheme
