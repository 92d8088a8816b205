// How the rows of a calibration are cut into batches and micro-batches.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace autoscheme {

// The rows that are in memory together: a batch or a part of one.
struct MicroBatch {
  int64_t batch = 0;
  int64_t first_row = 0;  // counted over the whole calibration
  int64_t rows = 0;
  bool ends_batch = true;  // it is the last of its batch
};

// Gradients are summed over a batch before their absolute value is taken, so its size is part of what is measured
// (docs/algorithm.md 6.2). Micro-batches only bound what is in memory.
struct BatchShape {
  int64_t nsamples = 0, seqlen = 0, batch_size = 0;
  int64_t micro_batch_rows = 0;  // 0 = whole batches
  int64_t batches() const { return (nsamples + batch_size - 1) / batch_size; }
  int64_t rows(int64_t b) const { return std::min(batch_size, nsamples - b * batch_size); }
  // Rows of the largest micro-batch.
  int64_t most_rows() const {
    const int64_t batch = std::min(batch_size, nsamples);
    return micro_batch_rows > 0 ? std::min(micro_batch_rows, batch) : batch;
  }
  // Whether some batch is cut.
  bool cut() const { return most_rows() < std::min(batch_size, nsamples); }
  std::vector<MicroBatch> micro_batches() const {
    std::vector<MicroBatch> all;
    for (int64_t b = 0; b < batches(); ++b) {
      for (int64_t row = 0; row < rows(b); row += most_rows()) {
        const int64_t count = std::min(most_rows(), rows(b) - row);
        all.push_back({b, b * batch_size + row, count, row + count == rows(b)});
      }
    }
    return all;
  }
};

}  // namespace autoscheme
