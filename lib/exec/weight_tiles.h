// WeightTiles: matrices that are too large for the budget, read by row tiles at every use.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "checkpoint/checkpoint.h"
#include "exec/run_resources.h"
#include "exec/weight_rows.h"

namespace autoscheme {

// Holds `slots` tiles while one matrix is gone through, nothing in between; a transposed matrix is one tile. One
// thread.
class WeightTiles : public WeightRows {
 public:
  WeightTiles(RunResources& run, const Checkpoint& checkpoint, int slots)
      : run_(run), checkpoint_(checkpoint), slots_(slots) {}

  // It is called in the midst of autograd, which has no way to return a status: after an error nothing is read any
  // more, `body` is not called, and status() tells.
  void ForEach(const LinearLayer& layer, int64_t rows_at_once, const Body& body) override;
  const absl::Status& status() const { return status_; }

  // Whether tiles are looked through for NaN and infinite values.
  void set_check_finite(bool check) { check_finite_ = check; }

 private:
  absl::Status Read(const LinearLayer& layer, int64_t rows_at_once, const Body& body);
  RunResources& run_;
  const Checkpoint& checkpoint_;
  const int slots_;
  bool check_finite_ = true;
  absl::Status status_;
};

}  // namespace autoscheme
