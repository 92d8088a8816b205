// TensorPool: memory for the large tensors of one run, used again from tensor to tensor.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "device/torch_devices.h"

namespace autoscheme {

// The host's malloc either keeps what is freed, so that a process holds more than is alive, or gives it back, so that
// every large tensor is made of fresh pages that the system must zero. A pool does neither: it is one region of memory
// whose pages, once touched, serve the next tensor, and its size is that of the tensors alive at the busiest moment
// (and of the gaps between them).
//
// It serves what is asked of it by name: at::empty and the host's own tensors stay with the host's allocator. A
// tensor's storage knows its allocator, so tensors that NewLike makes of it lie in the same pool. Thread-safe. Memory
// goes back to the system with the pool and the last of its tensors: LibTorch may hold on to some of a backward pass
// that failed until the thread's next one.
class TensorPool final : public c10::Allocator {
 public:
  TensorPool();
  TensorPool(const TensorPool&) = delete;
  TensorPool& operator=(const TensorPool&) = delete;
  ~TensorPool() override;

  // Tensors lie in `bytes` of that device's memory, which are reserved here and never grow: one stream computes, so
  // that what it frees it may use again at once. Before the first tensor. RESOURCE_EXHAUSTED.
  absl::Status Reserve(const RunDevice& device, uint64_t bytes);
  at::Device device() const;

  // Throws std::bad_alloc when the system has no more, c10::OutOfMemoryError when what is reserved is full. Below
  // kSmall, on the processor: from LibTorch's own allocator.
  c10::DataPtr allocate(size_t bytes) override;
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  // Gives the pages of all gaps back to the system: between stages whose tensors differ. What comes next is made of
  // fresh pages.
  void Trim();

  // Largest sum of tensors alive at once, bytes.
  uint64_t peak_bytes() const;

  static constexpr size_t kSmall = size_t{64} << 10;

 private:
  struct State;
  struct Block;
  const std::shared_ptr<State> state_;  // blocks in use share it
};

// Uninitialized, contiguous, on the device of `like`, and in its pool where it lies in one.
at::Tensor NewLike(const at::Tensor& like, at::IntArrayRef sizes, at::ScalarType dtype);
at::Tensor NewLike(const at::Tensor& like);
// The same without a tensor to go by: in the pool, or, null, by LibTorch's own allocator.
at::Tensor NewTensor(TensorPool* pool, at::IntArrayRef sizes, at::ScalarType dtype);
// t itself where it has that dtype.
at::Tensor Converted(const at::Tensor& t, at::ScalarType dtype);

}  // namespace autoscheme
