#include "tensor/tensor_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>

#include "base/budget.h"

namespace autoscheme {
namespace {

constexpr size_t kPieceMultiple = 4096;
constexpr size_t kLeastStretch = size_t{64} << 20;  // of address space, which costs nothing

size_t RoundUp(size_t bytes) { return (bytes + kPieceMultiple - 1) / kPieceMultiple * kPieceMultiple; }

}  // namespace

struct TensorPool::Piece {
  TensorPool* pool;
  size_t stretch, offset, bytes;
  std::byte* data() const { return pool->stretches_[stretch].data + offset; }
};

TensorPool::TensorPool() = default;

TensorPool::~TensorPool() {
  for (const Stretch& stretch : stretches_) munmap(stretch.data, stretch.size);
}

void TensorPool::AddStretch(size_t bytes) {
  // Room for all that the system could give, so that one stretch will do; without access until it is used, so that none
  // of it counts as promised. Less where a limit on address space does not allow that.
  const size_t most = RoundUp(std::max<size_t>(AvailableMemory(), kLeastStretch));
  for (size_t size = std::max(most, bytes);; size = std::max(RoundUp(size / 4), bytes)) {
    void* data = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data != MAP_FAILED) {
      // Fewer and cheaper faults where the system has large pages; where not, nothing is lost.
      madvise(data, size, MADV_HUGEPAGE);
      Stretch stretch;
      stretch.data = static_cast<std::byte*>(data), stretch.size = size;
      stretch.free[0] = size;
      stretches_.push_back(std::move(stretch));
      return;
    }
    if (size == bytes || size < kLeastStretch) throw std::bad_alloc();
  }
}

// The smallest gap that fits, the lowest of equals: tensors of a few sizes that come and go in turns then find the places
// that they had before.
TensorPool::Piece* TensorPool::Find(size_t bytes) {
  for (size_t s = 0;; ++s) {
    if (s == stretches_.size()) AddStretch(bytes);
    Stretch& stretch = stretches_[s];
    auto best = stretch.free.end();
    for (auto gap = stretch.free.begin(); gap != stretch.free.end(); ++gap) {
      if (gap->second >= bytes && (best == stretch.free.end() || gap->second < best->second)) best = gap;
    }
    if (best == stretch.free.end()) continue;
    const size_t offset = best->first, left = best->second - bytes;
    if (offset + bytes > stretch.touched) {
      const size_t grown = offset + bytes;
      if (mprotect(stretch.data + stretch.touched, grown - stretch.touched, PROT_READ | PROT_WRITE) != 0) {
        throw std::bad_alloc();
      }
      stretch.touched = grown;
    }
    auto* piece = new Piece{this, s, offset, bytes};
    stretch.free.erase(best);
    if (left > 0) stretch.free[offset + bytes] = left;
    return piece;
  }
}

c10::DataPtr TensorPool::allocate(size_t bytes) {
  if (bytes < kSmall) return c10::GetDefaultCPUAllocator()->allocate(bytes);
  std::lock_guard<std::mutex> lock(mutex_);
  Piece* piece = Find(RoundUp(bytes));
  used_ += piece->bytes;
  peak_ = std::max(peak_, used_);
  return {piece->data(), piece, &Release, c10::Device(c10::DeviceType::CPU)};
}

void TensorPool::Release(void* context) {
  auto* piece = static_cast<Piece*>(context);
  piece->pool->Free(*piece);
  delete piece;
}

void TensorPool::Free(const Piece& piece) {
  std::lock_guard<std::mutex> lock(mutex_);
  used_ -= piece.bytes;
  std::map<size_t, size_t>& free = stretches_[piece.stretch].free;
  auto gap = free.emplace(piece.offset, piece.bytes).first;
  if (auto after = std::next(gap); after != free.end() && gap->first + gap->second == after->first) {
    gap->second += after->second;
    free.erase(after);
  }
  if (gap == free.begin()) return;
  if (auto before = std::prev(gap); before->first + before->second == gap->first) {
    before->second += gap->second;
    free.erase(gap);
  }
}

uint64_t TensorPool::peak_bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return peak_;
}

void TensorPool::Trim() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Stretch& stretch : stretches_) {
    for (const auto& [offset, bytes] : stretch.free) {
      if (offset < stretch.touched) madvise(stretch.data + offset, std::min(bytes, stretch.touched - offset), MADV_DONTNEED);
    }
  }
}

at::Tensor NewLike(const at::Tensor& like, at::IntArrayRef sizes, at::ScalarType dtype) {
  c10::Allocator* own = like.is_cpu() && like.has_storage() ? like.storage().allocator() : nullptr;
  if (own == nullptr) return at::empty(sizes, at::TensorOptions().device(like.device()).dtype(dtype));
  return at::detail::empty_generic(sizes, own, c10::DispatchKeySet(c10::DispatchKey::CPU), dtype, std::nullopt);
}

at::Tensor NewLike(const at::Tensor& like) { return NewLike(like, like.sizes(), like.scalar_type()); }

at::Tensor NewTensor(TensorPool* pool, at::IntArrayRef sizes, at::ScalarType dtype) {
  if (pool == nullptr) return at::empty(sizes, at::TensorOptions().dtype(dtype));
  return at::detail::empty_generic(sizes, pool, c10::DispatchKeySet(c10::DispatchKey::CPU), dtype, std::nullopt);
}

at::Tensor Converted(const at::Tensor& t, at::ScalarType dtype) {
  return t.scalar_type() == dtype ? t : NewLike(t, t.sizes(), dtype).copy_(t);
}

}  // namespace autoscheme
