// Activations between units, kept per (boundary, trajectory, slice): tensors in front of a BoundaryStore.
#ifndef AUTOSCHEME_SCORE_BOUNDARIES_H_
#define AUTOSCHEME_SCORE_BOUNDARIES_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "stream/boundary_store.h"

namespace autoscheme {

// The rows of a calibration that are in memory together: a batch, or a part of one (a micro-batch).
struct Slice {
  int64_t batch = 0;
  int64_t first_row = 0;  // of the calibration
  int64_t rows = 0;
  bool ends_batch = true;  // the last slice of its batch
};

// How a calibration is cut. A batch is the unit of the maths (SPEC 4.6); slices only bound what is in memory.
struct BatchShape {
  int64_t nsamples = 0, seqlen = 0, batch_size = 0;
  int64_t slice_rows = 0;  // 0 = whole batches
  int64_t batches() const { return (nsamples + batch_size - 1) / batch_size; }
  int64_t rows(int64_t b) const { return std::min(batch_size, nsamples - b * batch_size); }
  // Rows of the largest slice.
  int64_t largest_slice() const {
    const int64_t batch = std::min(batch_size, nsamples);
    return slice_rows > 0 ? std::min(slice_rows, batch) : batch;
  }
  bool sliced() const { return largest_slice() < std::min(batch_size, nsamples); }
  std::vector<Slice> slices() const {
    std::vector<Slice> all;
    for (int64_t b = 0; b < batches(); ++b) {
      for (int64_t row = 0; row < rows(b); row += largest_slice()) {
        const int64_t count = std::min(largest_slice(), rows(b) - row);
        all.push_back({b, b * batch_size + row, count, row + count == rows(b)});
      }
    }
    return all;
  }
};

// `slots` tensors of [slice's rows, seqlen, width] for every (trajectory, slice), overwritten at will.
class TensorStore {
 public:
  static absl::StatusOr<TensorStore> Create(const Context& context, const BatchShape& shape, int64_t width, int64_t slots,
                                            int64_t trajectories, at::ScalarType dtype, bool in_ram,
                                            const std::string& work_dir, MemoryBudget* budget) {
    TensorStore store;
    store.slices_ = shape.slices(), store.seqlen_ = shape.seqlen;
    store.width_ = width, store.trajectories_ = trajectories, store.dtype_ = dtype;
    BoundaryStore::Options options;
    options.count = slots * trajectories * static_cast<int64_t>(store.slices_.size());
    options.record_bytes = static_cast<uint64_t>(shape.largest_slice()) * shape.seqlen * width * at::elementSize(dtype);
    options.in_ram = in_ram;
    options.work_dir = work_dir;
    auto opened = BoundaryStore::Create(context, options, budget);
    if (!opened.ok()) return opened.status();
    store.store_ = *std::move(opened);
    return store;
  }

  absl::Status Put(int64_t slot, int64_t trajectory, int64_t slice, const at::Tensor& value) {
    const at::Tensor flat = value.contiguous();
    return store_->Put(Index(slot, trajectory, slice), {static_cast<const std::byte*>(flat.const_data_ptr()), flat.nbytes()});
  }
  absl::StatusOr<at::Tensor> Get(int64_t slot, int64_t trajectory, int64_t slice) {
    at::Tensor value = at::empty({slices_[slice].rows, seqlen_, width_}, at::TensorOptions().dtype(dtype_));
    absl::Status status =
        store_->Get(Index(slot, trajectory, slice), {static_cast<std::byte*>(value.data_ptr()), value.nbytes()});
    if (!status.ok()) return status;
    return value;
  }
  // Get with the same arguments follows soon.
  void WillGet(int64_t slot, int64_t trajectory, int64_t slice) const { store_->WillGet(Index(slot, trajectory, slice)); }
  uint64_t bytes_written() const { return store_->bytes_written(); }

 private:
  int64_t Index(int64_t slot, int64_t trajectory, int64_t slice) const {
    return (slot * trajectories_ + trajectory) * static_cast<int64_t>(slices_.size()) + slice;
  }
  std::vector<Slice> slices_;
  int64_t seqlen_ = 0, width_ = 0, trajectories_ = 0;
  at::ScalarType dtype_ = at::kFloat;
  std::unique_ptr<BoundaryStore> store_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCORE_BOUNDARIES_H_
