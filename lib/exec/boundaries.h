// Activations between units, kept per (boundary, trajectory, slice): tensors in front of a BoundaryStore.
#ifndef AUTOSCHEME_EXEC_BOUNDARIES_H_
#define AUTOSCHEME_EXEC_BOUNDARIES_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "stream/boundary_store.h"
#include "tensor/tensor_pool.h"

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

// `slots` tensors of [slice's rows, seqlen, width] for every (trajectory, slice), overwritten at will. What Get returns
// lies in the pool, or, null, where LibTorch puts it.
class TensorStore {
 public:
  static absl::StatusOr<TensorStore> Create(const Context& context, const BatchShape& shape, int64_t width, int64_t slots,
                                            int64_t trajectories, at::ScalarType dtype, bool in_ram,
                                            const std::string& work_dir, MemoryBudget* budget, TensorPool* pool) {
    TensorStore store;
    store.pool_ = pool;
    store.slices_ = shape.slices(), store.seqlen_ = shape.seqlen;
    store.in_ram_ = in_ram, store.width_ = width, store.trajectories_ = trajectories, store.dtype_ = dtype;
    const uint64_t bytes = static_cast<uint64_t>(shape.largest_slice()) * shape.seqlen * width * at::elementSize(dtype);
    store.pieces_ = static_cast<int64_t>(std::clamp<uint64_t>(bytes / kPieceBytes, 1, kMostPieces));
    BoundaryStore::Options options;
    options.count = slots * trajectories * static_cast<int64_t>(store.slices_.size()) * store.pieces_;
    options.record_bytes = store.PieceBytes(bytes);
    options.in_ram = in_ram;
    options.work_dir = work_dir;
    auto opened = BoundaryStore::Create(context, options, budget);
    if (!opened.ok()) return opened.status();
    store.store_ = *std::move(opened);
    return store;
  }

  absl::Status Put(int64_t slot, int64_t trajectory, int64_t slice, const at::Tensor& value) {
    const at::Tensor flat = value.contiguous();
    const auto* data = static_cast<const std::byte*>(flat.const_data_ptr());
    return ForEachPiece(flat.nbytes(), [&](int64_t piece, uint64_t at, uint64_t bytes) {
      return store_->Put(Index(slot, trajectory, slice) + piece, {data + at, bytes});
    });
  }
  absl::StatusOr<at::Tensor> Get(int64_t slot, int64_t trajectory, int64_t slice) {
    at::Tensor value = NewTensor(pool_, {slices_[slice].rows, seqlen_, width_}, dtype_);
    auto* data = static_cast<std::byte*>(value.data_ptr());
    absl::Status status = ForEachPiece(value.nbytes(), [&](int64_t piece, uint64_t at, uint64_t bytes) {
      return store_->Get(Index(slot, trajectory, slice) + piece, {data + at, bytes});
    });
    if (!status.ok()) return status;
    return value;
  }
  // Get with the same arguments follows soon.
  void WillGet(int64_t slot, int64_t trajectory, int64_t slice) const {
    for (int64_t piece = 0; piece < pieces_; ++piece) store_->WillGet(Index(slot, trajectory, slice) + piece);
  }
  // Written so far, 0 in RAM.
  uint64_t spilled_bytes() const { return in_ram_ ? 0 : store_->bytes_written(); }

 private:
  int64_t Index(int64_t slot, int64_t trajectory, int64_t slice) const {
    return ((slot * trajectories_ + trajectory) * static_cast<int64_t>(slices_.size()) + slice) * pieces_;
  }
  // Of one piece, but for the last; whole pages, as a spilled record begins on one.
  uint64_t PieceBytes(uint64_t tensor_bytes) const {
    const uint64_t even = (tensor_bytes + pieces_ - 1) / pieces_;
    return pieces_ == 1 ? even : (even + 4095) / 4096 * 4096;
  }
  // body(piece, offset, bytes) for a tensor's pieces, by several threads: copying and check sums are bound by one core.
  template <typename Body>
  absl::Status ForEachPiece(uint64_t tensor_bytes, const Body& body) const {
    const uint64_t step = PieceBytes(tensor_bytes);
    std::vector<absl::Status> statuses(pieces_);
    at::parallel_for(0, pieces_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t piece = begin; piece < end; ++piece) {
        const uint64_t at = std::min(piece * step, tensor_bytes);
        statuses[piece] = body(piece, at, std::min(step, tensor_bytes - at));
      }
    });
    for (const absl::Status& status : statuses) {
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  std::vector<Slice> slices_;
  static constexpr uint64_t kPieceBytes = uint64_t{1} << 20, kMostPieces = 16;
  int64_t seqlen_ = 0, width_ = 0, trajectories_ = 0, pieces_ = 1;
  bool in_ram_ = true;
  at::ScalarType dtype_ = at::kFloat;
  TensorPool* pool_ = nullptr;
  std::unique_ptr<BoundaryStore> store_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_EXEC_BOUNDARIES_H_
