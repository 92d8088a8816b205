// Activations between blocks, kept per (boundary, trajectory, batch): tensors in front of a BoundaryStore.
#ifndef AUTOSCHEME_SCORE_BOUNDARIES_H_
#define AUTOSCHEME_SCORE_BOUNDARIES_H_

#include <cstdint>
#include <memory>
#include <utility>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "stream/boundary_store.h"

namespace autoscheme {

// The rows of batch b of a calibration.
struct BatchShape {
  int64_t nsamples = 0, seqlen = 0, batch_size = 0;
  int64_t batches() const { return (nsamples + batch_size - 1) / batch_size; }
  int64_t rows(int64_t b) const { return std::min(batch_size, nsamples - b * batch_size); }
};

// `slots` tensors of up to [batch_size, seqlen, width] for every (trajectory, batch), overwritten at will.
class TensorStore {
 public:
  static absl::StatusOr<TensorStore> Create(const Context& context, const BatchShape& shape, int64_t width, int64_t slots,
                                            int64_t trajectories, at::ScalarType dtype, bool in_ram,
                                            const std::string& work_dir, MemoryBudget* budget) {
    TensorStore store;
    store.shape_ = shape, store.width_ = width, store.trajectories_ = trajectories, store.dtype_ = dtype;
    BoundaryStore::Options options;
    options.count = slots * trajectories * shape.batches();
    options.record_bytes = static_cast<uint64_t>(std::min(shape.batch_size, shape.nsamples)) * shape.seqlen * width * at::elementSize(dtype);
    options.in_ram = in_ram;
    options.work_dir = work_dir;
    auto opened = BoundaryStore::Create(context, options, budget);
    if (!opened.ok()) return opened.status();
    store.store_ = *std::move(opened);
    return store;
  }
  // Bytes that Create will ask for.
  static uint64_t Bytes(const BatchShape& shape, int64_t width, int64_t slots, int64_t trajectories, at::ScalarType dtype) {
    return static_cast<uint64_t>(slots) * trajectories * shape.nsamples * shape.seqlen * width * at::elementSize(dtype);
  }

  absl::Status Put(int64_t slot, int64_t trajectory, int64_t batch, const at::Tensor& value) {
    const at::Tensor flat = value.contiguous();
    return store_->Put(Index(slot, trajectory, batch), {static_cast<const std::byte*>(flat.const_data_ptr()), flat.nbytes()});
  }
  absl::StatusOr<at::Tensor> Get(int64_t slot, int64_t trajectory, int64_t batch) {
    at::Tensor value = at::empty({shape_.rows(batch), shape_.seqlen, width_}, at::TensorOptions().dtype(dtype_));
    absl::Status status =
        store_->Get(Index(slot, trajectory, batch), {static_cast<std::byte*>(value.data_ptr()), value.nbytes()});
    if (!status.ok()) return status;
    return value;
  }
  uint64_t bytes_written() const { return store_->bytes_written(); }

 private:
  int64_t Index(int64_t slot, int64_t trajectory, int64_t batch) const {
    return (slot * trajectories_ + trajectory) * shape_.batches() + batch;
  }
  BatchShape shape_;
  int64_t width_ = 0, trajectories_ = 0;
  at::ScalarType dtype_ = at::kFloat;
  std::unique_ptr<BoundaryStore> store_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCORE_BOUNDARIES_H_
