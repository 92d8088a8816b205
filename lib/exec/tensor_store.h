// TensorStore: activations that wait, where the run computes, in memory or in a spill file, by place, variant and
// micro-batch.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "exec/run_resources.h"
#include "plan/micro_batches.h"
#include "stream/record_store.h"

namespace autoscheme {

// Where a store keeps its tensors. kDevice: in the pool of activations of a run on a device.
enum class StorePlace { kDevice, kRam, kDisk };

// `places` tensors of [rows, seqlen, width] for every variant and micro-batch, overwritten at will. What Get returns
// lies in the run's pool of activations and is the caller's.
class TensorStore {
 public:
  static absl::StatusOr<std::unique_ptr<TensorStore>> Create(RunResources& run, const BatchShape& shape, int64_t width,
                                                             int64_t places, int64_t variants, at::ScalarType dtype,
                                                             StorePlace place) {
    std::unique_ptr<TensorStore> made(new TensorStore(run));
    TensorStore& store = *made;
    store.micro_batches_ = shape.micro_batches(), store.seqlen_ = shape.seqlen;
    store.place_ = place, store.width_ = width, store.variants_ = variants, store.dtype_ = dtype;
    const uint64_t bytes = static_cast<uint64_t>(shape.most_rows()) * shape.seqlen * width * at::elementSize(dtype);
    store.records_ = static_cast<int64_t>(std::clamp<uint64_t>(bytes / kRecordBytes, 1, kMostRecords));
    if (place == StorePlace::kDevice) {
      store.on_device_.resize(places * variants * static_cast<int64_t>(store.micro_batches_.size()));
      store.records_ = 1;
      return made;
    }
    RecordStore::Options options;
    options.count = places * variants * static_cast<int64_t>(store.micro_batches_.size()) * store.records_;
    options.record_bytes = store.RecordBytes(bytes);
    options.in_ram = place == StorePlace::kRam;
    options.work_dir = run.work_dir;
    auto opened = RecordStore::Create(run.context, options);
    if (!opened.ok()) return opened.status();
    store.store_ = *std::move(opened);
    return made;
  }

  absl::Status Put(int64_t place, int64_t variant, int64_t m, const at::Tensor& value) {
    if (place_ == StorePlace::kDevice) {
      at::Tensor& kept = on_device_[Index(place, variant, m)];
      if (!kept.defined()) kept = NewPlace(m);
      kept.copy_(value.reshape(kept.sizes()));
      return absl::OkStatus();
    }
    const at::Tensor flat = run_.on_device() ? Staging(m).copy_(value.reshape({-1})) : value.contiguous();
    const auto* data = static_cast<const std::byte*>(flat.const_data_ptr());
    return ForEachRecord(flat.nbytes(), [&](int64_t record, uint64_t at, uint64_t bytes) {
      return store_->Put(Index(place, variant, m) + record, {data + at, bytes});
    });
  }
  absl::StatusOr<at::Tensor> Get(int64_t place, int64_t variant, int64_t m) {
    at::Tensor value = NewPlace(m);
    if (place_ == StorePlace::kDevice) return value.copy_(on_device_[Index(place, variant, m)]);
    const at::Tensor staging = run_.on_device() ? Staging(m) : value;
    auto* data = static_cast<std::byte*>(staging.data_ptr());
    absl::Status status = ForEachRecord(value.nbytes(), [&](int64_t record, uint64_t at, uint64_t bytes) {
      return store_->Get(Index(place, variant, m) + record, {data + at, bytes});
    });
    if (!status.ok()) return status;
    if (run_.on_device()) value.view({-1}).copy_(staging);
    return value;
  }
  // Get with the same arguments follows soon.
  void WillGet(int64_t place, int64_t variant, int64_t m) const {
    if (place_ == StorePlace::kDevice) return;
    for (int64_t record = 0; record < records_; ++record) store_->WillGet(Index(place, variant, m) + record);
  }
  // Written to disk so far.
  uint64_t spilled_bytes() const { return place_ == StorePlace::kDisk ? store_->bytes_written() : 0; }

 private:
  explicit TensorStore(RunResources& run) : run_(run) {}
  at::Tensor NewPlace(int64_t m) const {
    return NewTensor(&run_.activations, {micro_batches_[m].rows, seqlen_, width_}, dtype_);
  }
  // Pinned memory for one tensor on its way; copies to and from it are done when they return.
  at::Tensor Staging(int64_t m) const {
    return at::from_blob(run_.staging.data(), {micro_batches_[m].rows * seqlen_ * width_},
                         at::TensorOptions().dtype(dtype_));
  }
  int64_t Index(int64_t place, int64_t variant, int64_t m) const {
    return ((place * variants_ + variant) * static_cast<int64_t>(micro_batches_.size()) + m) * records_;
  }
  // Bytes of one record but the last; whole pages, as a spilled record begins on one.
  uint64_t RecordBytes(uint64_t tensor_bytes) const {
    const uint64_t even = (tensor_bytes + records_ - 1) / records_;
    return records_ == 1 ? even : (even + 4095) / 4096 * 4096;
  }
  // body(record, offset, bytes) for a tensor's records, by several threads: copying and check sums are bound by one
  // core.
  template <typename Body>
  absl::Status ForEachRecord(uint64_t tensor_bytes, const Body& body) const {
    const uint64_t step = RecordBytes(tensor_bytes);
    std::vector<absl::Status> statuses(records_);
    at::parallel_for(0, records_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t record = begin; record < end; ++record) {
        const uint64_t at = std::min(record * step, tensor_bytes);
        statuses[record] = body(record, at, std::min(step, tensor_bytes - at));
      }
    });
    for (const absl::Status& status : statuses) {
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  RunResources& run_;
  std::vector<MicroBatch> micro_batches_;
  static constexpr uint64_t kRecordBytes = uint64_t{1} << 20, kMostRecords = 16;
  int64_t seqlen_ = 0, width_ = 0, variants_ = 0, records_ = 1;
  StorePlace place_ = StorePlace::kRam;
  at::ScalarType dtype_ = at::kFloat;
  std::unique_ptr<RecordStore> store_;  // null on a device
  std::vector<at::Tensor> on_device_;   // by Index
};

}  // namespace autoscheme
