// WeightRows: where a linear layer finds the rows of its weight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "absl/strings/string_view.h"
#include "autoscheme/meta_skeleton.h"
#include "exec/run_resources.h"

namespace autoscheme {

class WeightRows {
 public:
  // `count` rows of [out_features, in_features] from `first` on, in the dtype in which they are stored and where the
  // run computes; borrowed for the call.
  using Body = std::function<void(int64_t first, int64_t count, const std::byte* rows)>;
  virtual ~WeightRows() = default;
  // Calls `body` for all rows in order, at most `rows_at_once` of them at a time.
  virtual void ForEach(const LinearLayer& layer, int64_t rows_at_once, const Body& body) = 0;
};

// The same for a weight that lies at `data` as a whole, where the run computes.
void ForEachResidentRow(const RunResources& run, const LinearLayer& layer, const std::byte* data, int64_t rows_at_once,
                        const WeightRows::Body& body);

// The weights of a unit that is in memory.
class ResidentRows : public WeightRows {
 public:
  using Find = std::function<TensorView(absl::string_view name)>;
  ResidentRows(const RunResources& run, Find find) : run_(run), find_(std::move(find)) {}
  void ForEach(const LinearLayer& layer, int64_t rows_at_once, const Body& body) override {
    ForEachResidentRow(run_, layer, find_(layer.weight->name).data, rows_at_once, body);
  }

 private:
  const RunResources& run_;
  const Find find_;
};

}  // namespace autoscheme
