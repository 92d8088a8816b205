// WeightRows: where a linear layer finds the rows of its weight.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "absl/strings/string_view.h"
#include "autoscheme/tensor.h"

namespace autoscheme {

class WeightRows {
 public:
  // `count` rows from `first` on, as they are stored; borrowed for the call.
  using Body = std::function<void(int64_t first, int64_t count, const std::byte* rows)>;
  virtual ~WeightRows() = default;
  // Calls `body` for all rows in order, at most `rows_at_once` of them at a time.
  virtual void ForEach(const TensorInfo& weight, int64_t rows_at_once, const Body& body) = 0;
};

// The weights of a unit that is in memory.
class ResidentRows : public WeightRows {
 public:
  using Find = std::function<TensorView(absl::string_view name)>;
  explicit ResidentRows(Find find) : find_(std::move(find)) {}
  void ForEach(const TensorInfo& weight, int64_t rows_at_once, const Body& body) override {
    const std::byte* data = find_(weight.name).data;
    const int64_t rows = weight.shape[0];
    const uint64_t row_bytes = weight.bytes / static_cast<uint64_t>(rows);
    for (int64_t first = 0; first < rows; first += rows_at_once) {
      body(first, std::min(rows_at_once, rows - first), data + first * row_bytes);
    }
  }

 private:
  const Find find_;
};

}  // namespace autoscheme
